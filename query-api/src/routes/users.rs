//! `/api/v1/auth/me` and `/api/v1/users`: the reads.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::ETAG;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use events::{Position, UserId};
use serde::Serialize;
use service_kit::access::Permission;
use service_kit::http::page::set_page_headers;
use service_kit::http::{POSITION, etag, is_known};
use service_kit::openapi::{AnswerHeader, Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::lacking;
use service_kit::user_read::UserRead;

use utoipa::ToSchema;
use views::LivingUser;

use super::contract::{ListParameters, MinPosition};
use super::{AppState, Viewer};
use crate::list::List;
use crate::reader::Found;

/// `Paginated[UserRead]` of the contract.
#[derive(Serialize, ToSchema)]
pub struct Page {
    items: Vec<UserRead>,
    /// For the next page; `null` on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
    /// With `include_total=true`, unless `Roster-Total-Omitted` says why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    total: Option<u64>,
}

/// Headers and errors of [`me`].
pub const ME: Call = Call {
    errors: &[Code::InvalidParameter, Code::NotYet],
    headers: &[RequestHeader::IfNoneMatch, RequestHeader::Position],
    answer_headers: &[AnswerHeader::ETag, AnswerHeader::Position],
};

#[utoipa::path(
    get,
    path = "/api/v1/auth/me",
    tag = "auth",
    operation_id = "me",
    summary = "The caller",
    params(MinPosition),
    responses((status = 200, description = "The caller", body = UserRead), (status = 304, description = "As it is known")),
    security(("bearer" = []))
)]
pub async fn me(viewer: Viewer, headers: HeaderMap) -> Result<Response, Problem> {
    one(viewer.user, viewer.position, &headers)
}

/// Headers and errors of [`by_id`].
pub const BY_ID: Call = Call {
    errors: &[Code::InvalidParameter, Code::NotFound, Code::NotYet],
    headers: &[RequestHeader::IfNoneMatch, RequestHeader::Position],
    answer_headers: &[AnswerHeader::ETag, AnswerHeader::Position],
};

#[utoipa::path(
    get,
    path = "/api/v1/users/{user_id}",
    tag = "users",
    operation_id = "user",
    summary = "A user",
    params(("user_id" = String, Path, format = "uuid", description = "The user"), MinPosition),
    responses((status = 200, description = "The user", body = UserRead), (status = 304, description = "As it is known")),
    security(("bearer" = []))
)]
pub async fn by_id(
    State(state): State<AppState>,
    viewer: Viewer,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    // What may not be seen looks as if it did not exist.
    let nobody = || Problem::new(Code::NotFound);
    let id: UserId = id.parse().map_err(|_| nobody())?;
    if id == viewer.user.user.id {
        return one(viewer.user, viewer.position, &headers);
    }
    if !viewer.sees_everyone() {
        return Err(nobody());
    }
    match state.reader.user(id).await? {
        Found::Living(user, position) => one(*user, position, &headers),
        Found::Tombstone(_) | Found::Nobody => Err(nobody()),
    }
}

/// Headers and errors of [`list`].
pub const LIST: Call = Call {
    errors: &[Code::InvalidParameter, Code::Forbidden, Code::QueryTooBroad, Code::NotYet],
    headers: &[RequestHeader::Position],
    answer_headers: &[AnswerHeader::Link, AnswerHeader::TotalOmitted, AnswerHeader::Position],
};

#[utoipa::path(
    get,
    path = "/api/v1/users",
    tag = "users",
    operation_id = "list_users",
    summary = "Users, page by page",
    params(ListParameters),
    responses((status = 200, description = "A page", body = Page)),
    security(("bearer" = []))
)]
pub async fn list(
    State(state): State<AppState>,
    viewer: Viewer,
    uri: Uri,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    if !viewer.sees_everyone() {
        return Err(lacking(Permission::ReadUsers));
    }
    let list = List::parse(&parameters, &state.cursor_key)?;
    // Taken before the read: everything up to it is in what is read after it.
    let position = state.reader.position().await?;
    let mut users = state.reader.users(list.find()).await?;
    let (total, omitted) = match list.page.include_total == Some(true) {
        true => state.reader.total(list.count()).await?.parts(),
        false => (None, None),
    };
    let last = list.page.split_next(&mut users);
    let next_cursor = last.map(|last| list.cursor(last, &state.cursor_key));
    let link = next_cursor.as_deref().map(|cursor| list.page.next_link(uri.path(), cursor));
    let items = users.into_iter().map(shown).collect();
    let mut response = Json(Page { items, next_cursor, total }).into_response();
    set_page_headers(response.headers_mut(), position, link, omitted);
    Ok(response)
}

fn shown(user: LivingUser) -> UserRead {
    UserRead::from_views(user.user, user.last_login_at)
}

fn one(user: LivingUser, position: Position, headers: &HeaderMap) -> Result<Response, Problem> {
    let revision = user.user.revision;
    let tag = etag(revision);
    let mut response = if is_known(headers, revision)? {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(shown(user)).into_response()
    };
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(POSITION, position.0.into());
    Ok(response)
}
