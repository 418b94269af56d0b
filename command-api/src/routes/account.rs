//! What callers do with their own account: password, address, profile, end.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use events::Actor;
use service_kit::http::{ClientAddress, CommandHeaders, JsonObject, MergePatch, Object, string};
use service_kit::openapi::Call;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, Presented};
use service_kit::user_read::UserRead;

use super::AppState;
use super::auth::{email, full_name, without_secrets};
use super::bodies::{
    CurrentPassword, EmailChange, EmailProof, LinkToken, NewPassword, OwnChange, PasswordChange,
    ResetRequest,
};
use super::contract::{
    A_USER, GUARDED, IN_FLIGHT, KEYED, MAILED, NOTHING, REFLECTED, REUSED, WRITE,
};
use super::request::Repeating;
use super::users::metadata_patch;
use crate::application::AccountProof;
use crate::domain::{Change, Password};

/// Headers and errors of [`password_reset_request`].
pub const PASSWORD_RESET_REQUEST: Call = Call {
    errors: &[IN_FLIGHT, REUSED, Code::TooManyRequests, Code::OutcomeUnknown],
    headers: KEYED,
    answer_headers: NOTHING,
};

/// The same answer for every address: 202, and nothing more.
#[utoipa::path(
    post,
    path = "/api/v1/auth/password-reset-request",
    tag = "auth",
    operation_id = "password_reset_request",
    summary = "Ask for a link to a new password",
    request_body = ResetRequest,
    responses((status = 202, description = "Whoever has the address gets a mail"))
)]
pub async fn password_reset_request(
    State(state): State<AppState>,
    ClientAddress(from): ClientAddress,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let email = body.required("email", email);
    let email = body.finish(|| email)?;
    let scope = email.canonical().to_owned();
    let request = context.request(state.users.keys(), Actor::Anonymous, &scope, "");
    state.users.request_password_reset(email, from, request).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Headers and errors of [`password_reset_confirm`].
pub const PASSWORD_RESET_CONFIRM: Call = Call {
    errors: &[
        Code::InvalidToken,
        Code::InvalidCredentials,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/password-reset-confirm",
    tag = "auth",
    operation_id = "password_reset_confirm",
    summary = "Set a password by a link",
    request_body = NewPassword,
    responses((status = 204, description = "The password is set and every session has ended"))
)]
pub async fn password_reset_confirm(
    State(state): State<AppState>,
    ClientAddress(from): ClientAddress,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    state.users.count_password_set(from).await?;
    let token = body.required("token", string);
    let password = body.required("new_password", string);
    let (token, password) = body.finish(|| Some((token?, password?)))?;
    let respond_async = context.respond_async;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    let done = state.users.reset_password(token, password, from, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

/// Headers and errors of [`change_password`].
pub const CHANGE_PASSWORD: Call = Call {
    errors: &[
        Code::InvalidCredentials,
        Code::WrongPassword,
        Code::NotFound,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/change-password",
    tag = "auth",
    operation_id = "change_password",
    summary = "Change the password",
    request_body = PasswordChange,
    responses((status = 204, description = "The password is changed and every other session has ended")),
    security(("bearer" = []))
)]
pub async fn change_password(
    State(state): State<AppState>,
    repeating: Repeating,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let current = body.required("current_password", string);
    let new = body.required("new_password", string);
    let (current, new) = body.finish(|| Some((current?, new?)))?;
    let respond_async = context.respond_async;
    let request = context.by(repeating.anybody(), state.users.keys(), "");
    let current = Password::given(&current);
    let done = match repeating {
        Repeating::Good(caller) => {
            state.users.change_password(caller, current, new, request).await?
        }
        // The change ended the token; the password that it set proves the caller now.
        Repeating::Ended(caller) if state.users.repeats(&request).await? => {
            state.users.prove(caller, Password::given(&new)).await?;
            state.replayed(request).await?
        }
        Repeating::Ended(_) => return Err(Problem::new(Code::Unauthorized)),
    };
    Ok(state.answer_nothing(done.position, respond_async).await)
}

/// Headers and errors of [`verify_email_request`].
pub const VERIFY_EMAIL_REQUEST: Call = Call {
    errors: &[
        Code::NotFound,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::TooManyRequests,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: MAILED,
    answer_headers: NOTHING,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email-request",
    tag = "auth",
    operation_id = "verify_email_request",
    summary = "Ask for a link to verify the address",
    responses((status = 202, description = "A mail is on its way, unless the address is verified")),
    security(("bearer" = []))
)]
pub async fn verify_email_request(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: CommandHeaders,
) -> Result<Response, Problem> {
    let request = context.by(&caller, state.users.keys(), "");
    state.users.request_verification(caller.user, request).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Headers and errors of [`verify_email_confirm`].
pub const VERIFY_EMAIL_CONFIRM: Call = Call {
    errors: &[
        Code::InvalidToken,
        Code::InvalidCredentials,
        Code::PasswordRequired,
        Code::WrongPassword,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/verify-email-confirm",
    tag = "auth",
    operation_id = "verify_email_confirm",
    summary = "Verify an address by a link",
    request_body = EmailProof,
    responses((status = 204, description = "The address is verified. Every session has ended, but that of an access token that came with it"))
)]
pub async fn verify_email_confirm(
    State(state): State<AppState>,
    Presented(caller): Presented,
    ClientAddress(from): ClientAddress,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let token = body.required("token", string);
    let password = body.optional("password", string);
    let new_password = body.optional("new_password", |value| match password {
        None => string(value),
        Some(_) => Err(("conflict", "must not be given together with password".to_owned())),
    });
    let token = body.finish(|| token)?;
    // No secret is in it, but which of them there is.
    let (proof, fingerprint) = match (new_password, password, caller) {
        (Some(new), _, _) => {
            state.users.count_password_set(from).await?;
            (AccountProof::NewPassword(new), "new_password")
        }
        (None, Some(text), _) => (AccountProof::Password(Password::given(&text)), "password"),
        (None, None, Some(caller)) => (AccountProof::Session(caller), ""),
        (None, None, None) => (AccountProof::Nothing, ""),
    };
    let respond_async = context.respond_async;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, fingerprint);
    let done = state.users.verify_email(token, proof, from, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

/// Headers and errors of [`change_email`].
pub const CHANGE_EMAIL: Call = Call {
    errors: &[
        Code::WrongPassword,
        Code::EmailNotVerified,
        Code::NotFound,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: MAILED,
    answer_headers: NOTHING,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/change-email",
    tag = "auth",
    operation_id = "change_email",
    summary = "Ask for another address",
    request_body = EmailChange,
    responses((status = 202, description = "Both addresses get a mail")),
    security(("bearer" = []))
)]
pub async fn change_email(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let fingerprint = without_secrets(&body, &["current_password"]);
    let new_email = body.required("new_email", email);
    let current = body.required("current_password", string);
    let (new_email, current) = body.finish(|| Some((new_email?, current?)))?;
    let current = Password::given(&current);
    let request = context.by(&caller, state.users.keys(), &fingerprint);
    state.users.request_email_change(caller, new_email, current, request).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Headers and errors of [`change_email_confirm`].
pub const CHANGE_EMAIL_CONFIRM: Call = Call {
    errors: &[
        Code::InvalidToken,
        Code::EmailTaken,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/change-email-confirm",
    tag = "auth",
    operation_id = "change_email_confirm",
    summary = "Confirm another address by a link",
    request_body = LinkToken,
    responses((status = 204, description = "The new address is in use. Every session has ended, but that of an access token that came with it"))
)]
pub async fn change_email_confirm(
    State(state): State<AppState>,
    Presented(caller): Presented,
    context: CommandHeaders,
    JsonObject(body): JsonObject,
) -> Result<Response, Problem> {
    let token = only_token(body)?;
    let respond_async = context.respond_async;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    let done = state.users.confirm_email_change(token, caller, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

/// Headers and errors of [`change_email_abort`].
pub const CHANGE_EMAIL_ABORT: Call = Call {
    errors: &[Code::InvalidToken, Code::StaleRevision, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
    headers: MAILED,
    answer_headers: NOTHING,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/change-email-abort",
    tag = "auth",
    operation_id = "change_email_abort",
    summary = "Call a change of address off by a link",
    request_body = LinkToken,
    responses((status = 204, description = "The address stays"))
)]
pub async fn change_email_abort(
    State(state): State<AppState>,
    context: CommandHeaders,
    JsonObject(body): JsonObject,
) -> Result<Response, Problem> {
    let token = only_token(body)?;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    state.users.abort_email_change(token, request).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Headers and errors of [`change_email_undo`].
pub const CHANGE_EMAIL_UNDO: Call = Call {
    errors: &[Code::InvalidToken, Code::EmailTaken, REUSED, Code::OutcomeUnknown],
    headers: WRITE,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/change-email-undo",
    tag = "auth",
    operation_id = "change_email_undo",
    summary = "Take a changed address back by a link",
    request_body = LinkToken,
    responses((status = 204, description = "The address from before is in use. Every session has ended and there is no password: ask for a reset"))
)]
pub async fn change_email_undo(
    State(state): State<AppState>,
    context: CommandHeaders,
    JsonObject(body): JsonObject,
) -> Result<Response, Problem> {
    let token = only_token(body)?;
    let respond_async = context.respond_async;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    let done = state.users.undo_email_change(token, request).await?;
    Ok(state.answer_nothing(done.position, respond_async).await)
}

fn only_token(mut body: Object) -> Result<String, Problem> {
    let token = body.required("token", string);
    body.finish(|| token)
}

/// Headers and errors of [`change_me`].
pub const CHANGE_ME: Call = Call {
    errors: &[
        Code::NotFound,
        Code::StaleRevision,
        IN_FLIGHT,
        REUSED,
        Code::LogFull,
        Code::TooManyRequests,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: A_USER,
};

#[utoipa::path(
    patch,
    path = "/api/v1/auth/me",
    tag = "auth",
    operation_id = "change_me",
    summary = "Change the caller",
    request_body(content = OwnChange, content_type = "application/merge-patch+json"),
    responses((status = 200, description = "The user after it", body = UserRead)),
    security(("bearer" = []))
)]
pub async fn change_me(
    State(state): State<AppState>,
    Authenticated(caller): Authenticated,
    context: CommandHeaders,
    MergePatch(mut body): MergePatch,
) -> Result<Response, Problem> {
    let fingerprint = without_secrets(&body, &[]);
    let full_name = body.optional("full_name", full_name);
    let metadata = body.optional("metadata", metadata_patch);
    let change = Change { full_name, metadata, ..Change::default() };
    let change = body.finish(|| Some(change))?;
    let respond_async = context.respond_async;
    let request = context.by(&caller, state.users.keys(), &fingerprint);
    let done = state.users.change_self(caller.user, change, request).await?;
    Ok(state.answer(StatusCode::OK, done, respond_async).await)
}

/// Headers and errors of [`delete_me`].
pub const DELETE_ME: Call = Call {
    errors: &[
        Code::WrongPassword,
        Code::NotFound,
        Code::LastAdmin,
        IN_FLIGHT,
        Code::StaleRevision,
        REUSED,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::OutcomeUnknown,
    ],
    headers: GUARDED,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    delete,
    path = "/api/v1/auth/me",
    tag = "auth",
    operation_id = "delete_me",
    summary = "Delete the caller for ever",
    request_body = CurrentPassword,
    responses((status = 204, description = "The user is gone")),
    security(("bearer" = []))
)]
pub async fn delete_me(
    State(state): State<AppState>,
    repeating: Repeating,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let current = body.required("current_password", string);
    let current = body.finish(|| current)?;
    let respond_async = context.respond_async;
    let request = context.by(repeating.anybody(), state.users.keys(), "");
    let current = Password::given(&current);
    let done = match repeating {
        Repeating::Good(caller) => state.users.delete_self(caller, current, request).await?,
        Repeating::Ended(_) => state.replayed(request).await?,
    };
    Ok(state.answer_nothing(done.position, respond_async).await)
}
