//! The middleware around every route, outermost first: request id, rendering of problems, one log line per failure,
//! panics, and the headers that keep answers out of caches and frames.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use tower_http::catch_panic::CatchPanicLayer;

use super::REQUEST_ID;
use super::contract::{Contract, uphold};
use super::cors::{Origins, cross_origin};
use crate::ambient;
use crate::openapi;
use crate::problem::{Code, Problem};
use crate::telemetry::Telemetry;
use crate::trace::{Requester, Scope, TraceContext};

/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Longest path and query. hyper limits the whole head; this limit is answered with a problem.
const URI_BYTES_MAX: usize = 8 * 1024;
/// RFC 6750 3.1: a token was sent, and is not valid (any more).
const INVALID_TOKEN: HeaderValue = HeaderValue::from_static("Bearer error=\"invalid_token\"");
/// The page that `type` of a problem links to.
const ERROR_CODES: &str = include_str!("../../../docs/error-codes.md");

/// Wraps the routes of some services into the middleware of a public listener. Paths that no service has are answered
/// by the process. `document` describes all calls, `if_match_required` is the setting.
pub fn public(
    process: &Telemetry,
    document: &'static str,
    services: impl IntoIterator<Item = (Telemetry, Router)>,
    origins: &Origins,
    if_match_required: bool,
) -> Router {
    let contract = Arc::new(Contract::of(document, if_match_required));
    let own = Router::new()
        .route("/docs/error-codes.md", get(error_codes))
        .merge(openapi::pages(document))
        .fallback(|| async { Problem::new(Code::NotFound) });
    let layered = |routes: Router, watch: Telemetry| {
        routes
            .layer(CatchPanicLayer::custom(panicked))
            .layer(from_fn_with_state(contract.clone(), uphold))
            .layer(from_fn_with_state(watch, outermost))
            .layer(from_fn_with_state(origins.clone(), cross_origin))
    };
    services.into_iter().fold(layered(own, process.clone()), |all, (watch, routes)| {
        all.merge(layered(routes, watch))
    })
}

/// Whether a request has an access token, valid or not.
fn shows_token(headers: &HeaderMap) -> bool {
    let scheme = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().get(..7));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "))
}

/// Whether a request names its host exactly once, readably. Before HTTP/1.1 it does not have to.
fn names_host(request: &Request) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Authority::try_from(host.as_bytes()).is_ok(),
        (None, _) => request.version() < Version::HTTP_11,
        (Some(_), Some(_)) => false,
    }
}

async fn error_codes() -> Response {
    ([(CONTENT_TYPE, "text/markdown; charset=utf-8")], ERROR_CODES).into_response()
}

async fn outermost(State(watch): State<Telemetry>, request: Request, next: Next) -> Response {
    let Telemetry { metrics, tracer } = watch;
    let _in_flight = metrics.request_begins();
    let started = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    // The matched route instead of the path: ids and addresses do not belong in a log.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |path| path.as_str().to_owned());
    let too_long = request.uri().path_and_query().is_some_and(|p| p.as_str().len() > URI_BYTES_MAX);
    let caller = TraceContext::of(request.headers());
    let recorded = tracer.request(&method, &route, &id, caller);
    let context = recorded.context().cloned();
    let scope = Scope { request_id: id.clone(), context, requester: Requester::default() };
    let trace_id = recorded.context().map(TraceContext::trace_id);

    let shows_token = shows_token(request.headers());
    let mut response = if too_long {
        Problem::new(Code::UriTooLong).into_response()
    } else if !names_host(&request) {
        let why = "a request names its host, once (RFC 9112 3.2)";
        Problem::new(Code::BadRequest).detail(why).into_response()
    } else {
        scope.cover(next.run(request)).await
    };
    let problem = problem_of(&mut response);
    if let Some(problem) = &problem {
        response = render_problem(&response, problem, &id);
        if shows_token && problem.code() == Code::Unauthorized {
            response.headers_mut().insert(WWW_AUTHENTICATE, INVALID_TOKEN);
        }
    }
    finish_headers(&mut response, &id);

    let took = started.elapsed();
    metrics.request_ended(&method, &route, response.status(), took);
    recorded.answered(response.status());
    let answered = Answered {
        method: &method,
        route: &route,
        status: response.status(),
        code: problem.as_ref().map(|problem| problem.code().as_str()),
        cause: problem.as_ref().and_then(Problem::cause),
        took,
        request_id: &id,
        trace_id: trace_id.as_deref(),
    };
    answered.log();
    response
}

/// The log line of a request.
struct Answered<'a> {
    method: &'a Method,
    route: &'a str,
    status: StatusCode,
    code: Option<&'a str>,
    cause: Option<&'a str>,
    took: Duration,
    request_id: &'a str,
    trace_id: Option<&'a str>,
}

impl Answered<'_> {
    /// Failures of the service are errors, requests that the client should repeat are warnings, and faults of the
    /// client are not logged.
    fn log(self) {
        let Self { method, route, code, cause, request_id, trace_id, .. } = self;
        let status = self.status.as_u16();
        let elapsed_us = u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX);
        macro_rules! line {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    %method, route, status, code, cause, elapsed_us, request_id, trace_id, $text
                )
            };
        }
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE => line!(warn, "request failed"),
            status if status.is_server_error() => line!(error, "request failed"),
            _ => line!(debug, "request"),
        }
    }
}

/// The problem of a response; an error from the framework becomes one.
fn problem_of(response: &mut Response) -> Option<Problem> {
    let problem = response.extensions_mut().remove::<Problem>();
    let status = response.status();
    // The framework's errors are plain text or empty; pages for people are Roster's.
    let framework_made = (status.is_client_error() || status.is_server_error())
        && response
            .headers()
            .get(CONTENT_TYPE)
            .is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    problem.or_else(|| framework_made.then(|| Problem::from_status(status)))
}

/// Renders a problem with its request id.
fn render_problem(response: &Response, problem: &Problem, id: &str) -> Response {
    let mut rendered = problem.render(Some(id));
    // `Allow` of a 405 and similar headers stay; headers about the old body do not.
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
    // The text of a panic can contain anything, even a password: only its type is logged.
    let kind = if panic.is::<&str>() || panic.is::<String>() { "message" } else { "value" };
    Problem::new(Code::Internal)
        .because(format!("a handler panicked with a {kind}"))
        .into_response()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use axum::body::Body;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::Settings;

    /// What is logged.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn taken(&self) -> Vec<Value> {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap());
            let text = String::from_utf8(bytes).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    async fn panics() {
        panic!("with a secret in it");
    }

    async fn fails() -> Problem {
        Problem::internal(&std::io::Error::other("the cause"))
    }

    #[tokio::test]
    async fn a_fault_is_one_line_and_tells_the_client_nothing() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone());
        let _logging = tracing::subscriber::set_default(subscriber.finish());
        let watch = Telemetry::start(&Settings::merge("", []).unwrap().telemetry, "test").unwrap();
        let routes = Router::new()
            .route("/panics/{id}", get(panics))
            .route("/fails", get(fails))
            .route("/refuses", get(|| async { StatusCode::IM_A_TEAPOT }));
        let router = public(&watch, "{}", [(watch.clone(), routes)], &Origins::default(), false);
        for (path, route, cause) in [
            ("/panics/7", "/panics/{id}", "a handler panicked with a message"),
            ("/fails", "/fails", "the cause"),
        ] {
            let request = Request::get(path)
                .header(HOST, "h")
                .header(REQUEST_ID, "one")
                .body(Body::empty())
                .unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = axum::body::to_bytes(response.into_body(), 4_096).await.unwrap();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&problem["instance"], &problem["code"]),
                (&"one".into(), &"internal".into())
            );
            assert!(problem.get("detail").is_none(), "{problem}");
            let lines = lines.taken();
            assert_eq!(lines.len(), 1, "{lines:?}");
            for (member, value) in [
                ("level", "ERROR"),
                ("code", "internal"),
                ("cause", cause),
                ("route", route),
                ("request_id", "one"),
            ] {
                assert_eq!(lines[0][member], value, "{}", lines[0]);
            }
        }
        let request = Request::get("/refuses").header(HOST, "h").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert_eq!(lines.taken(), Vec::<Value>::new());
    }
}
