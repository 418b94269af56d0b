//! `/api/v1/users/{user_id}`: the writes.

use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use events::{EmailAddress, Metadata, Status, UserId};
use serde_json::Value;
use service_kit::http::{CommandHeaders, Fault, Faults, JsonBody, PatchBody};
use service_kit::openapi::Call;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Caller, UserWriter};
use service_kit::user_read::UserRead;
use utoipa::ToSchema;

use super::AppState;
use super::auth::check_password;
use super::contract::{
    A_NEW_USER, A_USER, GUARDED, IN_FLIGHT, MAILED, NOTHING, REFLECTED, REUSED, WRITE,
};
use super::members::{
    NewStatus, Role, parse_email, parse_full_name, parse_given, parse_metadata_patch,
    parse_new_full_name, parse_new_roles, parse_new_status, parse_roles, parse_status,
};
use crate::domain::{Change, FullName, NewMetadata, Register, Roles, parse_metadata};
use crate::ports::HashClient;

/// Without a password the user gets a mail with a link to choose one.
#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "email": "grace@example.com", "full_name": "Grace Hopper", "roles": ["user", "editor"],
}))]
pub struct UserMake {
    #[deserr(try_from(String) = parse_email -> Fault)]
    #[schema(value_type = String, format = Email, max_length = 254)]
    email: EmailAddress,
    #[deserr(default, try_from(Option<String>) = parse_full_name -> Fault)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    full_name: Option<FullName>,
    #[deserr(default, try_from(Value) = parse_new_roles -> Fault)]
    #[schema(nullable = false, value_type = Option<Vec<Role>>, min_items = 1, max_items = 16)]
    roles: Option<Roles>,
    #[deserr(default, try_from(Value) = parse_metadata -> Fault)]
    #[schema(value_type = Option<serde_json::Map<String, Value>>)]
    metadata: Metadata,
    #[deserr(default)]
    #[schema(nullable = false, value_type = Option<bool>)]
    email_verified: bool,
    #[deserr(default, try_from(String) = parse_given -> Fault)]
    #[expect(dead_code, reason = "read by `check_password`, which needs the other members, too")]
    #[schema(nullable = false, format = Password, min_length = 8, max_length = 256)]
    password: Option<String>,
}

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
    context: CommandHeaders,
    JsonBody(mut body): JsonBody<UserMake>,
) -> Result<Response, Problem> {
    // It holds no secret, only whether one was sent.
    let has_password = body.member("/password").is_some();
    let fingerprint = format!("{} {has_password}", body.fingerprint(&["password"]));
    let password = check_password(&state, HashClient::User(caller.user), &mut body).await?;
    let UserMake { email, full_name, roles, metadata, email_verified, password: _ } =
        body.finish()?;
    let register = Register { email, full_name, metadata, roles, email_verified, imported: None };
    let request = context.by(&caller, state.users.keys(), &fingerprint);
    let done = state.users.create(register, password, request).await?;
    let location = done.after.user().map(|user| format!("/api/v1/users/{}", user.id));
    let mut response = state.answer(StatusCode::CREATED, done, &context).await;
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
    let request = context.by(&caller, state.users.keys(), "");
    let done = state.users.end_sessions_of(user_id(&user)?, request).await?;
    Ok(state.answer(StatusCode::OK, done, &context).await)
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

/// A merge patch (RFC 7396): what is left out stays.
#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"full_name": "Grace Hopper", "metadata": {"team": "blue"}}))]
pub struct UserChange {
    #[deserr(default, try_from(Option<String>) = parse_new_full_name -> Fault)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    full_name: Option<Option<FullName>>,
    /// All roles from now on.
    #[deserr(default, try_from(Value) = parse_new_roles -> Fault)]
    #[schema(nullable = false, value_type = Option<Vec<Role>>, min_items = 1, max_items = 16)]
    roles: Option<Roles>,
    #[deserr(default, try_from(String) = parse_new_status -> Fault)]
    #[schema(nullable = false, value_type = Option<NewStatus>)]
    status: Option<Status>,
    /// A merge patch of its own.
    #[deserr(default, try_from(Value) = parse_metadata_patch -> Fault)]
    #[schema(value_type = Option<serde_json::Map<String, Value>>)]
    metadata: Option<NewMetadata>,
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
    PatchBody(body): PatchBody<UserChange>,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let fingerprint = body.fingerprint(&[]);
    let UserChange { full_name, metadata, roles, status } = body.finish()?;
    let change = Change { full_name, metadata, roles, status };
    changed(&state, &caller, user, change, context, &fingerprint).await
}

/// Everything that can be written.
#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "full_name": "Grace Hopper", "roles": ["user"], "status": "active", "metadata": {},
}))]
pub struct UserReplacement {
    #[deserr(try_from(Option<String>) = parse_full_name -> Fault)]
    #[schema(required, value_type = Option<String>, min_length = 1, max_length = 200)]
    full_name: Option<FullName>,
    #[deserr(try_from(Value) = parse_roles -> Fault)]
    #[schema(value_type = Vec<Role>, min_items = 1, max_items = 16)]
    roles: Roles,
    #[deserr(try_from(String) = parse_status -> Fault)]
    #[schema(value_type = NewStatus)]
    status: Status,
    #[deserr(try_from(Value) = parse_metadata -> Fault)]
    #[schema(required, value_type = Option<serde_json::Map<String, Value>>)]
    metadata: Metadata,
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
    JsonBody(body): JsonBody<UserReplacement>,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let fingerprint = body.fingerprint(&[]);
    let UserReplacement { full_name, metadata, roles, status } = body.finish()?;
    let change = Change {
        full_name: Some(full_name),
        metadata: Some(NewMetadata::Whole(metadata)),
        roles: Some(roles),
        status: Some(status),
    };
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
    let request = context.by(caller, state.users.keys(), fingerprint);
    let done = state.users.change(user, change, request).await?;
    Ok(state.answer(StatusCode::OK, done, &context).await)
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
    let request = context.by(&caller, state.users.keys(), "");
    let done = state.users.delete(user, request).await?;
    Ok(state.answer(StatusCode::NO_CONTENT, done, &context).await)
}

/// A string that is no id names no user.
fn user_id(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|_| Problem::new(Code::NotFound))
}
