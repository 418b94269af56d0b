//! What callers do with their own account: password, address, profile, end.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use events::{Actor, EmailAddress};
use serde_json::Value;
use service_kit::http::{ClientAddress, CommandHeaders, Fault, Faults, JsonBody, PatchBody};
use service_kit::openapi::Call;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, Presented};
use service_kit::user_read::UserRead;
use utoipa::ToSchema;

use super::AppState;
use super::contract::{
    A_USER, GUARDED, IN_FLIGHT, KEYED, MAILED, NOTHING, REFLECTED, REUSED, WRITE,
};
use super::members::{parse_email, parse_given, parse_metadata_patch, parse_new_full_name};
use super::request::Repeating;
use crate::application::AccountProof;
use crate::domain::{Change, FullName, NewMetadata, Password};

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com"}))]
pub struct ResetRequest {
    #[deserr(try_from(String) = parse_email -> Fault)]
    #[schema(value_type = String, format = Email, max_length = 254)]
    email: EmailAddress,
}

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
    JsonBody(body): JsonBody<ResetRequest>,
) -> Result<Response, Problem> {
    let ResetRequest { email } = body.finish()?;
    let scope = email.canonical().to_owned();
    let request = context.request(state.users.keys(), Actor::Anonymous, &scope, "");
    state.users.request_password_reset(email, from, request).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct NewPassword {
    /// Out of the link in the mail.
    token: String,
    #[schema(format = Password, min_length = 8, max_length = 256)]
    new_password: String,
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
    JsonBody(body): JsonBody<NewPassword>,
) -> Result<Response, Problem> {
    state.users.count_password_set(from).await?;
    let NewPassword { token, new_password } = body.finish()?;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    let done = state.users.reset_password(token, new_password, from, request).await?;
    Ok(state.answer_nothing(done.position, &context).await)
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "current_password": "a long enough password", "new_password": "another long password",
}))]
pub struct PasswordChange {
    #[schema(format = Password)]
    current_password: String,
    #[schema(format = Password, min_length = 8, max_length = 256)]
    new_password: String,
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
    JsonBody(body): JsonBody<PasswordChange>,
) -> Result<Response, Problem> {
    let PasswordChange { current_password, new_password: new } = body.finish()?;
    let request = context.by(repeating.anybody(), state.users.keys(), "");
    let current = Password::given(&current_password);
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
    Ok(state.answer_nothing(done.position, &context).await)
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

/// An access token of the account with the request does for either password.
#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"token": "AgP7…", "password": "a long enough password"}))]
pub struct EmailProof {
    /// Out of the link in the mail.
    token: String,
    /// The one of the account, which its reader registered with.
    #[deserr(default, try_from(String) = parse_given -> Fault)]
    #[schema(format = Password)]
    password: Option<String>,
    /// Another one, of a reader who did not register or forgot it. Not together with `password`.
    #[deserr(default, try_from(String) = parse_given -> Fault)]
    #[schema(format = Password, min_length = 8, max_length = 256)]
    new_password: Option<String>,
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
    JsonBody(mut body): JsonBody<EmailProof>,
) -> Result<Response, Problem> {
    if ["/password", "/new_password"].iter().all(|pointer| body.member(pointer).is_some()) {
        let why = "must not be given together with password".to_owned();
        body.reject("/new_password", ("conflict", why));
    }
    let EmailProof { token, password, new_password } = body.finish()?;
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
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, fingerprint);
    let done = state.users.verify_email(token, proof, from, request).await?;
    Ok(state.answer_nothing(done.position, &context).await)
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "new_email": "countess@example.com", "current_password": "a long enough password",
}))]
pub struct EmailChange {
    #[deserr(try_from(String) = parse_email -> Fault)]
    #[schema(value_type = String, format = Email, max_length = 254)]
    new_email: EmailAddress,
    #[schema(format = Password)]
    current_password: String,
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
    JsonBody(body): JsonBody<EmailChange>,
) -> Result<Response, Problem> {
    let fingerprint = body.fingerprint(&["current_password"]);
    let EmailChange { new_email, current_password } = body.finish()?;
    let current = Password::given(&current_password);
    let request = context.by(&caller, state.users.keys(), &fingerprint);
    state.users.request_email_change(caller, new_email, current, request).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct LinkToken {
    /// Out of the link in the mail.
    token: String,
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
    JsonBody(body): JsonBody<LinkToken>,
) -> Result<Response, Problem> {
    let LinkToken { token } = body.finish()?;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    let done = state.users.confirm_email_change(token, caller, request).await?;
    Ok(state.answer_nothing(done.position, &context).await)
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
    JsonBody(body): JsonBody<LinkToken>,
) -> Result<Response, Problem> {
    let LinkToken { token } = body.finish()?;
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
    JsonBody(body): JsonBody<LinkToken>,
) -> Result<Response, Problem> {
    let LinkToken { token } = body.finish()?;
    let request = context.request(state.users.keys(), Actor::Anonymous, &token, "");
    let done = state.users.undo_email_change(token, request).await?;
    Ok(state.answer_nothing(done.position, &context).await)
}

/// A merge patch (RFC 7396): what is left out stays.
#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"full_name": "Ada Lovelace", "metadata": {"team": null}}))]
pub struct OwnChange {
    #[deserr(default, try_from(Option<String>) = parse_new_full_name -> Fault)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    full_name: Option<Option<FullName>>,
    /// A merge patch of its own.
    #[deserr(default, try_from(Value) = parse_metadata_patch -> Fault)]
    #[schema(value_type = Option<serde_json::Map<String, Value>>)]
    metadata: Option<NewMetadata>,
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
    PatchBody(body): PatchBody<OwnChange>,
) -> Result<Response, Problem> {
    let fingerprint = body.fingerprint(&[]);
    let OwnChange { full_name, metadata } = body.finish()?;
    let change = Change { full_name, metadata, ..Change::default() };
    let request = context.by(&caller, state.users.keys(), &fingerprint);
    let done = state.users.change_self(caller.user, change, request).await?;
    Ok(state.answer(StatusCode::OK, done, &context).await)
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"current_password": "a long enough password"}))]
pub struct CurrentPassword {
    #[schema(format = Password)]
    current_password: String,
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
    JsonBody(body): JsonBody<CurrentPassword>,
) -> Result<Response, Problem> {
    let CurrentPassword { current_password } = body.finish()?;
    let request = context.by(repeating.anybody(), state.users.keys(), "");
    let current = Password::given(&current_password);
    let done = match repeating {
        Repeating::Good(caller) => state.users.delete_self(caller, current, request).await?,
        Repeating::Ended(_) => state.replayed(request).await?,
    };
    Ok(state.answer_nothing(done.position, &context).await)
}
