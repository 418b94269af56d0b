//! `/api/v1/auth` and the public keys.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::{ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use events::{Actor, EmailAddress, Metadata};
use serde::Serialize;
use serde_json::Value;
use service_kit::ambient;
use service_kit::http::{CommandHeaders, Fault, Faults, JsonBody, Parsed, etag};
use service_kit::openapi::{Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::Caller;
use service_kit::user_read::UserRead;
use utoipa::ToSchema;

use super::AppState;
use super::contract::{A_NEW_USER, IN_FLIGHT, IN_SESSIONS, REUSED, WRITE};
use super::members::{parse_email, parse_full_name};
use super::request::ClientDevice;
use crate::application::Granted;
use crate::domain::{FullName, Password, PasswordContext, Register, parse_metadata};
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

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "email": "ada@example.com", "password": "a long enough password", "full_name": "Ada Lovelace",
    "metadata": {"team": "blue"},
}))]
pub struct UserCreate {
    #[deserr(try_from(String) = parse_email -> Fault)]
    #[schema(value_type = String, format = Email, max_length = 254)]
    email: EmailAddress,
    /// Counted in code points. Common ones, breached ones and weak ones are refused.
    #[expect(dead_code, reason = "read by `check_password`, which needs the other members, too")]
    #[schema(format = Password, min_length = 8, max_length = 256)]
    password: String,
    #[deserr(default, try_from(Option<String>) = parse_full_name -> Fault)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    full_name: Option<FullName>,
    /// At most 4 KiB as JSON.
    #[deserr(default, try_from(Value) = parse_metadata -> Fault)]
    #[schema(value_type = Option<serde_json::Map<String, Value>>)]
    metadata: Metadata,
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
    ClientDevice(device): ClientDevice,
    RawQuery(query): RawQuery,
    JsonBody(mut body): JsonBody<UserCreate>,
) -> Result<Response, Problem> {
    state.users.count_registration(device.ip).await?;
    let with_token = with_token(query.as_deref())?;
    let fingerprint = body.fingerprint(&["password"]);
    let password = check_password(&state, HashClient::network(device.ip), &mut body).await?;
    let UserCreate { email, full_name, metadata, password: _ } = body.finish()?;
    let Some(password) = password else { return Err(Problem::new(Code::Internal)) };
    let register =
        Register { email, full_name, metadata, roles: None, email_verified: false, imported: None };

    let caller = register.email.canonical().to_owned();
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

    let Some(user) = done.after.user().cloned() else { return Err(Problem::new(Code::NotFound)) };
    let location = format!("/api/v1/users/{}", user.id);
    let tag = etag(done.revision);
    let mut response = if let Some(granted) = granted {
        let (token, session) = (token(&state, &granted)?, granted.position);
        let body = UserWithToken { token, user: UserRead::after_write(user) };
        let created = StatusCode::CREATED;
        let mut response = state.answer_with(created, body, done.position, &context).await;
        state.reflect_session(&mut response, session, &context).await;
        response
    } else {
        state.answer(StatusCode::CREATED, done, &context).await
    };
    response.headers_mut().insert(ETAG, tag);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "password": "a long enough password"}))]
pub struct Credentials {
    email: String,
    #[schema(format = Password)]
    password: String,
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
    ClientDevice(device): ClientDevice,
    JsonBody(body): JsonBody<Credentials>,
) -> Result<Response, Problem> {
    let Credentials { email, password } = body.finish()?;
    // A string that cannot be an address is nobody's address: 401 as for any other.
    let email = EmailAddress::parse(&email).ok();
    let granted = state.users.login(email, Password::given(&password), device).await?;
    answer(&state, &granted, &context).await
}

#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct RefreshToken {
    refresh_token: String,
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
    JsonBody(body): JsonBody<RefreshToken>,
) -> Result<Response, Problem> {
    let granted = state.users.refresh(body.finish()?.refresh_token).await?;
    answer(&state, &granted, &context).await
}

async fn answer(
    state: &AppState,
    granted: &Granted,
    context: &CommandHeaders,
) -> Result<Response, Problem> {
    let mut response = Json(token(state, granted)?).into_response();
    state.reflect_session(&mut response, granted.position, context).await;
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

/// Checks the password of a body with the other members as its context, and adds what is wrong with it to the body's
/// faults. `None` when it has a fault or is absent.
pub async fn check_password<T: Deserr<Faults>>(
    state: &AppState,
    client: HashClient,
    body: &mut Parsed<T>,
) -> Result<Option<Password>, Problem> {
    let text = |pointer| body.member(pointer).and_then(Value::as_str);
    let Some(password) = text("/password") else { return Ok(None) };
    let email = text("/email").and_then(|text| EmailAddress::parse(text).ok());
    let full_name = text("/full_name").and_then(|text| FullName::parse(text.to_owned()).ok());
    let context = PasswordContext {
        email: email.as_ref(),
        full_name: full_name.as_ref().map(FullName::as_str),
    };
    let checked = match state.users.check_password_rules(password, &context) {
        Ok(candidate) => state.users.rate_password(client, candidate).await?,
        Err(fault) => Err(fault),
    };
    Ok(checked.map_err(|fault| body.reject("/password", fault)).ok())
}
