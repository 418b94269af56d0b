//! `/schemas/<type>.json`: the schemas of the feed over HTTP, for subscribers who have no copy of the repository.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use events::feed::contract;
use service_kit::problem::{Code, Problem};

/// The committed files, by name.
type Schemas = Arc<BTreeMap<String, String>>;

/// The routes; fails when a type cannot be described, which a test of the contract finds first.
pub fn routes() -> anyhow::Result<Router> {
    let named = |(path, text): (String, String)| {
        path.strip_prefix("schemas/").map(|name| (name.to_owned(), text))
    };
    let schemas: Schemas = Arc::new(contract::files()?.into_iter().filter_map(named).collect());
    Ok(Router::new().route("/schemas/{file}", get(schema)).with_state(schemas))
}

async fn schema(
    State(schemas): State<Schemas>,
    Path(file): Path<String>,
) -> Result<Response, Problem> {
    let text = schemas.get(&file).ok_or_else(|| Problem::new(Code::NotFound))?.clone();
    let headers =
        [(CONTENT_TYPE, "application/schema+json"), (CACHE_CONTROL, "public, max-age=300")];
    Ok((headers, text).into_response())
}
