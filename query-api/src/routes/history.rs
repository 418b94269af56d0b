//! `/api/v1/users/{id}/history`: what happened to a user.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use events::{Actor, Position, Revision, Timestamp, UserId};
use serde::Serialize;
use service_kit::access::Permission;
use service_kit::http::cursor::{open_position, seal_position};
use service_kit::http::page::{PageRequest, encode, next_link, refused, set_page_headers, unknown};
use service_kit::keys::SecretKey;
use service_kit::openapi::{AnswerHeader, Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::lacking;
use utoipa::ToSchema;
use views::HistoryEntry;

use super::contract::HistoryParameters;
use super::{AppState, Viewer};
use crate::reader::Found;

/// One event.
#[derive(Serialize, ToSchema)]
#[schema(as = HistoryEntry)]
pub struct Entry {
    /// In the event log.
    #[schema(value_type = u64)]
    position: Position,
    #[schema(value_type = u64)]
    revision: Revision,
    #[serde(rename = "type")]
    kind: String,
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// The id of a user, `system` or `anonymous`.
    #[schema(value_type = String)]
    actor: Actor,
    /// What changed, without what stayed.
    #[schema(value_type = Object)]
    changed: serde_json::Map<String, serde_json::Value>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HistoryPage)]
pub struct Page {
    items: Vec<Entry>,
    /// For the next page; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Headers and errors of [`list`].
pub const LIST: Call = Call {
    errors: &[Code::InvalidParameter, Code::Forbidden, Code::NotFound, Code::NotYet],
    headers: &[RequestHeader::Position],
    answer_headers: &[AnswerHeader::Link, AnswerHeader::Position],
};

#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}/history",
    tag = "users",
    operation_id = "history_of_user",
    summary = "What happened to a user, oldest first",
    params(
        ("user_id" = String, Path, format = "uuid", description = "The user"),
        HistoryParameters
    ),
    responses((status = 200, description = "A page", body = Page)),
    security(("bearer" = []))
)]
pub async fn list(
    State(state): State<AppState>,
    viewer: Viewer,
    Path(id): Path<String>,
    uri: Uri,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    // Also of oneself: it names the administrators who did something.
    if !viewer.sees_everyone() {
        return Err(lacking(Permission::ReadUsers));
    }
    let id: UserId = id.parse().map_err(|_| Problem::new(Code::NotFound))?;
    let sealed = format!("history of {id}");
    let page = PageRequest::parse(&parameters, |name, _| unknown(name))?;
    let asked = behind(&page, &state.cursor_key, &sealed)?;
    // Taken before the read: everything up to it is in what is read after it.
    let position = state.reader.position().await?;
    let behind = match state.reader.user(id).await? {
        Found::Living(..) => asked,
        // What was before is erased, and not shown while it is being erased.
        Found::Tombstone(deletion) => asked.max(Position(deletion.0.saturating_sub(1))),
        Found::Nobody => return Err(Problem::new(Code::NotFound)),
    };
    let mut entries = state.reader.history(id, behind, page.page_size + 1).await?;
    let last = page.split_next(&mut entries);
    let next_cursor = last.map(|last| seal_position(last.position, &state.cursor_key, &sealed));

    let size = page.page_size.to_string();
    let query = encode(&[("page_size", &size)]);
    let link = next_cursor.as_deref().map(|cursor| next_link(uri.path(), &query, cursor));
    let items = entries.into_iter().map(shown).collect();
    let mut response = Json(Page { items, next_cursor }).into_response();
    set_page_headers(response.headers_mut(), position, link, None);
    Ok(response)
}

fn shown(entry: HistoryEntry) -> Entry {
    Entry {
        position: entry.position,
        revision: entry.revision,
        kind: entry.kind,
        time: entry.time,
        actor: entry.actor,
        changed: entry.changed,
    }
}

/// The event behind which the page begins. A history is not counted.
fn behind(page: &PageRequest, key: &SecretKey, sealed: &str) -> Result<Position, Problem> {
    if page.include_total.is_some() {
        unknown("include_total")?;
    }
    match &page.cursor {
        None => Ok(Position(0)),
        Some(cursor) => open_position(cursor, key, sealed)
            .ok_or_else(|| refused("cursor", "does not belong to this history")),
    }
}
