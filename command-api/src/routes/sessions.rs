//! Ending sessions: one's own from here, from elsewhere, all of them.

use axum::body::HttpBody;
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use events::EndReason;
use service_kit::http::{Asked, JsonObject, string};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, bearer};

use super::AppState;
use super::bodies::RefreshToken;

/// With a refresh token in the body, or with a bearer and no body. Either is checked for itself alone:
/// ending a session that has ended is no error.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    operation_id = "logout",
    summary = "End the session of a token",
    request_body = RefreshToken,
    responses((status = 204, description = "The session has ended")),
    security((), ("bearer" = []))
)]
pub async fn logout(
    State(state): State<AppState>,
    context: Asked,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let position = if body.is_end_stream() && parts.headers.contains_key(AUTHORIZATION) {
        let caller = state.verifier.verify_signature(bearer(&parts)?)?;
        state.users.end_session(caller.user, caller.session, EndReason::Logout).await?
    } else {
        let request = Request::from_parts(parts, body);
        let JsonObject(mut body) = JsonObject::from_request(request, &state).await?;
        let token = body.required("refresh_token", string);
        let token = body.finish(|| token)?;
        Some(state.users.logout_with(token).await?)
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(position) = position {
        state.reflect_session(&mut response, position, context.respond_async).await;
    }
    Ok(response)
}

#[utoipa::path(
    post,
    path = "/api/v1/auth/logout-all",
    tag = "auth",
    operation_id = "logout_all",
    summary = "End every session of the caller",
    responses((status = 204, description = "No session is left")),
    security(("bearer" = []))
)]
pub async fn logout_all(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: Asked,
) -> Result<Response, Problem> {
    let done = state.users.end_all_sessions(caller.user).await?;
    Ok(state.answer_nothing(done.position, context.respond_async).await)
}

#[utoipa::path(
    delete,
    path = "/api/v1/auth/sessions/{session_id}",
    tag = "auth",
    operation_id = "end_session",
    summary = "End a session of the caller",
    params(("session_id" = String, Path, format = "uuid", description = "The session")),
    responses((status = 204, description = "The session has ended")),
    security(("bearer" = []))
)]
pub async fn end(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    Path(session): Path<String>,
    context: Asked,
) -> Result<Response, Problem> {
    let nobody = || Problem::new(Code::NotFound);
    let session = session.parse().map_err(|_| nobody())?;
    let ended = state.users.end_session(caller.user, session, EndReason::Revoked).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let position = ended.ok_or_else(nobody)?;
    state.reflect_session(&mut response, position, context.respond_async).await;
    Ok(response)
}
