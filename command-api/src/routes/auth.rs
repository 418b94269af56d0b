//! `/api/v1/auth` and the public keys.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use events::{Actor, EmailAddress, User};
use serde::Serialize;
use serde_json::{Map, Value};
use service_kit::ambient;
use service_kit::http::{Fault, JsonObject, Object, POSITION, nullable_string, string};
use service_kit::problem::{Code, Problem};
use service_kit::user_read::{UserRead, etag};

use super::AppState;
use super::request::Context;
use crate::domain::{FullName, Password, Register, metadata};

/// How long a key set may be cached, in seconds.
const JWKS_CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// `Token` of the contract, as far as there are no sessions yet: no refresh token.
#[derive(Serialize)]
struct Token {
    access_token: String,
    token_type: &'static str,
    expires_in: u32,
}

#[derive(Serialize)]
struct UserWithToken {
    user: UserRead,
    token: Token,
}

pub async fn register(
    State(state): State<AppState>,
    context: Context,
    RawQuery(query): RawQuery,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let with_token = with_token(query.as_deref())?;
    let fingerprint = without_secrets(&body, &["password"]);
    let rules = state.users.password_rules();
    let email = body.required("email", email);
    let password = body.required("password", |value| Password::new(&string(value)?, rules));
    let full_name = body.optional("full_name", full_name);
    let metadata = body.optional("metadata", metadata);
    let (register, password) = body.finish(|| {
        let register = Register {
            email: email?,
            full_name: full_name.flatten(),
            metadata: metadata.unwrap_or_default(),
            roles: None,
            email_verified: false,
        };
        Some((register, password?))
    })?;

    let caller = register.email.canonical().to_owned();
    let respond_async = context.respond_async;
    let request = context.request(&state.users, Actor::Anonymous, &caller, &fingerprint);
    let done = state.users.register(register, password, request).await?;

    let Some(user) = done.user.clone() else { return Err(Problem::new(Code::NotFound)) };
    let location = format!("/api/v1/users/{}", user.id);
    let tag = etag(done.revision);
    let mut response = if with_token {
        let body = UserWithToken { token: token(&state, &user)?, user: UserRead::new(user, None) };
        state.answer_with(StatusCode::CREATED, body, done.position, respond_async).await
    } else {
        state.answer(StatusCode::CREATED, done, respond_async).await
    };
    response.headers_mut().insert(ETAG, tag);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

pub async fn login(
    State(state): State<AppState>,
    JsonObject(mut body): JsonObject,
) -> Result<Response, Problem> {
    let email = body.required("email", string);
    let password = body.required("password", string);
    let (email, password) = body.finish(|| Some((email?, password?)))?;
    // A string that cannot be an address is nobody's address: 401 as for any other.
    let email = EmailAddress::parse(&email).ok();
    let user = state.users.login(email, Password::given(&password)).await?;
    let mut response = Json(token(&state, &user.user)?).into_response();
    response.headers_mut().insert(POSITION, user.position.0.into());
    Ok(response)
}

pub async fn jwks(State(state): State<AppState>) -> Response {
    ([(CACHE_CONTROL, JWKS_CACHE)], Json(state.key_set.as_ref())).into_response()
}

fn token(state: &AppState, user: &User) -> Result<Token, Problem> {
    let session = ambient::new_uuid();
    let access_token = state
        .issuer
        .issue(user.id, session, &user.roles)
        .map_err(|error| Problem::internal(&error))?;
    Ok(Token { access_token, token_type: "Bearer", expires_in: state.issuer.lifetime_s() })
}

fn with_token(query: Option<&str>) -> Result<bool, Problem> {
    match query {
        None | Some("" | "with_token=false") => Ok(false),
        Some("with_token=true") => Ok(true),
        Some(_) => Err(Problem::new(Code::InvalidParameter)
            .detail("the only parameter is with_token=true or with_token=false")),
    }
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

fn email(value: Value) -> Result<EmailAddress, Fault> {
    EmailAddress::parse(&string(value)?).map_err(|why| ("email", why.to_string()))
}

pub fn full_name(value: Value) -> Result<Option<FullName>, Fault> {
    nullable_string(value)?.map(FullName::parse).transpose()
}
