//! What callers do with their own account: password, address, profile, end.

use axum::extract::State;
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use events::Actor;
use service_kit::http::{ClientAddress, JsonObject, MergePatch, Object, string};
use service_kit::problem::Problem;
use service_kit::tokens::Authenticated;
use service_kit::user_read::revisions;

use super::AppState;
use super::auth::{email, full_name, without_secrets};
use super::request::Context;
use super::users::metadata_patch;
use crate::domain::{Change, Password};

/// The same answer for every address: 202, and nothing more.
pub async fn password_reset_request(
    State(state): State<AppState>,
    ClientAddress(from): ClientAddress,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let email = body.required("email", email);
    let email = body.finish(|| email)?;
    state.users.request_password_reset(email, from).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub async fn password_reset_confirm(
    State(state): State<AppState>,
    context: Context,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let token = body.required("token", string);
    let password = body.required("new_password", string);
    let (token, password) = body.finish(|| Some((token?, password?)))?;
    let respond_async = context.respond_async;
    let request = context.request(&state.users, Actor::Anonymous, &token, "");
    let done = state.users.reset_password(token, password, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

pub async fn change_password(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: Context,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let current = body.required("current_password", string);
    let new = body.required("new_password", string);
    let (current, new) = body.finish(|| Some((current?, new?)))?;
    let respond_async = context.respond_async;
    let scope = caller.user.to_string();
    let request = context.request(&state.users, Actor::User(caller.user), &scope, "");
    let current = Password::given(&current);
    let done = state.users.change_password(caller, current, new, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

pub async fn verify_email_request(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Problem> {
    state.users.request_verification(caller.user).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub async fn verify_email_confirm(
    State(state): State<AppState>,
    context: Context,
    JsonObject(body): JsonObject,
) -> Result<Response, Problem> {
    let token = only_token(body)?;
    let respond_async = context.respond_async;
    let request = context.request(&state.users, Actor::Anonymous, &token, "");
    let done = state.users.verify_email(token, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

pub async fn change_email(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let new_email = body.required("new_email", email);
    let current = body.required("current_password", string);
    let (new_email, current) = body.finish(|| Some((new_email?, current?)))?;
    let current = Password::given(&current);
    state.users.request_email_change(caller.user, new_email, current).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub async fn change_email_confirm(
    State(state): State<AppState>,
    context: Context,
    JsonObject(body): JsonObject,
) -> Result<Response, Problem> {
    let token = only_token(body)?;
    let respond_async = context.respond_async;
    let request = context.request(&state.users, Actor::Anonymous, &token, "");
    let done = state.users.confirm_email_change(token, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

pub async fn change_email_abort(
    State(state): State<AppState>,
    JsonObject(body): JsonObject,
) -> Result<Response, Problem> {
    state.users.abort_email_change(only_token(body)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn only_token(mut body: Object) -> Result<String, Problem> {
    let token = body.required("token", string);
    body.finish(|| token)
}

pub async fn change_me(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: Context,
    headers: HeaderMap,
    MergePatch(mut body): MergePatch,
) -> Result<Response, Problem> {
    let expected = revisions(&headers, IF_MATCH)?;
    let fingerprint = without_secrets(&body, &[]);
    let full_name = body.optional("full_name", full_name);
    let metadata = body.optional("metadata", metadata_patch);
    let change = Change { full_name, metadata, expected, ..Change::default() };
    let change = body.finish(|| Some(change))?;
    let respond_async = context.respond_async;
    let scope = caller.user.to_string();
    let request = context.request(&state.users, Actor::User(caller.user), &scope, &fingerprint);
    let done = state.users.change_self(caller.user, change, request).await?;
    Ok(state.answer(StatusCode::OK, done, respond_async).await)
}

pub async fn delete_me(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: Context,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let current = body.required("current_password", string);
    let current = body.finish(|| current)?;
    let respond_async = context.respond_async;
    let scope = caller.user.to_string();
    let request = context.request(&state.users, Actor::User(caller.user), &scope, "");
    let current = Password::given(&current);
    let done = state.users.delete_self(caller.user, current, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}
