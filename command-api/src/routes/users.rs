//! `/api/v1/users/{user_id}`: the writes.

use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use events::{Status, UserId};
use serde_json::Value;
use service_kit::http::{CommandHeaders, Fault, JsonObject, MergePatch, string};
use service_kit::openapi::Call;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Caller, UserWriter};
use service_kit::user_read::UserRead;

use super::AppState;
use super::auth::{email, full_name, rated, without_secrets};
use super::bodies::{UserChange, UserMake, UserReplacement};
use super::contract::{
    A_NEW_USER, A_USER, GUARDED, IN_FLIGHT, MAILED, NOTHING, REFLECTED, REUSED, WRITE,
};
use crate::domain::{Change, FullName, NewMetadata, PasswordContext, Register, Roles, metadata};
use crate::ports::HashClient;

/// Headers and errors of [`create`].
pub const CREATE: Call = Call {
    errors: &[
        Code::Forbidden,
        Code::EmailTaken,
        IN_FLIGHT,
        REUSED,
        Code::Overloaded,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: WRITE,
    answer_headers: A_NEW_USER,
};

#[utoipa::path(
    post,
    path = "/api/v1/users",
    tag = "users",
    operation_id = "create_user",
    summary = "Make a user",
    request_body = UserMake,
    responses((status = 201, description = "The user", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn create(
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    asked: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    // No secret is in it, but whether there is one.
    let has_password = body.members().contains_key("password");
    let fingerprint = format!("{} {has_password}", without_secrets(&body, &["password"]));
    let email = body.required("email", email);
    let full_name = body.optional("full_name", full_name);
    let context = PasswordContext {
        email: email.as_ref(),
        full_name: full_name.as_ref().and_then(Option::as_ref).map(FullName::as_str),
    };
    let candidate = body
        .optional("password", |value| state.users.check_password_rules(&string(value)?, &context));
    let password = rated(&state, HashClient::User(caller.user), &mut body, candidate).await?;
    let roles = body.optional("roles", roles);
    let metadata = body.optional("metadata", metadata);
    let email_verified = body.optional("email_verified", boolean);
    let register = body.finish(|| {
        Some(Register {
            email: email?,
            full_name: full_name.flatten(),
            metadata: metadata.unwrap_or_default(),
            roles,
            email_verified: email_verified.unwrap_or(false),
            imported: None,
        })
    })?;
    let respond_async = asked.respond_async;
    let request = asked.by(&caller, state.users.keys(), &fingerprint);
    let done = state.users.create(register, password, request).await?;
    let location = done.user.as_ref().map(|user| format!("/api/v1/users/{}", user.id));
    let mut response = state.answer(StatusCode::CREATED, done, respond_async).await;
    if let Some(location) = location.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

#[utoipa::path(
    post,
    path = "/api/v1/users/{user_id}/logout-all",
    tag = "users",
    operation_id = "logout_user",
    summary = "End every session of a user",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    responses((status = 200, description = "The user", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn logout_all(
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    Path(user): Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let respond_async = context.respond_async;
    let request = context.by(&caller, state.users.keys(), "");
    let done = state.users.end_sessions_of(user_id(&user)?, request).await?;
    Ok(state.answer(StatusCode::OK, done, respond_async).await)
}

/// Headers and errors of [`password_reset`].
pub const PASSWORD_RESET: Call =
    Call { errors: CHANGE.errors, headers: MAILED, answer_headers: NOTHING };

#[utoipa::path(
    post,
    path = "/api/v1/users/{user_id}/password-reset",
    tag = "users",
    operation_id = "reset_password_of_user",
    summary = "Mail a link to a new password",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    responses((status = 202, description = "A mail is on its way")),
    security(("bearer" = []))
)]
pub async fn password_reset(
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    Path(user): Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let request = context.by(&caller, state.users.keys(), "");
    state.users.send_password_link(user_id(&user)?, request).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Headers and errors of [`change`], and of every other change of a user.
pub const CHANGE: Call = Call {
    errors: &[
        Code::Forbidden,
        Code::NotFound,
        Code::LastAdmin,
        IN_FLIGHT,
        Code::StaleRevision,
        REUSED,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: A_USER,
};

#[utoipa::path(
    patch,
    path = "/api/v1/users/{user_id}",
    tag = "users",
    operation_id = "change_user",
    summary = "Change a user",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    request_body(content = UserChange, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The user after it", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn change(
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    Path(user): Path<String>,
    context: CommandHeaders,
    MergePatch(mut body): MergePatch,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let fingerprint = without_secrets(&body, &[]);
    let full_name = body.optional("full_name", full_name);
    let metadata = body.optional("metadata", metadata_patch);
    let roles = body.optional("roles", roles);
    let status = body.optional("status", status);
    let change = body.finish(|| Some(Change { full_name, metadata, roles, status }))?;
    changed(&state, &caller, user, change, context, &fingerprint).await
}

/// Every writable member as a whole. One that is left out is a slip, not a wish to lose it.
#[utoipa::path(
    put,
    path = "/api/v1/users/{user_id}",
    tag = "users",
    operation_id = "replace_user",
    summary = "Replace everything that can be written",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    request_body = UserReplacement,
    responses((status = 200, description = "The user after it", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn replace(
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    Path(user): Path<String>,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let fingerprint = without_secrets(&body, &[]);
    let full_name = body.required("full_name", full_name);
    let metadata = body.required("metadata", metadata).map(NewMetadata::Whole);
    let roles = body.required("roles", roles);
    let status = body.required("status", status);
    let change = body.finish(|| Some(Change { full_name, metadata, roles, status }))?;
    changed(&state, &caller, user, change, context, &fingerprint).await
}

#[utoipa::path(
    post,
    path = "/api/v1/users/{user_id}/disable",
    tag = "users",
    operation_id = "disable_user",
    summary = "Disable a user",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    responses((status = 200, description = "The user after it", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn disable(
    state: State<AppState>,
    caller: UserWriter,
    user: Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    set_status(Status::Disabled, state, caller, user, context).await
}

#[utoipa::path(
    post,
    path = "/api/v1/users/{user_id}/enable",
    tag = "users",
    operation_id = "enable_user",
    summary = "Enable a user",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    responses((status = 200, description = "The user after it", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn enable(
    state: State<AppState>,
    caller: UserWriter,
    user: Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    set_status(Status::Active, state, caller, user, context).await
}

async fn set_status(
    status: Status,
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    Path(user): Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let change = Change { status: Some(status), ..Change::default() };
    changed(&state, &caller, user, change, context, "").await
}

async fn changed(
    state: &AppState,
    caller: &Caller,
    user: UserId,
    change: Change,
    context: CommandHeaders,
    fingerprint: &str,
) -> Result<Response, Problem> {
    let respond_async = context.respond_async;
    let request = context.by(caller, state.users.keys(), fingerprint);
    let done = state.users.change(user, change, request).await?;
    Ok(state.answer(StatusCode::OK, done, respond_async).await)
}

/// Headers and errors of [`delete`].
pub const DELETE: Call =
    Call { errors: CHANGE.errors, headers: GUARDED, answer_headers: REFLECTED };

#[utoipa::path(
    delete,
    path = "/api/v1/users/{user_id}",
    tag = "users",
    operation_id = "delete_user",
    summary = "Delete a user for ever",
    params(("user_id" = String, Path, format = "uuid", description = "The user")),
    responses((status = 204, description = "The user is gone")),
    security(("bearer" = []))
)]
pub async fn delete(
    State(state): State<AppState>,
    UserWriter(caller): UserWriter,
    Path(user): Path<String>,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let respond_async = context.respond_async;
    let request = context.by(&caller, state.users.keys(), "");
    let done = state.users.delete(user, request).await?;
    Ok(state.answer(StatusCode::NO_CONTENT, done, respond_async).await)
}

/// A string that is no id names no user.
fn user_id(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|_| Problem::new(Code::NotFound))
}

/// A merge patch on an object: an object, or `null` for an empty one.
pub fn metadata_patch(value: Value) -> Result<NewMetadata, Fault> {
    match value {
        Value::Object(_) | Value::Null => Ok(NewMetadata::Patch(value)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(("type", "must be an object or null".to_owned()))
        }
    }
}

pub fn boolean(value: Value) -> Result<bool, Fault> {
    value.as_bool().ok_or_else(|| ("type", "must be true or false".to_owned()))
}

pub fn roles(value: Value) -> Result<Roles, Fault> {
    let Value::Array(items) = value else {
        return Err(("type", "must be a list of strings".to_owned()));
    };
    let roles: Result<Vec<String>, Fault> = items.into_iter().map(string).collect();
    Roles::parse(roles?)
}

fn status(value: Value) -> Result<Status, Fault> {
    match string(value)?.as_str() {
        "active" => Ok(Status::Active),
        "disabled" => Ok(Status::Disabled),
        _ => Err(("enum", "must be active or disabled".to_owned())),
    }
}
