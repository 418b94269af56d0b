//! Descriptions of query parameters, for the OpenAPI document.

use serde::Deserialize;
use utoipa::IntoParams;

/// The parameter of a single product.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct MinPosition {
    /// Position that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}

/// The parameters of the list.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "a description")]
pub struct ListParameters {
    /// Only products of this user. Without it, and without the role `product-manager`, only published ones.
    #[param(nullable = false, format = "uuid")]
    owner: Option<String>,
    /// `draft` or `published`.
    #[param(nullable = false, pattern = "^(draft|published)$")]
    status: Option<String>,
    /// `created_at` (the default is `-created_at`), `name` or `price`; the prefix `-` sorts in descending order.
    #[param(nullable = false, pattern = "^-?(created_at|name|price)$")]
    sort: Option<String>,
    /// Products per page.
    #[param(nullable = false, minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u16>,
    /// Whether the answer includes `total`.
    #[param(nullable = false)]
    include_total: Option<bool>,
    /// `next_cursor` of the previous page.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// Position that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}
