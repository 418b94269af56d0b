//! `/api/v1/products`: the commands.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use events::Actor;
use http::header::IF_MATCH;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use service_kit::ambient;
use service_kit::commands::Done;
use service_kit::http::{
    CommandHeaders, Fault, Faults, JsonBody, POSITION, Parsed, PatchBody, etag, located, reflects,
    revisions, tagged,
};
use service_kit::openapi::{AnswerHeader, Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, Caller};
use utoipa::ToSchema;

use super::{AppState, ProductRead, product_id, to_problem};
use crate::domain::{
    Change, Command, Name, NewProduct, Price, ProductId, Snapshot, UnpublishReason,
};

/// A change of a product that can be made conditional.
pub const CHANGE: Call = Call {
    errors: &[
        Code::Forbidden,
        Code::NotFound,
        Code::IdempotencyKeyInFlight,
        Code::StaleRevision,
        Code::IdempotencyKeyReused,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    headers: &[RequestHeader::IfMatch, RequestHeader::IdempotencyKey, RequestHeader::Prefer],
    answer_headers: &[AnswerHeader::ETag, AnswerHeader::Position, AnswerHeader::Pending],
};

/// A change that the product's status may rule out.
pub const STATUS_CHANGE: Call = Call {
    errors: &[
        Code::Forbidden,
        Code::NotFound,
        Code::NotPossible,
        Code::IdempotencyKeyInFlight,
        Code::StaleRevision,
        Code::IdempotencyKeyReused,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    ..CHANGE
};

/// Headers and errors of [`create`].
pub const CREATE: Call = Call {
    errors: &[
        Code::IdempotencyKeyInFlight,
        Code::IdempotencyKeyReused,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    headers: &[RequestHeader::IdempotencyKey, RequestHeader::Prefer],
    answer_headers: &[
        AnswerHeader::ETag,
        AnswerHeader::Location,
        AnswerHeader::Position,
        AnswerHeader::Pending,
    ],
};

/// Headers and errors of [`delete`].
pub const DELETE: Call =
    Call { answer_headers: &[AnswerHeader::Position, AnswerHeader::Pending], ..CHANGE };

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "name": "Chair", "description": "Four legs", "price": {"amount": 4900, "currency": "EUR"},
}))]
pub struct ProductCreate {
    #[deserr(try_from(String) = parse_name -> Fault)]
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    #[deserr(default, try_from(Option<String>) = parse_description -> Fault)]
    #[schema(max_length = 4000)]
    description: Option<String>,
    price: PriceSet,
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "Armchair"}))]
pub struct ProductChange {
    #[deserr(default, try_from(String) = parse_new_name -> Fault)]
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    name: Option<String>,
    /// `null` removes it.
    #[deserr(default, try_from(Option<String>) = parse_new_description -> Fault)]
    #[schema(value_type = Option<String>, max_length = 4000)]
    description: Option<Option<String>>,
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"amount": 4900, "currency": "EUR"}))]
pub struct PriceSet {
    /// In the smallest unit of the currency: cents.
    #[schema(maximum = 100_000_000)]
    amount: u64,
    /// ISO 4217.
    #[deserr(try_from(String) = Price::currency -> Fault)]
    #[schema(pattern = "^[A-Z]{3}$")]
    currency: String,
}

impl From<PriceSet> for Price {
    fn from(PriceSet { amount, currency }: PriceSet) -> Self {
        Self { amount, currency }
    }
}

#[utoipa::path(
    post,
    path = "/api/v1/products",
    tag = "products",
    operation_id = "create_product",
    summary = "Create a product that only its owner can see",
    request_body = ProductCreate,
    responses((status = 201, description = "The product", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    command_headers: CommandHeaders,
    JsonBody(mut body): JsonBody<ProductCreate>,
) -> Result<Response, Problem> {
    let fingerprint = body.fingerprint(&[]);
    check_amount(&mut body, "/price/amount", state.price_max);
    let ProductCreate { name, description, price } = body.finish()?;
    let price = price.into();
    let new = NewProduct { owner: caller.user, name, description, price };
    let id = ProductId(ambient::new_uuid());
    let command = Command::Create(new);
    state.execute(StatusCode::CREATED, id, command, &caller, command_headers, &fingerprint).await
}

#[utoipa::path(
    patch,
    path = "/api/v1/products/{product_id}",
    tag = "products",
    operation_id = "change_product",
    summary = "Change name or description",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    request_body(content = ProductChange, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The product after the change", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn change(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    command_headers: CommandHeaders,
    headers: HeaderMap,
    PatchBody(body): PatchBody<ProductChange>,
) -> Result<Response, Problem> {
    let fingerprint = body.fingerprint(&[]);
    let ProductChange { name, description } = body.finish()?;
    let change = Change::Text { name, description };
    state.change(&id, change, &caller, command_headers, &headers, &fingerprint).await
}

#[utoipa::path(
    put,
    path = "/api/v1/products/{product_id}/price",
    tag = "products",
    operation_id = "set_price",
    summary = "Change the price",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    request_body = PriceSet,
    responses((status = 200, description = "The product after the change", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn set_price(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    command_headers: CommandHeaders,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody<PriceSet>,
) -> Result<Response, Problem> {
    let fingerprint = body.fingerprint(&[]);
    check_amount(&mut body, "/amount", state.price_max);
    let change = Change::Price(body.finish()?.into());
    state.change(&id, change, &caller, command_headers, &headers, &fingerprint).await
}

#[utoipa::path(
    post,
    path = "/api/v1/products/{product_id}/publish",
    tag = "products",
    operation_id = "publish_product",
    summary = "Publish a product: everyone can see it",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    responses((status = 200, description = "The product after the change", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn publish(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    command_headers: CommandHeaders,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.change(&id, Change::Publish, &caller, command_headers, &headers, "").await
}

#[utoipa::path(
    post,
    path = "/api/v1/products/{product_id}/unpublish",
    tag = "products",
    operation_id = "unpublish_product",
    summary = "Unpublish a product: only its owner can see it",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    responses((status = 200, description = "The product after the change", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn unpublish(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    command_headers: CommandHeaders,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let change = Change::Unpublish(UnpublishReason::Asked);
    state.change(&id, change, &caller, command_headers, &headers, "").await
}

#[utoipa::path(
    delete,
    path = "/api/v1/products/{product_id}",
    tag = "products",
    operation_id = "delete_product",
    summary = "Delete a product permanently",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    responses((status = 204, description = "The product was deleted")),
    security(("bearer" = []))
)]
pub async fn delete(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    command_headers: CommandHeaders,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.change(&id, Change::Delete, &caller, command_headers, &headers, "").await
}

impl AppState {
    async fn change(
        &self,
        id: &str,
        change: Change,
        caller: &Caller,
        command_headers: CommandHeaders,
        headers: &HeaderMap,
        fingerprint: &str,
    ) -> Result<Response, Problem> {
        let (id, by) = (product_id(id)?, self.requester(caller)?);
        let expected = revisions(headers, IF_MATCH)?;
        let command = Command::Change { by, expected, change };
        self.execute(StatusCode::OK, id, command, caller, command_headers, fingerprint).await
    }

    /// Executes a command. It answers with the product and says whether the views already contain the change.
    async fn execute(
        &self,
        status: StatusCode,
        id: ProductId,
        command: Command,
        caller: &Caller,
        command_headers: CommandHeaders,
        fingerprint: &str,
    ) -> Result<Response, Problem> {
        let respond_async = command_headers.respond_async;
        let scope = caller.user.to_string();
        let actor = Actor::User(caller.user);
        let request = command_headers.request(self.commands.keys(), actor, &scope, fingerprint);
        let done = self.commands.execute(id, command, request).await.map_err(to_problem)?;
        let Done { after, revision, position } = done;
        let mut response = match after {
            Snapshot::Present(product) => {
                let path = format!("/api/v1/products/{}", product.id);
                let mut response = (status, Json(ProductRead::from(product))).into_response();
                tagged(&mut response, etag(revision));
                if status == StatusCode::CREATED {
                    located(&mut response, &path);
                }
                response
            }
            Snapshot::Deleted(_) => StatusCode::NO_CONTENT.into_response(),
        };
        let caught_up =
            !respond_async && self.reads.heard().have(position, self.command_wait).await;
        reflects(&mut response, POSITION, position, caught_up);
        Ok(response)
    }
}

fn parse_name(text: String) -> Result<String, Fault> {
    Name::parse(&text).map(Name::into_string)
}

/// A name that may be absent but not `null`.
fn parse_new_name(text: String) -> Result<Option<String>, Fault> {
    parse_name(text).map(Some)
}

fn parse_description(text: Option<String>) -> Result<Option<String>, Fault> {
    text.map_or(Ok(None), |text| Name::description(&text))
}

fn parse_new_description(text: Option<String>) -> Result<Option<Option<String>>, Fault> {
    parse_description(text).map(Some)
}

/// The largest amount is a setting, so it is checked here.
fn check_amount<T: Deserr<Faults>>(body: &mut Parsed<T>, pointer: &str, max: u64) {
    let amount = body.member(pointer).and_then(Value::as_u64);
    if let Some(Err(fault)) = amount.map(|amount| Price::amount(amount, max)) {
        body.reject(pointer, fault);
    }
}
