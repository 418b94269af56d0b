//! `/api/v1/products`: the writes.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use events::Actor;
use http::header::IF_MATCH;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};
use service_kit::ambient;
use service_kit::commands::Done;
use service_kit::http::{
    CommandHeaders, Fault, JsonObject, MergePatch, POSITION, etag, located, nullable_string,
    reflects, revisions, string, tagged,
};
use service_kit::problem::Problem;
use service_kit::tokens::{Authenticated, Caller};

use super::bodies::{PriceSet, ProductChange, ProductCreate};
use super::{AppState, ProductRead, product_id, refused};
use crate::domain::{
    Change, Command, Name, NewProduct, Price, ProductId, Snapshot, UnpublishReason,
};

#[utoipa::path(
    post,
    path = "/api/v1/products",
    tag = "products",
    operation_id = "create_product",
    summary = "Make a product, which only its owner sees",
    request_body = ProductCreate,
    responses((status = 201, description = "The product", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn create(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    asked: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let fingerprint = text_of(body.members());
    let name = body.required("name", name);
    let description = body.optional("description", description);
    let price = body.required("price", |value| price(value, state.price_max));
    let new = body.finish(|| {
        Some(NewProduct {
            owner: caller.user,
            name: name?,
            description: description.flatten(),
            price: price?,
        })
    })?;
    let id = ProductId(ambient::new_uuid());
    let command = Command::Create(new);
    state.carry_out(StatusCode::CREATED, id, command, &caller, asked, &fingerprint).await
}

#[utoipa::path(
    patch,
    path = "/api/v1/products/{product_id}",
    tag = "products",
    operation_id = "change_product",
    summary = "Change name or description",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    request_body(content = ProductChange, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The product after it", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn change(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    asked: CommandHeaders,
    headers: HeaderMap,
    MergePatch(mut body): MergePatch,
) -> Result<Response, Problem> {
    let fingerprint = text_of(body.members());
    let name = body.optional("name", name);
    let description = body.optional("description", description);
    let change = body.finish(|| Some(Change::Text { name, description }))?;
    state.change(&id, change, &caller, asked, &headers, &fingerprint).await
}

#[utoipa::path(
    put,
    path = "/api/v1/products/{product_id}/price",
    tag = "products",
    operation_id = "set_price",
    summary = "Change the price",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    request_body = PriceSet,
    responses((status = 200, description = "The product after it", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn set_price(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    asked: CommandHeaders,
    headers: HeaderMap,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let fingerprint = text_of(body.members());
    let amount = body.required("amount", |value| amount(value, state.price_max));
    let currency = body.required("currency", currency);
    let price = body.finish(|| Some(Price { amount: amount?, currency: currency? }))?;
    state.change(&id, Change::Price(price), &caller, asked, &headers, &fingerprint).await
}

#[utoipa::path(
    post,
    path = "/api/v1/products/{product_id}/publish",
    tag = "products",
    operation_id = "publish_product",
    summary = "Let everyone see a product",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    responses((status = 200, description = "The product after it", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn publish(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    asked: CommandHeaders,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.change(&id, Change::Publish, &caller, asked, &headers, "").await
}

#[utoipa::path(
    post,
    path = "/api/v1/products/{product_id}/unpublish",
    tag = "products",
    operation_id = "unpublish_product",
    summary = "Let nobody but the owner see a product",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    responses((status = 200, description = "The product after it", body = ProductRead)),
    security(("bearer" = []))
)]
pub async fn unpublish(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    asked: CommandHeaders,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let change = Change::Unpublish(UnpublishReason::Asked);
    state.change(&id, change, &caller, asked, &headers, "").await
}

#[utoipa::path(
    delete,
    path = "/api/v1/products/{product_id}",
    tag = "products",
    operation_id = "delete_product",
    summary = "Delete a product for ever",
    params(("product_id" = String, Path, format = "uuid", description = "The product")),
    responses((status = 204, description = "The product is gone")),
    security(("bearer" = []))
)]
pub async fn delete(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    asked: CommandHeaders,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    state.change(&id, Change::Delete, &caller, asked, &headers, "").await
}

impl AppState {
    async fn change(
        &self,
        id: &str,
        change: Change,
        caller: &Caller,
        asked: CommandHeaders,
        headers: &HeaderMap,
        fingerprint: &str,
    ) -> Result<Response, Problem> {
        let (id, by) = (product_id(id)?, self.by(caller)?);
        let expected = revisions(headers, IF_MATCH)?;
        let command = Command::Change { by, expected, change };
        self.carry_out(StatusCode::OK, id, command, caller, asked, fingerprint).await
    }

    /// Carries a command out and answers with the product once the views have it, or says that they do not.
    async fn carry_out(
        &self,
        status: StatusCode,
        id: ProductId,
        command: Command,
        caller: &Caller,
        asked: CommandHeaders,
        fingerprint: &str,
    ) -> Result<Response, Problem> {
        let respond_async = asked.respond_async;
        let scope = caller.user.to_string();
        let actor = Actor::User(caller.user);
        let request = asked.request(self.commands.keys(), actor, &scope, fingerprint);
        let done = self.commands.execute(id, command, request).await.map_err(refused)?;
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

/// What a repeated request must have again.
fn text_of(members: &Map<String, Value>) -> String {
    // An object of JSON is always text.
    serde_json::to_string(members).unwrap_or_default()
}

fn name(value: Value) -> Result<String, Fault> {
    Name::parse(&string(value)?).map(Name::into_string)
}

fn description(value: Value) -> Result<Option<String>, Fault> {
    match nullable_string(value)? {
        Some(text) => Name::description(&text),
        None => Ok(None),
    }
}

fn amount(value: Value, max: u64) -> Result<u64, Fault> {
    let wrong = || ("type", "must be a whole number, not negative".to_owned());
    Price::amount(value.as_u64().ok_or_else(wrong)?, max)
}

fn currency(value: Value) -> Result<String, Fault> {
    Price::currency(string(value)?)
}

/// A price within a body. What is wrong with a member of it is said with the member's name.
fn price(value: Value, max: u64) -> Result<Price, Fault> {
    let Value::Object(mut members) = value else {
        return Err(("type", "must be an object".to_owned()));
    };
    let named = |name: &'static str| move |(code, why): Fault| (code, format!("{name} {why}"));
    let mut member = |name: &'static str| {
        members.remove(name).ok_or_else(|| ("required", format!("{name} must be given")))
    };
    let amount = amount(member("amount")?, max).map_err(named("amount"))?;
    let currency = currency(member("currency")?).map_err(named("currency"))?;
    if let Some(name) = members.keys().next() {
        let short: String = name.chars().take(64).collect();
        return Err(("unknown-member", format!("{short} is not a member of a price")));
    }
    Ok(Price { amount, currency })
}
