//! `/api/v1/users/{id}/history`: what happened to a user.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::LINK;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use events::{Actor, Position, Revision, Timestamp, UserId};
use serde::Serialize;
use service_kit::access::Permission;
use service_kit::http::POSITION;
use service_kit::keys::SecretKey;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::lacking;
use utoipa::ToSchema;
use views::HistoryEntry;

use super::contract::HistoryParameters;
use super::{AppState, Viewer};
use crate::cursor::{open_position, seal_position};
use crate::list::{PAGE_SIZE_DEFAULT, encode, next_link, page_size, refused};
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
    let asked = Asked::parse(&parameters, &state.cursor_key, &sealed)?;
    // Taken before the read: everything up to it is in what is read after it.
    let position = state.reader.position().await?;
    let behind = match state.reader.user(id).await? {
        Found::Living(..) => asked.behind,
        // What was before is erased, and not shown while it is being erased.
        Found::Tombstone(deletion) => asked.behind.max(Position(deletion.0.saturating_sub(1))),
        Found::Nobody => return Err(Problem::new(Code::NotFound)),
    };
    let mut entries = state.reader.history(id, behind, asked.page_size + 1).await?;
    let more = entries.len() > asked.page_size;
    entries.truncate(asked.page_size);
    let next_cursor = entries
        .last()
        .filter(|_| more)
        .map(|last| seal_position(last.position, &state.cursor_key, &sealed));

    let size = asked.page_size.to_string();
    let query = encode(&[("page_size", &size)]);
    let link = next_cursor.as_deref().map(|cursor| next_link(uri.path(), &query, cursor));
    let items = entries.into_iter().map(shown).collect();
    let mut response = Json(Page { items, next_cursor }).into_response();
    response.headers_mut().insert(POSITION, position.0.into());
    if let Some(link) = link.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
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

/// A checked request for a page.
struct Asked {
    page_size: usize,
    behind: Position,
}

impl Asked {
    fn parse(
        parameters: &[(String, String)],
        key: &SecretKey,
        sealed: &str,
    ) -> Result<Self, Problem> {
        let mut asked = Self { page_size: PAGE_SIZE_DEFAULT, behind: Position(0) };
        for (n, (name, value)) in parameters.iter().enumerate() {
            if parameters.iter().take(n).any(|(earlier, _)| earlier == name) {
                return Err(refused(name, "is given twice"));
            }
            match name.as_str() {
                // Read where the request is awaited.
                "min_position" => {}
                "page_size" => asked.page_size = page_size(value)?,
                "cursor" => {
                    asked.behind = open_position(value, key, sealed)
                        .ok_or_else(|| refused(name, "does not belong to this history"))?;
                }
                _ => return Err(refused(name, "is not known")),
            }
        }
        Ok(asked)
    }
}
