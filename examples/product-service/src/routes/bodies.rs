//! The bodies that handlers take apart member by member, described for the OpenAPI document.

#![expect(dead_code, reason = "descriptions")]

use serde::Deserialize;
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "Chair", "description": "Four legs", "price": {"amount": 4900, "currency": "EUR"},
}))]
pub struct ProductCreate {
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[schema(max_length = 4000)]
    description: Option<String>,
    price: PriceSet,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Armchair"}))]
pub struct ProductChange {
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// `null` removes it.
    #[schema(max_length = 4000)]
    description: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"amount": 4900, "currency": "EUR"}))]
pub struct PriceSet {
    /// In the smallest unit of the currency: cents.
    #[schema(maximum = 100_000_000)]
    amount: u64,
    /// ISO 4217.
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
}
