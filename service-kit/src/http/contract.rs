//! The rules of every call, enforced before any handler runs.
//!
//! They are derived from the OpenAPI document of the process, so every described call has them and a new one cannot
//! forget them. Rejected here are undescribed query parameters, a body where none is described, contract headers that
//! cannot be parsed, and preconditions on resources without an entity tag. What needs the state of a resource
//! (`If-Match` with a revision) is evaluated by the command, for calls that describe the header.
//!
//! Paths that the document does not describe (pages for people, the document itself) are passed through.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::ALLOW;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};

use super::body::{JSON, check_absent};
use super::command::CommandHeaders;
use super::conditional::Precondition;
use super::page::refused;
use crate::problem::{Code, Problem};
use crate::tokens::bearer;

/// RFC 5789 3.1: the media types that a PATCH of the resource accepts.
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// The calls of a process, according to its document.
#[derive(Debug, Default)]
pub(super) struct Contract {
    /// Paths without templates first: `/users/import` is not a user.
    resources: Vec<Resource>,
}

/// A path and its calls.
#[derive(Debug)]
struct Resource {
    segments: Vec<Segment>,
    calls: Vec<Call>,
    allow: HeaderValue,
    accept_patch: Option<HeaderValue>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Any,
}

/// The rules of one call.
#[derive(Debug)]
struct Call {
    method: Method,
    parameters: BTreeSet<String>,
    takes_body: bool,
    /// Whether its command compares revisions itself.
    compares: bool,
    /// Whether it requires an access token.
    needs_token: bool,
    /// Whether `If-Match` is required. A link in a mail knows no revision, so only calls with a token can require it.
    needs_if_match: bool,
}

impl Contract {
    /// Parses a document. Anything else describes no calls.
    pub(super) fn of(document: &str, if_match_required: bool) -> Self {
        let document: Value = serde_json::from_str(document).unwrap_or_default();
        let paths = document.get("paths").and_then(Value::as_object);
        let mut resources: Vec<Resource> =
            paths.into_iter().flatten().filter_map(|(path, item)| resource(path, item)).collect();
        for call in resources.iter_mut().flat_map(|resource| &mut resource.calls) {
            call.needs_if_match = if_match_required && call.compares && call.needs_token;
        }
        resources.sort_by_key(|resource| resource.segments.contains(&Segment::Any));
        Self { resources }
    }

    fn find(&self, path: &str) -> Option<&Resource> {
        self.resources.iter().find(|resource| resource.is_at(path))
    }
}

fn resource(path: &str, item: &Value) -> Option<Resource> {
    let item = item.as_object()?;
    let calls: Vec<Call> = item
        .iter()
        .filter_map(|(method, call)| {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).ok()?;
            Some(Call::of(method, call))
        })
        .collect();
    let mut allow = "OPTIONS".to_owned();
    for call in &calls {
        let head = if call.method == Method::GET { ", HEAD" } else { "" };
        // Writing to a `String` cannot fail.
        let _ = write!(allow, ", {}{head}", call.method);
    }
    let patched = item.get("patch").map(media_types).filter(|types| !types.is_empty());
    Some(Resource {
        segments: path.split('/').map(Segment::of).collect(),
        calls,
        allow: HeaderValue::from_str(&allow).ok()?,
        accept_patch: patched.and_then(|types| HeaderValue::from_str(&types.join(", ")).ok()),
    })
}

/// The media types of a call's body, the specific one before plain JSON.
fn media_types(call: &Value) -> Vec<String> {
    let content = call.pointer("/requestBody/content").and_then(Value::as_object);
    let mut types: Vec<String> = content.into_iter().flat_map(Map::keys).cloned().collect();
    types.sort_by_key(|one| one == JSON);
    types
}

impl Segment {
    fn of(text: &str) -> Self {
        if text.starts_with('{') { Self::Any } else { Self::Literal(text.to_owned()) }
    }

    fn takes(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => literal == text,
            Self::Any => !text.is_empty(),
        }
    }
}

/// An empty requirement means that no token is needed.
fn needs_token(call: &Value) -> bool {
    let ways = call.get("security").and_then(Value::as_array);
    let is_needed = |way: &Value| way.as_object().is_some_and(|way| !way.is_empty());
    ways.is_some_and(|ways| !ways.is_empty() && ways.iter().all(is_needed))
}

impl Call {
    fn of(method: Method, call: &Value) -> Self {
        let named = |kind: &str| -> BTreeSet<String> {
            let parameters = call.get("parameters").and_then(Value::as_array);
            let of_kind = |one: &&Value| one.get("in").and_then(Value::as_str) == Some(kind);
            let name = |one: &Value| one.get("name")?.as_str().map(str::to_owned);
            parameters.into_iter().flatten().filter(of_kind).filter_map(name).collect()
        };
        Self {
            method,
            parameters: named("query"),
            takes_body: call.get("requestBody").is_some(),
            compares: named("header").iter().any(|name| name.eq_ignore_ascii_case("if-match")),
            needs_token: needs_token(call),
            needs_if_match: false,
        }
    }

    /// All checks that need no state.
    fn check(&self, parts: &Parts) -> Result<(), Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        if let Some(unknown) = names.find(|name| !self.parameters.contains(name.as_ref())) {
            return Err(refused(&unknown, "is no parameter of this call"));
        }
        if self.method.is_safe() {
            return Ok(());
        }
        CommandHeaders::of(parts)?;
        let precondition = Precondition::of(&parts.headers)?;
        if self.needs_if_match && !precondition.has_if_match() {
            return Err(Problem::new(Code::PreconditionRequired));
        }
        if !self.compares && !precondition.holds_without_tag() {
            let why = "what this call is about has no entity tag";
            return Err(Problem::new(Code::PreconditionFailed).detail(why));
        }
        Ok(())
    }
}

impl Resource {
    fn is_at(&self, path: &str) -> bool {
        let mut given = path.split('/');
        self.segments.iter().all(|segment| given.next().is_some_and(|text| segment.takes(text)))
            && given.next().is_none()
    }

    fn call(&self, method: &Method) -> Option<&Call> {
        let method = if *method == Method::HEAD { &Method::GET } else { method };
        self.calls.iter().find(|call| call.method == *method)
    }

    /// Passes a valid request on to its handler. A client without a token is asked for one before it learns of other
    /// faults.
    async fn let_in(&self, request: Request) -> Result<Request, Problem> {
        let Some(call) = self.call(request.method()) else {
            return Err(Problem::new(Code::MethodNotAllowed));
        };
        let (parts, body) = request.into_parts();
        let checked = async {
            call.check(&parts)?;
            if call.takes_body || body.is_end_stream() {
                return Ok(body);
            }
            check_absent(body).await?;
            Ok(Body::empty())
        };
        match checked.await {
            Ok(body) => Ok(Request::from_parts(parts, body)),
            Err(_) if call.needs_token && bearer(&parts).is_err() => {
                Err(Problem::new(Code::Unauthorized))
            }
            Err(problem) => Err(problem),
        }
    }

    /// Sets the headers about the resource on an answer.
    fn set_headers(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(ALLOW, self.allow.clone());
        if let Some(types) = &self.accept_patch {
            headers.insert(ACCEPT_PATCH, types.clone());
        }
    }
}

/// The middleware.
pub(super) async fn uphold(
    State(contract): State<Arc<Contract>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(resource) = contract.find(request.uri().path()) else {
        return next.run(request).await;
    };
    if request.method() == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        resource.set_headers(&mut response);
        return response;
    }
    let patches = request.method() == Method::PATCH;
    // The call is described and served by another process: commands and queries can be served by different processes.
    let is_here = request.extensions().get::<MatchedPath>().is_some();
    let mut response = match resource.let_in(request).await {
        Ok(request) if is_here => next.run(request).await,
        Ok(_) => Problem::new(Code::MethodNotAllowed).into_response(),
        Err(problem) => problem.into_response(),
    };
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => resource.set_headers(&mut response),
        StatusCode::UNSUPPORTED_MEDIA_TYPE if patches => resource.set_headers(&mut response),
        _ => {}
    }
    response
}
