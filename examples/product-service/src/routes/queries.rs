//! `/api/v1/products`: the queries.

use axum::Json;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use service_kit::http::{POSITION, etag, freshness, is_known, page, tagged};
use service_kit::openapi::{AnswerHeader, Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, Caller};
use utoipa::ToSchema;

use super::contract::{ListParameters, MinPosition};
use super::list::{List, by_id as key_of};
use super::{AppState, ProductRead, is_manager, product_id};
use crate::domain::{Product, Status};
use crate::projection::ProductDocument;

/// A page of products.
#[derive(Serialize, ToSchema)]
pub struct Page {
    items: Vec<ProductRead>,
    /// For the next page; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Present with `include_total=true`, unless `Roster-Total-Omitted` says why it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total: Option<u64>,
}

/// A caller with a valid token. The views have reached the position that the request requires.
pub struct Viewer(Caller);

impl FromRequestParts<AppState> for Viewer {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Authenticated(caller) = Authenticated::from_request_parts(parts, state).await?;
        let wait = state.query_wait;
        freshness::fresh(parts, |position| state.reads.wait_for(position, wait)).await?;
        if is_manager(&caller) {
            state.verifier.check_current()?;
        }
        Ok(Self(caller))
    }
}

/// Headers and errors of [`by_id`].
pub const BY_ID: Call = Call {
    errors: &[Code::InvalidParameter, Code::NotFound, Code::NotYet],
    headers: &[RequestHeader::IfNoneMatch, RequestHeader::Position],
    answer_headers: &[AnswerHeader::ETag, AnswerHeader::Position],
};

#[utoipa::path(
    get,
    path = "/api/v1/products/{product_id}",
    tag = "products",
    operation_id = "product",
    summary = "A product",
    params(("product_id" = String, Path, format = "uuid", description = "The product"), MinPosition),
    responses((status = 200, description = "The product", body = ProductRead), (status = 304, description = "Not modified")),
    security(("bearer" = []))
)]
pub async fn by_id(
    State(state): State<AppState>,
    Viewer(caller): Viewer,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    freshness::only_min_position(&uri)?;
    let id = product_id(&id)?;
    let position = state.reads.position().await?;
    let documents = state.reads.documents::<ProductDocument>();
    let found = state.reads.whole(async move { Ok(documents.find_one(key_of(id)).await?) }).await?;
    let found = found.map(to_product).transpose()?.flatten();
    // A product that the caller may not see is reported as missing.
    let found = found.filter(|product| {
        product.status == Status::Published || product.owner == caller.user || is_manager(&caller)
    });
    let Some(product) = found else { return Err(Problem::new(Code::NotFound)) };
    let revision = product.revision;
    let mut response = match is_known(&headers, revision)? {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Json(ProductRead::from(product)).into_response(),
    };
    tagged(&mut response, etag(revision));
    response.headers_mut().insert(POSITION, position.0.into());
    Ok(response)
}

/// Headers and errors of [`list`].
pub const LIST: Call = Call {
    errors: &[Code::InvalidParameter, Code::Forbidden, Code::QueryTooBroad, Code::NotYet],
    headers: &[RequestHeader::Position],
    answer_headers: &[AnswerHeader::Link, AnswerHeader::TotalOmitted, AnswerHeader::Position],
};

#[utoipa::path(
    get,
    path = "/api/v1/products",
    tag = "products",
    operation_id = "list_products",
    summary = "Products, page by page",
    params(ListParameters),
    responses((status = 200, description = "A page", body = Page)),
    security(("bearer" = []))
)]
pub async fn list(
    State(state): State<AppState>,
    Viewer(caller): Viewer,
    uri: Uri,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let list = List::parse(&parameters, &caller, &state.cursor_key)?;
    // Taken before the read, so the read reflects at least this position.
    let position = state.reads.position().await?;
    let mut found = state.reads.page::<ProductDocument>(list.find()).await?;
    let total = match list.page.include_total {
        Some(true) => Some(state.reads.total(list.count()).await?),
        Some(false) | None => None,
    };
    let last = list.page.split_next(&mut found);
    let next_cursor = last.and_then(|last| list.cursor(last, &state.cursor_key));
    let link = next_cursor.as_deref().map(|cursor| list.page.next_link(uri.path(), cursor));
    let items = found.into_iter().filter_map(|found| to_product(found).transpose());
    let items = items.map(|product| product.map(ProductRead::from)).collect::<Result<_, _>>()?;
    let (total, omitted) = total.map_or((None, None), page::Total::parts);
    let mut response = Json(Page { items, next_cursor, total }).into_response();
    page::set_page_headers(response.headers_mut(), position, link, omitted);
    Ok(response)
}

#[expect(clippy::needless_pass_by_value, reason = "maps documents by value")]
fn to_product(document: ProductDocument) -> Result<Option<Product>, Problem> {
    let damaged =
        |error: serde_json::Error| Problem::new(Code::Internal).because(error.to_string());
    document.product().map_err(damaged)
}
