//! HTTP: extract, build the command or the query, and answer.

mod commands;
mod contract;
mod list;
mod queries;

use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use events::{Revision, Timestamp, UserId};
use serde::Serialize;
use service_kit::commands::{Commands, Refused};
use service_kit::keys::SecretKey;
use service_kit::openapi::{self, call};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Caller, TokenVerifier};
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use view_kit::ViewReads;

use crate::domain::{Product, ProductId, Products, Rejection, Requester, Status};
use crate::projection::ProductViews;

/// The role that may see and change every product, in addition to Roster's administrators.
const MANAGER: &str = "product-manager";
/// Roster's role that may do everything.
const ADMIN: &str = "admin";

/// State shared by the handlers. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub commands: Commands<Products>,
    pub reads: ViewReads<ProductViews>,
    pub verifier: TokenVerifier,
    pub cursor_key: SecretKey,
    pub price_max: u64,
    pub command_wait: Duration,
    pub query_wait: Duration,
}

impl FromRef<AppState> for TokenVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}

/// All routes.
pub fn routes(state: AppState) -> Router {
    router_with_description().with_state(state).split_for_parts().0
}

/// The OpenAPI document, built without a running service.
#[must_use]
pub fn openapi() -> OpenApi {
    let mut document = router_with_description().into_openapi();
    openapi::complete(&mut document);
    document
}

fn router_with_description() -> OpenApiRouter<AppState> {
    let description = "Products of Roster's users. Errors are problem+json.";
    OpenApiRouter::with_openapi(openapi::head_of("Products", description))
        .routes(call(routes!(commands::create), &commands::CREATE))
        .routes(call(routes!(queries::list), &queries::LIST))
        .routes(call(routes!(queries::by_id), &queries::BY_ID))
        .routes(call(routes!(commands::change), &commands::CHANGE))
        .routes(call(routes!(commands::delete), &commands::DELETE))
        .routes(call(routes!(commands::set_price), &commands::STATUS_CHANGE))
        .routes(call(routes!(commands::publish), &commands::STATUS_CHANGE))
        .routes(call(routes!(commands::unpublish), &commands::CHANGE))
}

/// A product, as returned to callers who may see it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ProductRead {
    #[schema(value_type = String, format = "uuid")]
    id: ProductId,
    #[schema(value_type = String, format = "uuid")]
    owner: UserId,
    name: String,
    #[schema(required)]
    description: Option<String>,
    price: PriceRead,
    /// Who can see it.
    #[schema(value_type = StatusSchema)]
    status: Status,
    /// Number of changes so far; the `ETag`.
    #[schema(value_type = u64)]
    revision: Revision,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A price.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Price)]
pub struct PriceRead {
    /// In the smallest unit of the currency: cents.
    amount: u64,
    /// ISO 4217.
    currency: String,
}

#[derive(ToSchema)]
#[schema(as = Status, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes Status")]
enum StatusSchema {
    Draft,
    Published,
}

impl From<Product> for ProductRead {
    fn from(product: Product) -> Self {
        Self {
            id: product.id,
            owner: product.owner,
            name: product.name,
            description: product.description,
            price: PriceRead { amount: product.price.amount, currency: product.price.currency },
            status: product.status,
            revision: product.revision,
            created_at: product.created_at,
            updated_at: product.updated_at,
        }
    }
}

/// Whether a caller may see and change every product.
fn is_manager(caller: &Caller) -> bool {
    caller.has_role(MANAGER) || caller.has_role(ADMIN)
}

impl AppState {
    /// The caller as the rules see it. A manager's rights may have been revoked, so they need current revocations.
    fn requester(&self, caller: &Caller) -> Result<Requester, Problem> {
        if !is_manager(caller) {
            return Ok(Requester::User(caller.user));
        }
        self.verifier.check_current()?;
        Ok(Requester::Manager)
    }
}

/// A string that is not an id names no product.
fn product_id(text: &str) -> Result<ProductId, Problem> {
    text.parse().map_err(|_| Problem::new(Code::NotFound))
}

/// Maps every way in which a command can fail to the problem that the client gets.
fn to_problem(refused: Refused<Rejection>) -> Problem {
    match refused {
        Refused::Failed(failure) => failure.into(),
        Refused::Rejected(rejection) => match rejection {
            // The service generates the ids, so this is its own error.
            Rejection::Exists => Problem::new(Code::Internal).because("a new id was in use"),
            Rejection::NoSuchProduct => Problem::new(Code::NotFound),
            Rejection::NotYours => {
                Problem::new(Code::Forbidden).detail("the product belongs to somebody else")
            }
            Rejection::Stale => Problem::new(Code::StaleRevision),
            Rejection::NoPrice => {
                Problem::new(Code::NotPossible).detail("a free product cannot be published")
            }
        },
    }
}
