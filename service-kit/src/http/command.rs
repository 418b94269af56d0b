//! What a command says about itself beside its body, and what its answer says beside its own.

use axum::extract::FromRequestParts;
use axum::response::Response;
use events::{Actor, Position};
use http::header::{ETAG, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::{IDEMPOTENCY_KEY, PENDING, PREFER};
use crate::commands::{IdempotencyKeys, Request};
use crate::problem::{Code, Problem};
use crate::trace::{self, Scope};

/// Longest idempotency key in characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// The parts of a request that every command needs.
#[derive(Debug, Clone)]
pub struct Asked {
    method: Method,
    uri: Uri,
    key: Option<String>,
    scope: Option<Scope>,
    /// Whether the caller does not want to wait for the views.
    pub respond_async: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
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

impl Asked {
    /// The request for the application. `caller` scopes the key; `body` is what was asked without secrets.
    #[must_use]
    pub fn request(
        self,
        keys: &IdempotencyKeys,
        actor: Actor,
        caller: &str,
        body: &str,
    ) -> Request {
        let key = self.key.as_deref().map(|key| {
            let parts = [self.method.as_str(), self.uri.path(), body];
            keys.key(caller, key, &parts.map(str::as_bytes))
        });
        Request { actor, key, ..Request::of(self.scope) }
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

/// Says which position an answer reflects, in the header `name`, and that the views do not have it yet, if so.
pub fn reflects(response: &mut Response, name: HeaderName, position: Position, caught_up: bool) {
    let headers = response.headers_mut();
    headers.insert(name, position.0.into());
    if !caught_up {
        headers.insert(PENDING, HeaderValue::from_static("true"));
    }
}

/// Says which state of a thing an answer shows.
pub fn tagged(response: &mut Response, etag: HeaderValue) {
    response.headers_mut().insert(ETAG, etag);
}

/// Says where what was made is.
pub fn located(response: &mut Response, path: &str) {
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, path);
    }
}
