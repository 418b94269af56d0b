//! What stands around every route, outermost first: request id, problem rendering, one log line per
//! failure, panics, the headers that keep answers out of caches and frames.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderValue, StatusCode};
use tower_http::catch_panic::CatchPanicLayer;

use super::REQUEST_ID;
use crate::ambient;
use crate::metrics::Metrics;
use crate::openapi;
use crate::problem::{Code, Problem};

/// Longest request id taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest path and query. hyper bounds the whole head; this bound has an answer in our words.
const URI_BYTES_MAX: usize = 8 * 1024;
/// What `type` of a problem points to.
const ERROR_CODES: &str = include_str!("../../../docs/error-codes.md");

/// The id of the request, in its extensions and in the answer's `X-Request-Id`.
#[derive(Debug, Clone)]
pub struct RequestId(pub String);

/// Puts the layers of a public listener around the routes of the services behind it. What no service has
/// is answered by the process.
pub fn public(process: &Metrics, services: impl IntoIterator<Item = (Metrics, Router)>) -> Router {
    let own = Router::new()
        .route("/docs/error-codes.md", get(error_codes))
        .merge(openapi::pages())
        .fallback(|| async { Problem::new(Code::NotFound) });
    services.into_iter().fold(layered(own, process.clone()), |all, (metrics, routes)| {
        all.merge(layered(routes, metrics))
    })
}

fn layered(routes: Router, metrics: Metrics) -> Router {
    routes.layer(CatchPanicLayer::custom(panicked)).layer(from_fn_with_state(metrics, outermost))
}

async fn error_codes() -> Response {
    ([(CONTENT_TYPE, "text/markdown; charset=utf-8")], ERROR_CODES).into_response()
}

async fn outermost(State(metrics): State<Metrics>, mut request: Request, next: Next) -> Response {
    let _in_flight = metrics.request_begins();
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    // The matched route, not the path: ids and addresses do not belong in a log.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let too_long = request.uri().path_and_query().is_some_and(|p| p.as_str().len() > URI_BYTES_MAX);
    request.extensions_mut().insert(RequestId(id.clone()));

    let mut response = if too_long {
        Problem::new(Code::UriTooLong).into_response()
    } else {
        next.run(request).await
    };
    response = in_our_words(response, &id);
    finish_headers(&mut response, &id);

    let took = started.elapsed();
    metrics.request_ended(&method, &route, response.status(), took);
    let status = response.status().as_u16();
    let elapsed_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if response.status().is_server_error() {
        tracing::warn!(%method, route, status, elapsed_us, request_id = id, "request failed");
    } else {
        tracing::debug!(%method, route, status, elapsed_us, request_id = id, "request");
    }
    response
}

/// Renders a problem with its request id, and turns an error the framework made into one.
fn in_our_words(mut response: Response, id: &str) -> Response {
    let problem = response.extensions_mut().remove::<Problem>();
    let status = response.status();
    // The framework says what is wrong in plain text, or in nothing; a page for people is ours.
    let framework_made = (status.is_client_error() || status.is_server_error())
        && response
            .headers()
            .get(CONTENT_TYPE)
            .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let Some(problem) = problem.or_else(|| framework_made.then(|| Problem::from_status(status)))
    else {
        return response;
    };
    let mut rendered = problem.render(Some(id));
    // `Allow` of a 405 and the like stay; what describes the old body does not.
    for (name, value) in response.headers() {
        let describes_body = name == CONTENT_TYPE || name == http::header::CONTENT_LENGTH;
        if !describes_body && !rendered.headers().contains_key(name) {
            rendered.headers_mut().append(name.clone(), value.clone());
        }
    }
    rendered
}

fn finish_headers(response: &mut Response, id: &str) {
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
}

fn request_id(request: &Request) -> String {
    let sane = |text: &&str| {
        !text.is_empty()
            && text.len() <= REQUEST_ID_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(sane)
        .map_or_else(|| ambient::new_uuid().to_string(), str::to_owned)
}

#[expect(clippy::needless_pass_by_value, reason = "the signature the layer asks for")]
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    // A panic's text can hold anything, a password included: only its kind is logged.
    let kind = if panic.is::<&str>() || panic.is::<String>() { "message" } else { "value" };
    tracing::error!(kind, "a handler panicked");
    let mut response = Problem::new(Code::Internal).into_response();
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}
