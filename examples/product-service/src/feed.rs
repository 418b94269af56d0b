//! What is published to other services: the event types of the feed `products.v1.>`, a contract of its own.

use events::{Envelope, ServiceNames, Timestamp, UserId};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::to_value;
use view_kit::feed_publisher::{PublicEvent, Published};

use crate::domain::{Price, Product, ProductFact, ProductId, Snapshot, Status, UnpublishReason};
use crate::settings::NAMES;

/// A product as other services see it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PublicProduct {
    #[schemars(with = "String", extend("format" = "uuid"))]
    id: ProductId,
    /// The user who owns it.
    owner: UserId,
    name: String,
    description: Option<String>,
    price: PublicPrice,
    status: PublicStatus,
    created_at: Timestamp,
    updated_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PublicPrice {
    /// In the smallest unit of the currency: cents.
    amount: u64,
    /// ISO 4217.
    currency: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PublicStatus {
    Draft,
    Published,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PublicReason {
    /// Its owner or a manager requested it.
    Asked,
    /// Its owner was deleted.
    OwnerDeleted,
}

/// `data` of an event of an existing product.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ProductData {
    product: PublicProduct,
}

/// `data` of `products.v1.unpublished`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Unpublished {
    reason: PublicReason,
    product: PublicProduct,
}

/// `data` of `products.v1.deleted`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Deleted {
    product: DeletedProduct,
}

/// What is kept of a deleted product.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DeletedProduct {
    #[schemars(with = "String", extend("format" = "uuid"))]
    id: ProductId,
    deleted_at: Timestamp,
}

impl Published for ProductFact {
    const NAMES: ServiceNames = NAMES;

    fn public_event(event: &Envelope<Self>) -> Result<Option<PublicEvent>, serde_json::Error> {
        let product = match &event.after {
            Snapshot::Deleted(gone) => {
                let product = DeletedProduct { id: gone.id, deleted_at: gone.deleted_at };
                return Ok(Some(("deleted", to_value(Deleted { product })?)));
            }
            Snapshot::Present(product) => public(product),
        };
        let (name, data) = match &event.fact {
            Self::Created { .. } => ("created", to_value(ProductData { product })?),
            Self::Changed { .. } => ("changed", to_value(ProductData { product })?),
            Self::PriceChanged { .. } => ("price_changed", to_value(ProductData { product })?),
            Self::Published => ("published", to_value(ProductData { product })?),
            Self::Unpublished { reason } => {
                let reason = match reason {
                    UnpublishReason::Asked => PublicReason::Asked,
                    UnpublishReason::OwnerDeleted => PublicReason::OwnerDeleted,
                };
                ("unpublished", to_value(Unpublished { reason, product })?)
            }
            // Its state is that of a deletion, which is handled above.
            Self::Deleted => return Ok(None),
        };
        Ok(Some((name, data)))
    }
}

fn public(product: &Product) -> PublicProduct {
    let Price { amount, currency } = product.price.clone();
    PublicProduct {
        id: product.id,
        owner: product.owner,
        name: product.name.clone(),
        description: product.description.clone(),
        price: PublicPrice { amount, currency },
        status: match product.status {
            Status::Draft => PublicStatus::Draft,
            Status::Published => PublicStatus::Published,
        },
        created_at: product.created_at,
        updated_at: product.updated_at,
    }
}
