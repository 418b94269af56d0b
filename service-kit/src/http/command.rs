//! Headers of commands, and of their answers.

use axum::extract::FromRequestParts;
use axum::response::Response;
use events::{Actor, Position};
use http::header::{ETAG, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::conditional::Precondition;
use super::{IDEMPOTENCY_KEY, PENDING, PREFER};
use crate::commands::{IdempotencyKeys, Request};
use crate::problem::{Code, Problem};
use crate::tokens::Caller;
use crate::trace::{self, Scope};

/// Longest idempotency key in characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;

/// The headers of a request that every command needs.
#[derive(Debug, Clone)]
pub struct CommandHeaders {
    method: Method,
    uri: Uri,
    key: Option<String>,
    scope: Option<Scope>,
    precondition: Precondition,
    /// Whether the caller does not want to wait for the views (`Prefer: respond-async`).
    pub respond_async: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for CommandHeaders {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(parts)
    }
}

impl CommandHeaders {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// `invalid-header` for an invalid key or precondition.
    pub fn of(parts: &Parts) -> Result<Self, Problem> {
        Ok(Self {
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            key: idempotency_key(&parts.headers)?,
            scope: trace::current(),
            precondition: Precondition::of(&parts.headers)?,
            respond_async: prefers(&parts.headers, "respond-async"),
        })
    }

    /// The request of a caller with a token.
    #[must_use]
    pub fn by(&self, caller: &Caller, keys: &IdempotencyKeys, body: &str) -> Request {
        self.request(keys, Actor::User(caller.user), &caller.user.to_string(), body)
    }

    /// The request for the application. `caller` scopes the idempotency key; `body` is the request's body without
    /// secrets.
    #[must_use]
    pub fn request(
        &self,
        keys: &IdempotencyKeys,
        actor: Actor,
        caller: &str,
        body: &str,
    ) -> Request {
        let key = self.key.as_deref().map(|key| {
            let parts = [self.method.as_str(), self.uri.path(), body];
            keys.key(caller, key, &parts.map(str::as_bytes))
        });
        Request {
            actor,
            key,
            precondition: self.precondition.clone(),
            ..Request::of(self.scope.clone())
        }
    }
}

/// Whether a request has a preference without a value (RFC 7240), in any of its forms: with parameters, in a list, over
/// several lines.
fn prefers(headers: &HeaderMap, wanted: &str) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| unquoted_split(value, ',')).any(|preference| {
        let name = unquoted_split(preference, ';').next().unwrap_or_default();
        let (name, value) = name.split_once('=').unwrap_or((name, ""));
        // An empty value is no value.
        name.trim().eq_ignore_ascii_case(wanted) && matches!(value.trim(), "" | "\"\"")
    })
}

/// Splits at a separator, except within a quoted string.
fn unquoted_split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let ends = c == separator && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    })
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

/// Sets the header `name` to the position that an answer reflects, and marks the answer as pending if the views are
/// behind it.
pub fn reflects(response: &mut Response, name: HeaderName, position: Position, caught_up: bool) {
    let headers = response.headers_mut();
    headers.insert(name, position.0.into());
    if !caught_up {
        headers.insert(PENDING, HeaderValue::from_static("true"));
    }
}

/// Sets the `ETag`.
pub fn tagged(response: &mut Response, etag: HeaderValue) {
    response.headers_mut().insert(ETAG, etag);
}

/// Sets the `Location` of a created resource.
pub fn located(response: &mut Response, path: &str) {
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(LOCATION, path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_found_in_every_form() {
        for (lines, found) in [
            (&["respond-async"][..], true),
            (&["Respond-Async"], true),
            (&["respond-async; foo=1"], true),
            (&["respond-async;foo"], true),
            (&["wait=10, respond-async"], true),
            (&["wait=10 ,\trespond-async ; a=\"b;c,d\""], true),
            (&["return=minimal", "respond-async"], true),
            (&["respond-async="], true),
            (&["respond-async=\"\""], true),
            (&["respond-async=no"], false),
            (&["foo=\"bar, respond-async\""], false),
            (&["foo=\"a\\\", respond-async\""], false),
            (&["foo; respond-async"], false),
            (&["respond-asynchronously"], false),
            (&[""], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, HeaderValue::from_static(line));
            }
            assert_eq!(prefers(&headers, "respond-async"), found, "{lines:?}");
        }
    }
}
