//! What the OpenAPI document says beyond the handlers.

use serde::Deserialize;
use service_kit::openapi::AnswerHeader::{
    self, ETag, Link, Location, Pending, Position as Told, TotalOmitted,
};
use service_kit::openapi::Extras;
use service_kit::openapi::RequestHeader::{
    self, IdempotencyKey, IfMatch, IfNoneMatch, Position, Prefer,
};
use service_kit::problem::Code;
use utoipa::IntoParams;

const GUARDED: &[RequestHeader] = &[IfMatch, IdempotencyKey, Prefer];
const A_PRODUCT: &[AnswerHeader] = &[ETag, Told, Pending];
const CHANGE: &[Code] = &[
    Code::Forbidden,
    Code::NotFound,
    Code::IdempotencyKeyInFlight,
    Code::StaleRevision,
    Code::IdempotencyKeyReused,
    Code::Overloaded,
    Code::OutcomeUnknown,
];
const PUBLISHING: &[Code] = &[
    Code::Forbidden,
    Code::NotFound,
    Code::NotPossible,
    Code::IdempotencyKeyInFlight,
    Code::StaleRevision,
    Code::IdempotencyKeyReused,
    Code::Overloaded,
    Code::OutcomeUnknown,
];

const fn change(operation: &'static str, errors: &'static [Code]) -> Extras {
    Extras { operation, errors, headers: GUARDED, tells: A_PRODUCT }
}

pub const EXTRAS: &[Extras] = &[
    Extras {
        operation: "create_product",
        errors: &[
            Code::IdempotencyKeyInFlight,
            Code::IdempotencyKeyReused,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        headers: &[IdempotencyKey, Prefer],
        tells: &[ETag, Location, Told, Pending],
    },
    change("change_product", CHANGE),
    change("set_price", PUBLISHING),
    change("publish_product", PUBLISHING),
    change("unpublish_product", CHANGE),
    Extras {
        operation: "delete_product",
        errors: CHANGE,
        headers: GUARDED,
        tells: &[Told, Pending],
    },
    Extras {
        operation: "product",
        errors: &[Code::InvalidParameter, Code::NotFound, Code::NotYet],
        headers: &[IfNoneMatch, Position],
        tells: &[ETag, Told],
    },
    Extras {
        operation: "list_products",
        errors: &[Code::InvalidParameter, Code::Forbidden, Code::QueryTooBroad, Code::NotYet],
        headers: &[Position],
        tells: &[Link, TotalOmitted, Told],
    },
];

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
    /// Products of this user. Without it, and without the role `product-manager`, those that are published.
    #[param(nullable = false, format = "uuid")]
    owner: Option<String>,
    /// `draft` or `published`.
    #[param(nullable = false, pattern = "^(draft|published)$")]
    status: Option<String>,
    /// `created_at` (the default is `-created_at`), `name` or `price`; a `-` before it turns the order round.
    #[param(nullable = false, pattern = "^-?(created_at|name|price)$")]
    sort: Option<String>,
    /// Products on a page.
    #[param(nullable = false, minimum = 1, maximum = 200, default = 50)]
    page_size: Option<u16>,
    /// Whether the answer shall have `total`.
    #[param(nullable = false)]
    include_total: Option<bool>,
    /// `next_cursor` of the page before.
    #[param(nullable = false)]
    cursor: Option<String>,
    /// Position that the answer must reflect.
    #[param(nullable = false)]
    min_position: Option<u64>,
}
