//! `/api/v1/auth` and the public keys.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use events::{Actor, EmailAddress};
use serde::Serialize;
use serde_json::{Map, Value};
use service_kit::ambient;
use service_kit::http::{CommandHeaders, Fault, JsonObject, Object, etag, nullable_string, string};
use service_kit::openapi::{Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::Caller;
use service_kit::user_read::UserRead;
use utoipa::ToSchema;

use super::AppState;
use super::bodies::{Credentials, RefreshToken, UserCreate};
use super::contract::{A_NEW_USER, IN_FLIGHT, IN_SESSIONS, REUSED, WRITE};
use super::request::From;
use crate::application::Granted;
use crate::domain::{Candidate, FullName, Password, PasswordContext, Register, metadata};
use crate::ports::HashClient;

/// The tokens of a session. Times are in seconds.
#[derive(Serialize, ToSchema)]
pub struct Token {
    access_token: String,
    /// `Bearer`.
    token_type: &'static str,
    expires_in: u32,
    refresh_token: String,
    refresh_expires_in: u64,
}

#[derive(Serialize, ToSchema)]
pub struct UserWithToken {
    user: UserRead,
    token: Token,
}

/// What a registration answers.
#[derive(ToSchema)]
#[schema(title = "UserRead, or with a token")]
#[serde(untagged)]
#[expect(dead_code, reason = "a description")]
pub enum Registered {
    User(UserRead),
    WithToken(UserWithToken),
}

/// Headers and errors of [`register`].
pub const REGISTER: Call = Call {
    errors: &[
        Code::InvalidParameter,
        Code::InvalidCredentials,
        Code::EmailTaken,
        IN_FLIGHT,
        REUSED,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: WRITE,
    answer_headers: A_NEW_USER,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    operation_id = "register",
    summary = "Register",
    params(("with_token" = Option<bool>, Query, description = "Whether to start a session")),
    request_body = UserCreate,
    responses((status = 201, description = "The user, or with `with_token=true` the user and a first token", body = Registered), (status = 202, description = "With `registration.conceal_existing`: whether the address was free is told to its owner alone"))
)]
pub async fn register(
    State(state): State<AppState>,
    context: CommandHeaders,
    From(device): From,
    RawQuery(query): RawQuery,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    state.users.count_registration(device.ip).await?;
    let with_token = with_token(query.as_deref())?;
    let fingerprint = without_secrets(&body, &["password"]);
    let email = body.required("email", email);
    let full_name = body.optional("full_name", full_name);
    let candidate = body.required("password", |value| {
        let full_name = full_name.as_ref().and_then(Option::as_ref).map(FullName::as_str);
        let context = PasswordContext { email: email.as_ref(), full_name };
        state.users.check_password_rules(&string(value)?, &context)
    });
    let password = rated(&state, HashClient::network(device.ip), &mut body, candidate).await?;
    let metadata = body.optional("metadata", metadata);
    let (register, password) = body.finish(|| {
        let register = Register {
            email: email?,
            full_name: full_name.flatten(),
            metadata: metadata.unwrap_or_default(),
            roles: None,
            email_verified: false,
            imported: None,
        };
        Some((register, password?))
    })?;

    let caller = register.email.canonical().to_owned();
    let respond_async = context.respond_async;
    let request = context.request(state.users.keys(), Actor::Anonymous, &caller, &fingerprint);
    // New users are unverified: none of them may log in then.
    if with_token && !state.users.login_unverified() {
        return Err(Problem::new(Code::InvalidParameter)
            .detail("with_token=true is not possible here: the address has to be verified first"));
    }
    if state.users.conceals_existing() {
        state.users.register_concealed(register, password, device.ip, request).await?;
        return Ok(StatusCode::ACCEPTED.into_response());
    }
    let (done, granted) = if with_token {
        let registered = state.users.register_with_session(register, password, device, request);
        let (done, granted) = registered.await?;
        (done, Some(granted))
    } else {
        (state.users.register(register, password, device.ip, request).await?, None)
    };

    let Some(user) = done.user.clone() else { return Err(Problem::new(Code::NotFound)) };
    let location = format!("/api/v1/users/{}", user.id);
    let tag = etag(done.revision);
    let mut response = if let Some(granted) = granted {
        let (token, session) = (token(&state, &granted)?, granted.position);
        let body = UserWithToken { token, user: UserRead::after_write(user) };
        let created = StatusCode::CREATED;
        let mut response = state.answer_with(created, body, done.position, respond_async).await;
        state.reflect_session(&mut response, session, respond_async).await;
        response
    } else {
        state.answer(StatusCode::CREATED, done, respond_async).await
    };
    response.headers_mut().insert(ETAG, tag);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Headers and errors of [`login`].
pub const LOGIN: Call = Call {
    errors: &[
        Code::InvalidCredentials,
        Code::EmailNotVerified,
        Code::TooManyRequests,
        Code::Overloaded,
        Code::LogFull,
        Code::OutcomeUnknown,
    ],
    headers: &[RequestHeader::Prefer],
    answer_headers: IN_SESSIONS,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    operation_id = "login",
    summary = "Log in",
    request_body = Credentials,
    responses((status = 200, description = "A new session", body = Token))
)]
pub async fn login(
    State(state): State<AppState>,
    context: CommandHeaders,
    From(device): From,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let email = body.required("email", string);
    let password = body.required("password", string);
    let (email, password) = body.finish(|| Some((email?, password?)))?;
    // A string that cannot be an address is nobody's address: 401 as for any other.
    let email = EmailAddress::parse(&email).ok();
    let granted = state.users.login(email, Password::given(&password), device).await?;
    answer(&state, &granted, &context).await
}

/// Headers and errors of [`refresh`].
pub const REFRESH: Call = Call {
    errors: &[
        Code::InvalidRefreshToken,
        Code::LogFull,
        Code::TooManyRequests,
        Code::OutcomeUnknown,
    ],
    headers: &[RequestHeader::Prefer],
    answer_headers: IN_SESSIONS,
};

#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "auth",
    operation_id = "refresh",
    summary = "Get the next pair of tokens",
    request_body = RefreshToken,
    responses((status = 200, description = "The next tokens of the session", body = Token))
)]
pub async fn refresh(
    State(state): State<AppState>,
    context: CommandHeaders,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let token = body.required("refresh_token", string);
    let token = body.finish(|| token)?;
    let granted = state.users.refresh(token).await?;
    answer(&state, &granted, &context).await
}

async fn answer(
    state: &AppState,
    granted: &Granted,
    context: &CommandHeaders,
) -> Result<Response, Problem> {
    let mut response = Json(token(state, granted)?).into_response();
    state.reflect_session(&mut response, granted.position, context.respond_async).await;
    Ok(response)
}

fn token(state: &AppState, granted: &Granted) -> Result<Token, Problem> {
    let (user, session) = (&granted.user, &granted.session);
    let caller = Caller {
        user: user.id,
        session: session.id,
        epoch: granted.epoch,
        lineage: session.lineage,
        roles: user.roles.clone(),
        email_verified: user.email_verified,
    };
    let access_token = state.issuer.issue(&caller).map_err(|error| Problem::internal(&error))?;
    let left = session.expires_at.as_datetime() - ambient::now().as_datetime();
    // Begun seconds count: a moment after the login it is still the whole time.
    let left_s = left.num_milliseconds().max(0).unsigned_abs().div_ceil(1_000);
    Ok(Token {
        access_token,
        token_type: "Bearer",
        expires_in: state.issuer.lifetime_s(),
        refresh_token: granted.refresh_token.clone(),
        refresh_expires_in: left_s,
    })
}

fn with_token(query: Option<&str>) -> Result<bool, Problem> {
    match query {
        None | Some("" | "with_token=false") => Ok(false),
        Some("with_token=true") => Ok(true),
        Some(_) => Err(Problem::new(Code::InvalidParameter)
            .detail("the only parameter is with_token=true or with_token=false")),
    }
}

/// The password of a body, when nothing is wrong with it.
pub async fn rated(
    state: &AppState,
    client: HashClient,
    body: &mut Object,
    candidate: Option<Candidate>,
) -> Result<Option<Password>, Problem> {
    let Some(candidate) = candidate else { return Ok(None) };
    Ok(match state.users.rate_password(client, candidate).await? {
        Ok(password) => Some(password),
        Err(broken) => {
            body.refuse("password", broken);
            None
        }
    })
}

/// The body as text for a fingerprint: sorted members, secrets left out.
pub fn without_secrets(body: &Object, secrets: &[&str]) -> String {
    let kept: Map<String, Value> = body
        .members()
        .iter()
        .filter(|(name, _)| !secrets.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(kept).to_string()
}

pub fn email(value: Value) -> Result<EmailAddress, Fault> {
    EmailAddress::parse(&string(value)?).map_err(|why| ("email", why.to_string()))
}

pub fn full_name(value: Value) -> Result<Option<FullName>, Fault> {
    nullable_string(value)?.map(FullName::parse).transpose()
}
