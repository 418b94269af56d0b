//! Ending sessions: one's own from here, from elsewhere, all of them.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use events::{Actor, EndReason};
use service_kit::http::{CommandHeaders, Faults, optional_body};
use service_kit::openapi::Call;
use service_kit::problem::{Code, FieldError, Problem};
use service_kit::tokens::bearer;
use utoipa::ToSchema;

use super::AppState;
use super::contract::{GUARDED, IN_FLIGHT, IN_SESSIONS, REFLECTED, REUSED, WRITE};
use super::request::Repeating;

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct Logout {
    /// Not needed with an access token in the header; with both they must be of one session.
    #[schema(nullable = false, required = false)]
    refresh_token: String,
}

/// Headers and errors of [`logout`].
pub const LOGOUT: Call = Call {
    errors: &[Code::InvalidRefreshToken, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
    headers: WRITE,
    answer_headers: IN_SESSIONS,
};

/// With a refresh token in the body, or with a bearer and nothing in the body, or with both of one session. Either is
/// checked for itself alone: ending a session that has ended is no error.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    operation_id = "logout",
    summary = "End the session of a token",
    request_body = Logout,
    responses((status = 204, description = "The session has ended")),
    security((), ("bearer" = []))
)]
pub async fn logout(
    State(state): State<AppState>,
    context: CommandHeaders,
    request: Request,
) -> Result<Response, Problem> {
    let keys = state.users.keys();
    let (parts, body) = request.into_parts();
    let shown = match parts.headers.contains_key(AUTHORIZATION) {
        true => bearer(&parts).and_then(|token| state.verifier.verify_signature(token)),
        false => Err(Problem::new(Code::Unauthorized)),
    };
    let position = match (shown, optional_body::<Logout>(&parts.headers, body).await?) {
        (Err(refused), None) => return Err(refused),
        (Ok(caller), None) => {
            let request = context.by(&caller, keys, "");
            let (user, session) = (caller.user, caller.session);
            state.users.end_session(user, session, EndReason::Logout, request).await?
        }
        (shown, Some(body)) => {
            let token = body.finish()?.refresh_token;
            // A client may send an access token that has expired with every request: the other one is enough.
            if let Ok(caller) = shown
                && state.users.session_of(&token) != Some((caller.user, caller.session))
            {
                let why = "the access token and the refresh token are of different sessions";
                let error = FieldError {
                    pointer: "/refresh_token".to_owned(),
                    code: "other-session",
                    detail: why.to_owned(),
                };
                return Err(Problem::validation(vec![error]));
            }
            let request = context.request(keys, Actor::Anonymous, &token, "");
            Some(state.users.logout_with(token, request).await?)
        }
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(position) = position {
        state.reflect_session(&mut response, position, &context).await;
    }
    Ok(response)
}

/// Headers and errors of [`logout_all`].
pub const LOGOUT_ALL: Call = Call {
    errors: &[Code::NotFound, Code::StaleRevision, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
    headers: GUARDED,
    answer_headers: REFLECTED,
};

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
    repeating: Repeating,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let request = context.by(repeating.anybody(), state.users.keys(), "");
    let done = match repeating {
        Repeating::Good(caller) => state.users.end_all_sessions(caller.user, request).await?,
        Repeating::Ended(_) => state.replayed(request).await?,
    };
    Ok(state.answer_nothing(done.position, &context).await)
}

/// Headers and errors of [`end`].
pub const END: Call = Call {
    errors: &[Code::NotFound, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
    headers: WRITE,
    answer_headers: IN_SESSIONS,
};

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
    repeating: Repeating,
    Path(session): Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let nobody = || Problem::new(Code::NotFound);
    let session = session.parse().map_err(|_| nobody())?;
    let request = context.by(repeating.anybody(), state.users.keys(), "");
    if matches!(repeating, Repeating::Ended(_)) && !state.users.repeats(&request).await? {
        return Err(Problem::new(Code::Unauthorized));
    }
    let user = repeating.anybody().user;
    let ended = state.users.end_session(user, session, EndReason::Revoked, request).await?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let position = ended.ok_or_else(nobody)?;
    state.reflect_session(&mut response, position, &context).await;
    Ok(response)
}
