//! The OpenAPI document: the parts that both APIs share, and the pages that show it.
//!
//! Each API describes its operations beside their handlers. Errors that every request can get (a body that is not JSON,
//! a server that does not answer) are added here, from the table of error codes. The document of a program is committed
//! (Roster's as `openapi/roster.json`), served as it is, and compared with the code by a test of that program.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use utoipa::ToSchema;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, Components, ObjectBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required,
    Response as Answer, ResponseBuilder, Server,
};

use crate::http::{JSON, MERGE_PATCH};
use crate::problem::{Code, PROBLEM_JSON, Problem};

/// Only the page's own scripts and styles, and the document from this host.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
);

/// In SPDX form.
const LICENSE: &str = "MIT OR Apache-2.0";

/// A request header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestHeader {
    /// Makes the request idempotent.
    IdempotencyKey,
    /// Only if the resource has not changed.
    IfMatch,
    /// Only if the resource has changed.
    IfNoneMatch,
    /// Without waiting for the views.
    Prefer,
    /// Not before the views have a position.
    Position,
    /// The same in the log of sessions.
    SessionPosition,
}

/// An answer header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerHeader {
    /// The revision of the resource.
    ETag,
    /// The path of a created resource.
    Location,
    /// The position in the log that the answer reflects.
    Position,
    /// The same in the log of sessions.
    SessionPosition,
    /// The views do not reflect the answer yet.
    Pending,
    /// The next page.
    Link,
    /// Why the total is missing.
    TotalOmitted,
}

/// Errors and headers of a call, beyond its description: a constant beside the handler.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Errors of its own, besides those that every call can answer with.
    pub errors: &'static [Code],
    /// Headers that it reads.
    pub headers: &'static [RequestHeader],
    /// Headers of its successful answers.
    pub answer_headers: &'static [AnswerHeader],
}

/// The result of `routes!` for a handler: schemas, its path, and its route.
type Routes<R> = (Vec<(String, RefOr<Schema>)>, Paths, R);

/// The routes of a handler, with its complete description.
#[must_use]
pub fn call<R>((schemas, mut paths, routes): Routes<R>, call: &Call) -> Routes<R> {
    for item in paths.paths.values_mut() {
        for (is_command, operation) in operations(item) {
            complete_operation(operation, is_command, call);
        }
    }
    (schemas, paths, routes)
}

/// `application/problem+json` (RFC 9457).
#[derive(ToSchema)]
#[schema(as = Problem)]
#[expect(dead_code, reason = "a description")]
pub struct ProblemSchema {
    /// Where the code is explained.
    #[schema(rename = "type")]
    kind: String,
    /// The same for every occurrence.
    title: String,
    status: u16,
    /// Stable name of the error.
    code: String,
    /// About this occurrence.
    #[schema(nullable = false)]
    detail: Option<String>,
    /// Every rule that the body breaks.
    #[schema(nullable = false)]
    errors: Option<Vec<FieldErrorSchema>>,
    /// The id of the request, as in `X-Request-Id`.
    #[schema(nullable = false)]
    instance: Option<String>,
}

#[derive(ToSchema)]
#[schema(as = FieldError)]
#[expect(dead_code, reason = "a description")]
struct FieldErrorSchema {
    /// JSON pointer (RFC 6901) into the body.
    pointer: String,
    /// Stable name of the rule.
    code: String,
    /// The rule in words.
    detail: String,
}

/// The head of Roster's document.
#[must_use]
pub fn head() -> OpenApi {
    let mut document = head_of(
        "Roster",
        "Users and sessions. Errors are problem+json; `type` of each leads to its explanation.",
    );
    let mut license = License::new(LICENSE);
    license.identifier = Some(LICENSE.to_owned());
    document.info.license = Some(license);
    document.paths.add_path_operation("/.well-known/jwks.json", vec![HttpMethod::Get], key_set());
    document
}

/// The head of the document of a service whose callers send Roster's access tokens.
#[must_use]
pub fn head_of(title: &str, description: &str) -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An access token, from `login` or `refresh`"))
        .build();
    let mut components = Components::new();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    for (name, schema) in [schema_of::<ProblemSchema>(), schema_of::<FieldErrorSchema>()] {
        components.schemas.insert(name, schema);
    }
    OpenApiBuilder::new()
        .paths(Paths::new())
        .info(InfoBuilder::new().title(title).version("1").description(Some(description)).build())
        // The host that the document came from.
        .servers(Some([Server::new("/")]))
        .components(Some(components))
        .build()
}

fn key_set() -> Operation {
    let key = ObjectBuilder::new()
        .schema_type(Type::Object)
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
    let set = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("keys", ArrayBuilder::new().items(key))
        .required("keys");
    let content = ContentBuilder::new().schema(Some(set)).build();
    let set = ResponseBuilder::new()
        .description("JSON Web Key Set (RFC 7517); may be cached as it says")
        .content(JSON, content);
    let mut keys = OperationBuilder::new()
        .tag("auth")
        .operation_id(Some("keys"))
        .summary(Some("The keys that access tokens are checked with"))
        .response("200", set)
        .build();
    complete_operation(&mut keys, false, &Call { errors: &[], headers: &[], answer_headers: &[] });
    keys
}

fn schema_of<T: ToSchema>() -> (String, RefOr<Schema>) {
    (T::name().into_owned(), T::schema())
}

/// Completes the document: free-form objects say that they are.
pub fn complete(document: &mut OpenApi) {
    let schemas = document.components.iter_mut().flat_map(|all| all.schemas.values_mut());
    schemas.for_each(open_free_objects);
}

/// Adds to an operation its headers and errors, and those of every operation.
fn complete_operation(operation: &mut Operation, is_command: bool, call: &Call) {
    let parameters = operation.parameters.get_or_insert_default();
    parameters.extend(call.headers.iter().map(|header| RefOr::T(parameter(*header))));
    add_answer_headers(operation, call.answer_headers);
    let compares = call.headers.contains(&RequestHeader::IfMatch);
    add_errors(operation, is_command, compares, call.errors);
    // Stated explicitly for public calls, too: a missing statement could have been forgotten.
    operation.security.get_or_insert_default();
    add_plain_json(operation);
    let nobody = SecurityRequirement::default();
    let is_open = operation.security.as_ref().is_some_and(|all| all.contains(&nobody));
    // A request with a token in its header needs no body.
    if is_open && let Some(RefOr::T(body)) = &mut operation.request_body {
        body.required = Some(Required::False);
    }
}

/// A merge patch may also be sent as plain JSON.
fn add_plain_json(operation: &mut Operation) {
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    if let Some(content) = body.content.get(MERGE_PATCH).cloned() {
        body.content.insert(JSON.to_owned(), content);
    }
}

/// Marks objects without named members as free-form: generators would create a type without members otherwise.
fn open_free_objects(schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    let is_object = matches!(&object.schema_type, SchemaType::Type(Type::Object));
    if is_object && object.properties.is_empty() && object.additional_properties.is_none() {
        let any = AdditionalProperties::FreeForm(true);
        object.additional_properties = Some(Box::new(any));
    }
    object.properties.values_mut().for_each(open_free_objects);
}

/// The operations of a path, and whether each is a command.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let query = item.get.iter_mut().map(|operation| (false, operation));
    let commands = [&mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
    query.chain(commands.into_iter().flatten().map(|operation| (true, operation)))
}

fn add_answer_headers(operation: &mut Operation, headers: &[AnswerHeader]) {
    // An accepted request has no result yet.
    let taken_in = StatusCode::ACCEPTED.as_str();
    for (status, answer) in &mut operation.responses.responses {
        let RefOr::T(answer) = answer else { continue };
        if status == taken_in {
            continue;
        }
        for header in headers {
            let (name, what) = answer_header(*header);
            answer.headers.insert(name.to_owned(), RefOr::T(text(what)));
        }
    }
}

const fn answer_header(header: AnswerHeader) -> (&'static str, &'static str) {
    match header {
        AnswerHeader::ETag => ("ETag", "Revision of what is shown, as `W/\"<revision>\"`"),
        AnswerHeader::Location => ("Location", "Path of what was made"),
        AnswerHeader::Position => {
            ("Roster-Position", "Position in the log that the answer reflects")
        }
        AnswerHeader::SessionPosition => {
            ("Roster-Session-Position", "Position in the log of sessions that the answer reflects")
        }
        AnswerHeader::Pending => ("Roster-Pending", "`true` when the views do not have it yet"),
        AnswerHeader::Link => ("Link", "The next page, as `rel=\"next\"`"),
        AnswerHeader::TotalOmitted => (
            "Roster-Total-Omitted",
            "Why there is no `total`: `more-than-<number>` or `too-much-work`",
        ),
    }
}

fn text(what: &str) -> Header {
    let string = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new().schema(Some(string)).description(Some(what)).build()
}

fn add_errors(operation: &mut Operation, is_command: bool, compares: bool, own: &[Code]) {
    let mut codes = vec![
        Code::BadRequest,
        Code::InvalidHeader,
        Code::InvalidParameter,
        Code::MalformedBody,
        Code::UriTooLong,
        Code::Unavailable,
    ];
    // Commands are decided on the log.
    codes.extend(is_command.then_some(Code::UnreadableRecord));
    // Undescribed bodies are read, too, to be rejected.
    codes.extend([Code::RequestTimeout, Code::BodyTooLarge, Code::ValidationFailed]);
    if operation.request_body.is_some() {
        codes.push(Code::UnsupportedMediaType);
    }
    if is_command {
        codes.push(Code::PreconditionFailed);
    }
    if operation.security.as_ref().is_some_and(|all| !all.is_empty()) {
        codes.push(Code::Unauthorized);
        codes.extend(compares.then_some(Code::PreconditionRequired));
    }
    codes.extend(own);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let same = by_status.entry(code.status().as_u16()).or_default();
        if !same.contains(&code) {
            same.push(code);
        }
    }
    for (status, codes) in by_status {
        let answer = RefOr::T(error(status, &codes));
        operation.responses.responses.insert(status.to_string(), answer);
    }
}

fn error(status: u16, codes: &[Code]) -> Answer {
    let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
    let answer =
        ResponseBuilder::new().description(names.join(", ")).content(PROBLEM_JSON, content);
    match status {
        401 => answer.header("WWW-Authenticate", text("`Bearer`")),
        429 => answer
            .header("Retry-After", text("Seconds to wait"))
            .header(
                "RateLimit",
                text("The limit that was met: what is left of it, and seconds until more is"),
            )
            .header("RateLimit-Policy", text("The same limit: how many in how many seconds")),
        503 => answer.header("Retry-After", text("Seconds to wait")),
        _ => answer,
    }
    .build()
}

fn parameter(header: RequestHeader) -> Parameter {
    let (name, what) = match header {
        RequestHeader::IdempotencyKey => (
            "Idempotency-Key",
            "1..255 printable characters. The same request with the same key is answered as the first one",
        ),
        RequestHeader::IfMatch => (
            "If-Match",
            "`ETag` of what is to be changed, or `*`; 412 when it is older. With `http.if_match_required` it must be there: 428",
        ),
        RequestHeader::IfNoneMatch => {
            ("If-None-Match", "`ETag` that is known; 304 when it is the same")
        }
        RequestHeader::Prefer => ("Prefer", "`respond-async` does not wait for the views"),
        RequestHeader::Position => (
            "Roster-Position",
            "Position that the answer must reflect, as an earlier answer told it",
        ),
        RequestHeader::SessionPosition => (
            "Roster-Session-Position",
            "Position in the log of sessions that the answer must reflect, as an earlier answer told it",
        ),
    };
    let mut schema = ObjectBuilder::new().schema_type(Type::String);
    if header == RequestHeader::IdempotencyKey {
        schema = schema.min_length(Some(1)).max_length(Some(255)).pattern(Some("^[ -~]*$"));
    }
    if matches!(header, RequestHeader::Position | RequestHeader::SessionPosition) {
        schema = schema.pattern(Some("^[0-9]{1,19}$"));
    }
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(schema))
        .build()
}

/// `/openapi.json`, and `/docs` for people. Nothing is loaded from other hosts.
pub(crate) fn pages<S: Clone + Send + Sync + 'static>(document: &'static str) -> Router<S> {
    Router::new()
        .route("/openapi.json", get(move || async move { served(document) }))
        // Its scripts have relative paths.
        .route("/docs", get(|| async { Redirect::permanent("/docs/index.html") }))
        .route("/docs/{file}", get(|Path(file): Path<String>| async move { page(&file) }))
}

fn served(document: &'static str) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(JSON)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=300")),
    ];
    (headers, document).into_response()
}

fn page(file: &str) -> Response {
    // Links to a call can be shared. Tokens are not stored: the browser would keep them for its next user.
    let config = utoipa_swagger_ui::Config::from("/openapi.json").deep_linking(true);
    match utoipa_swagger_ui::serve(file, Arc::new(config)) {
        Ok(Some(file)) => {
            let kind = HeaderValue::from_str(&file.content_type);
            let kind = kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
            let headers = [(CONTENT_TYPE, kind), (CONTENT_SECURITY_POLICY, PAGE_POLICY)];
            (headers, file.bytes.into_owned()).into_response()
        }
        Ok(None) => Problem::new(Code::NotFound).into_response(),
        Err(error) => Problem::internal(error.as_ref()).into_response(),
    }
}
