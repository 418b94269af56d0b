//! Requests from pages of other origins (the Fetch standard, "CORS protocol").
//!
//! By default none are allowed. An exactly named origin may make every call and read every answer, with its token in a
//! header. Browser credentials (cookies, certificates) are never involved, because Roster has none.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderValue, Method, StatusCode, Uri};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// Request headers of the contract.
const TAKEN: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Prefer, Roster-Position, \
     Roster-Session-Position, Traceparent, X-Request-Id",
);
/// Headers of answers that a page may read beyond those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Accept-Patch, Allow, ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, \
     Roster-Pending, Roster-Position, Roster-Session-Position, Roster-Total-Omitted, \
     WWW-Authenticate, X-Request-Id",
);
/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE_S: HeaderValue = HeaderValue::from_static("600");

/// The origins whose pages may call. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Origins(Arc<[HeaderValue]>);

impl Origins {
    /// Reads origins as browsers send them, separated by commas. Empty is nobody.
    ///
    /// # Errors
    /// In words, for the operator: there are no patterns, and an origin has no path.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        (1..)
            .zip(items)
            .map(|(number, item)| origin(number, item))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn allow(&self, request: &Request) -> Option<HeaderValue> {
        let origin = request.headers().get(ORIGIN)?;
        self.0.contains(origin).then(|| origin.clone())
    }
}

fn origin(number: usize, item: &str) -> Result<HeaderValue, String> {
    // The value is not repeated: it may be there by mistake.
    let wrong = || format!("item {number} is no origin, as in https://app.example.com");
    let uri: Uri = item.parse().map_err(|_| wrong())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    // As browsers write it: no path, not even a slash, no user, no default port.
    let usual = match scheme {
        "https" => authority.port_u16() != Some(443),
        "http" => authority.port_u16() != Some(80),
        _ => false,
    };
    let is_written_so = format!("{scheme}://{authority}") == item
        && authority.as_str().bytes().all(|b| !b.is_ascii_uppercase() && b != b'@' && b != b'*');
    if usual && is_written_so {
        HeaderValue::from_str(item).map_err(|_| wrong())
    } else {
        Err(wrong())
    }
}

/// The middleware.
pub(super) async fn cross_origin(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    if origins.0.is_empty() {
        return next.run(request).await;
    }
    let allowed = origins.allow(&request);
    let is_preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match is_preflight {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    let headers = response.headers_mut();
    // The answer depends on the origin: no cache may serve it to another one.
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = allowed else { return response };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    if is_preflight {
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, TAKEN);
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    } else {
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        let good = "https://app.example.com, http://localhost:3000,https://[::1]:8443";
        assert_eq!(Origins::parse(good).unwrap().0.len(), 3);
        assert!(Origins::parse("").unwrap().0.is_empty());
        for wrong in [
            "*",
            "null",
            "app.example.com",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://App.example.com",
            "https://me@app.example.com",
            "ftp://app.example.com",
        ] {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
        }
    }
}
