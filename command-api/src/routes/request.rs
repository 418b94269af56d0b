//! What a request says about itself beside its body.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri};
use events::Actor;
use service_kit::http::{ClientAddress, IDEMPOTENCY_KEY, PREFER, TrustedProxies};
use service_kit::problem::{Code, Problem};
use service_kit::trace::{self, Scope};

use crate::application::{Request, Users};
use crate::domain::Device;

/// Longest idempotency key in characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// The parts of a request that every command needs.
#[derive(Debug, Clone)]
pub struct Context {
    method: Method,
    uri: Uri,
    key: Option<String>,
    scope: Option<Scope>,
    /// Whether the caller does not want to wait for the views.
    pub respond_async: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Context {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            key: idempotency_key(&parts.headers)?,
            scope: trace::current(),
            respond_async: parts
                .headers
                .get_all(PREFER)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|preference| preference.trim().eq_ignore_ascii_case("respond-async")),
        })
    }
}

impl Context {
    /// The request for the application. `caller` scopes the key; `body` is what was asked without
    /// secrets.
    pub fn request(self, users: &Users, actor: Actor, caller: &str, body: &str) -> Request {
        let key = self.key.as_deref().map(|key| {
            let parts = [self.method.as_str(), self.uri.path(), body];
            users.idempotency_key(caller, key, &parts.map(str::as_bytes))
        });
        Request { actor, key, ..Request::of(self.scope) }
    }
}

/// Where the client is and what it calls itself.
#[derive(Debug, Clone)]
pub struct From(pub Device);

/// Longest name of a client that is kept, in characters.
const USER_AGENT_MAX: usize = 256;

impl<S> FromRequestParts<S> for From
where
    S: Send + Sync,
    TrustedProxies: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let ClientAddress(ip) = ClientAddress::from_request_parts(parts, state).await?;
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let user_agent = user_agent.map(|text| text.chars().take(USER_AGENT_MAX).collect());
        Ok(Self(Device { ip, user_agent }))
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.as_bytes();
    let sane = (1..=IDEMPOTENCY_KEY_MAX).contains(&text.len())
        && text.iter().all(|byte| (b' '..=b'~').contains(byte))
        && values.next().is_none();
    match std::str::from_utf8(text) {
        Ok(text) if sane => Ok(Some(text.to_owned())),
        _ => Err(Problem::new(Code::InvalidHeader)
            .detail("Idempotency-Key must be 1..255 printable characters, once")),
    }
}
