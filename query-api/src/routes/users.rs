//! `/api/v1/auth/me` and `/api/v1/users`: the reads.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::{ETAG, IF_NONE_MATCH, LINK};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use events::{Position, UserId};
use serde::Serialize;
use service_kit::access::Permission;
use service_kit::http::{POSITION, etag, revisions};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::lacking;
use service_kit::user_read::UserRead;

use utoipa::ToSchema;
use views::LivingUser;

use super::contract::{ListParameters, MinPosition};
use super::{AppState, Viewer};
use crate::list::List;
use crate::reader::{Found, Total};

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

/// Why an answer that was asked for the total has none.
const TOTAL_OMITTED: HeaderName = HeaderName::from_static("roster-total-omitted");

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
pub async fn me(viewer: Viewer, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    only_min_position(&uri)?;
    one(viewer.user, viewer.position, &headers)
}

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
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    only_min_position(&uri)?;
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
    let total =
        if list.include_total { Some(state.reader.total(list.count()).await?) } else { None };
    let more = users.len() > list.page_size;
    users.truncate(list.page_size);
    let next_cursor =
        users.last().filter(|_| more).map(|last| list.cursor(last, &state.cursor_key));

    let link = next_cursor.as_deref().map(|cursor| list.next_link(uri.path(), cursor));
    let items = users.into_iter().map(shown).collect();
    let (total, omitted) = told(total);
    let mut response = Json(Page { items, next_cursor, total }).into_response();
    let headers = response.headers_mut();
    headers.insert(POSITION, position.0.into());
    for (name, value) in [(LINK, link), (TOTAL_OMITTED, omitted)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    Ok(response)
}

/// The total, or else why there is none.
fn told(total: Option<Total>) -> (Option<u64>, Option<String>) {
    match total {
        None => (None, None),
        Some(Total::Exactly(total)) => (Some(total), None),
        Some(Total::MoreThan(most)) => (None, Some(format!("more-than-{most}"))),
        Some(Total::TooMuchWork) => (None, Some("too-much-work".to_owned())),
    }
}

fn shown(user: LivingUser) -> UserRead {
    UserRead::new(user.user, user.last_login_at)
}

fn one(user: LivingUser, position: Position, headers: &HeaderMap) -> Result<Response, Problem> {
    let revision = user.user.revision;
    let tag = etag(revision);
    let same = match revisions(headers, IF_NONE_MATCH)? {
        Some(known) => known.contains(&revision),
        // `*` is "whatever you have".
        None => headers.contains_key(IF_NONE_MATCH),
    };
    let mut response = if same {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(shown(user)).into_response()
    };
    response.headers_mut().insert(ETAG, tag);
    response.headers_mut().insert(POSITION, position.0.into());
    Ok(response)
}

/// Single users have one parameter, read by [`Viewer`]; any other is refused.
fn only_min_position(uri: &Uri) -> Result<(), Problem> {
    let query = uri.query().unwrap_or_default();
    match form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name != "min_position") {
        None => Ok(()),
        Some(_) => Err(Problem::new(Code::InvalidParameter).detail("only min_position is known")),
    }
}
