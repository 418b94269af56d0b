//! Errors over HTTP: RFC 9457 `application/problem+json`, one table from code to status and title.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::{Serialize, Serializer};

use crate::http::RateLimit;

/// Media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:ident, $title:literal;)*) => {
        /// Every error that a client can get. `docs/error-codes.md` explains each; a test compares both.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All codes, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The stable name, kebab-case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// A short text for people, the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The body is not strict JSON, or not an object.
    MalformedBody = "malformed-body", BAD_REQUEST, "The body is not valid JSON";
    /// A query parameter is unknown or has a value that is not allowed.
    InvalidParameter = "invalid-parameter", BAD_REQUEST, "A query parameter is not valid";
    /// A header has a value that is not allowed.
    InvalidHeader = "invalid-header", BAD_REQUEST, "A header is not valid";
    /// The request itself is malformed.
    BadRequest = "bad-request", BAD_REQUEST, "The request is malformed";
    /// The token of a link in a mail is not valid (any more).
    InvalidToken = "invalid-token", BAD_REQUEST, "The link is not valid any more";
    /// E-mail or password is wrong, or the user may not log in.
    InvalidCredentials = "invalid-credentials", UNAUTHORIZED, "E-mail or password is wrong";
    /// The refresh token is not valid (any more).
    InvalidRefreshToken = "invalid-refresh-token", UNAUTHORIZED, "The refresh token is not valid";
    /// No valid access token.
    Unauthorized = "unauthorized", UNAUTHORIZED, "A valid access token is needed";
    /// The caller is known, but not permitted.
    Forbidden = "forbidden", FORBIDDEN, "Not allowed";
    /// The password that the caller has to repeat is wrong.
    WrongPassword = "wrong-password", FORBIDDEN, "The password is wrong";
    /// Verifying an address requires the password of the account, or a new one.
    PasswordRequired = "password-required", FORBIDDEN, "The password of the account is needed";
    /// The caller must verify the address first.
    EmailNotVerified = "email-not-verified", FORBIDDEN, "The e-mail address is not verified";
    /// Absent, or not visible to the caller.
    NotFound = "not-found", NOT_FOUND, "Not found";
    /// The path exists, but not with this method.
    MethodNotAllowed = "method-not-allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The request did not arrive in time.
    RequestTimeout = "request-timeout", REQUEST_TIMEOUT, "The request took too long to arrive";
    /// Another user has the address.
    EmailTaken = "email-taken", CONFLICT, "The e-mail address is taken";
    /// A request with the same idempotency key is still running.
    IdempotencyKeyInFlight = "idempotency-key-in-flight", CONFLICT, "The same request is still running";
    /// The change would leave Roster without an administrator.
    LastAdmin = "last-admin", CONFLICT, "The last administrator must stay";
    /// A rule of the service does not permit it in the current state.
    NotPossible = "not-possible", CONFLICT, "Not possible as things are";
    /// A record in the log that the command depends on cannot be read.
    UnreadableRecord = "unreadable-record", CONFLICT, "A record in the log cannot be read";
    /// `If-Match` names an older revision.
    StaleRevision = "stale-revision", PRECONDITION_FAILED, "It has changed since";
    /// `If-None-Match` or `If-Match` does not hold.
    PreconditionFailed = "precondition-failed", PRECONDITION_FAILED, "A precondition does not hold";
    /// `If-Match` is missing, and the configuration requires it.
    PreconditionRequired = "precondition-required", PRECONDITION_REQUIRED, "If-Match is missing";
    /// The body is larger than allowed.
    BodyTooLarge = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The address is longer than allowed.
    UriTooLong = "uri-too-long", URI_TOO_LONG, "The address is too long";
    /// The body has a media type or encoding that the route does not accept.
    UnsupportedMediaType = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The media type is not supported";
    /// A member of the body breaks a rule; `errors[]` names each.
    ValidationFailed = "validation-failed", UNPROCESSABLE_ENTITY, "The body breaks a rule";
    /// The idempotency key was used for another request.
    IdempotencyKeyReused = "idempotency-key-reused", UNPROCESSABLE_ENTITY, "The idempotency key belongs to another request";
    /// The query is valid, but too much work.
    QueryTooBroad = "query-too-broad", UNPROCESSABLE_ENTITY, "The query is too broad";
    /// Too many attempts or requests.
    TooManyRequests = "too-many-requests", TOO_MANY_REQUESTS, "Too many attempts";
    /// A fault of Roster.
    Internal = "internal", INTERNAL_SERVER_ERROR, "Internal error";
    /// Too much load; nothing was done.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Too much to do right now";
    /// A dependency of Roster does not answer; nothing was done.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "Temporarily unavailable";
    /// The log has no room for commands that can wait; nothing was done.
    LogFull = "log-full", SERVICE_UNAVAILABLE, "There is no room in the log";
    /// It is unknown whether the command was stored.
    OutcomeUnknown = "outcome-unknown", SERVICE_UNAVAILABLE, "The outcome is unknown";
    /// The views have not reached the requested position.
    NotYet = "not-yet", SERVICE_UNAVAILABLE, "The position is not reached yet";
}

/// One broken rule of one member of the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    pub pointer: String,
    /// Stable kebab-case code of the rule.
    pub code: &'static str,
    /// The rule in words.
    pub detail: String,
}

/// A problem to answer with. `detail` is public text; internal causes are logged, never sent.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: Option<String>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
    /// The internal cause, for the log.
    cause: Option<Box<str>>,
    /// Boxed: few problems have one, and every fallible function returns a problem.
    rate_limit: Option<Box<RateLimit>>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
}

/// Wait time for a 429 or 503 without a better estimate.
const RETRY_AFTER_DEFAULT_S: u64 = 1;

impl Problem {
    /// A problem without any details.
    #[must_use]
    pub fn new(code: Code) -> Self {
        let retry = matches!(
            code.status(),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
        );
        Self {
            code,
            detail: None,
            errors: Vec::new(),
            retry_after_s: retry.then_some(RETRY_AFTER_DEFAULT_S),
            cause: None,
            rate_limit: None,
        }
    }

    /// A request that exceeded a limit, with the headers about it.
    #[must_use]
    pub fn too_many_requests(limit: RateLimit) -> Self {
        let seconds = limit.retry_after_s();
        Self { rate_limit: Some(Box::new(limit)), ..Self::new(Code::TooManyRequests) }
            .detail(format!("try again in {seconds} s"))
    }

    /// Sets when to retry, in seconds.
    #[must_use]
    pub const fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Adds public text about this occurrence.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// A body with broken rules.
    #[must_use]
    pub fn validation(errors: Vec<FieldError>) -> Self {
        Self { errors, ..Self::new(Code::ValidationFailed) }
    }

    /// A fault of Roster. The error chain goes to the log, once, and nothing of it to the client.
    #[must_use]
    pub fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Code::Internal).because(chain(error))
    }

    /// Adds the internal cause, for the one log line of this request.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<str>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The internal cause.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The broken rules of the body.
    #[must_use]
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The problem for a status that the framework answered with.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        Self::new(match status {
            StatusCode::NOT_FOUND => Code::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
            StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
            StatusCode::URI_TOO_LONG => Code::UriTooLong,
            status if status.is_client_error() => Code::BadRequest,
            _ => Code::Internal,
        })
    }

    /// The content of the body.
    pub(crate) fn content<'a>(&'a self, instance: Option<&'a str>) -> impl Serialize + 'a {
        self.body(instance)
    }

    fn body<'a>(&'a self, instance: Option<&'a str>) -> Body<'a> {
        Body {
            kind: format!("/docs/error-codes.md#{}", self.code.as_str()),
            title: self.code.title(),
            status: self.code.status().as_u16(),
            code: self.code.as_str(),
            detail: self.detail.as_deref(),
            errors: &self.errors,
            instance,
        }
    }

    /// The response, with the request id as `instance` if it is known.
    #[must_use]
    pub fn render(&self, instance: Option<&str>) -> Response {
        // Only strings and numbers: encoding cannot fail.
        let bytes = serde_json::to_vec(&self.body(instance)).unwrap_or_default();
        let mut response = (self.code.status(), bytes).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.code.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some(limit) = &self.rate_limit {
            headers.extend(limit.headers());
        }
        response
    }
}

/// The body of the response, for a problem that is part of another answer.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.body(None).serialize(serializer)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        // The outermost layer renders it again with the request id.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Code> for Problem {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

/// An error and all its causes, in one line for the log.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::http::{RATE_LIMIT, RATE_LIMIT_POLICY};

    /// The page that `type` links to has every code with its status, and no other.
    #[test]
    fn the_page_of_error_codes_and_the_table_are_one() {
        let page = include_str!("../../docs/error-codes.md");
        let documented: Vec<(&str, &str)> = page
            .split("\n## ")
            .skip(1)
            .map(|section| {
                let (code, text) = section.split_once('\n').unwrap();
                (code, text.get(..3).unwrap())
            })
            .collect();
        let table: Vec<(&str, String)> = Code::ALL
            .iter()
            .map(|code| (code.as_str(), code.status().as_u16().to_string()))
            .collect();
        let table: Vec<(&str, &str)> = table.iter().map(|(c, s)| (*c, s.as_str())).collect();
        assert_eq!(documented, table);
    }

    #[test]
    fn a_429_and_a_503_say_when_to_come_back_and_a_401_how_to_come_in() {
        for code in Code::ALL {
            let response = Problem::new(*code).into_response();
            let has = |name| response.headers().contains_key(name);
            let later = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
            assert_eq!(has(RETRY_AFTER), later.contains(&code.status()));
            assert_eq!(has(WWW_AUTHENTICATE), code.status() == StatusCode::UNAUTHORIZED);
            assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
            assert_eq!(response.status(), code.status());
        }
    }

    #[test]
    fn a_limit_is_told_in_every_field_also_when_it_is_rendered_again() {
        let limit = RateLimit {
            policy: "password",
            quota: 5,
            window: Duration::from_mins(15),
            retry_after: Duration::from_millis(6_500),
        };
        let problem = Problem::too_many_requests(limit);
        assert_eq!(problem.detail.as_deref(), Some("try again in 7 s"));
        for response in [problem.clone().into_response(), problem.render(Some("id"))] {
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[RETRY_AFTER], "7");
            assert_eq!(response.headers()[RATE_LIMIT], "\"password\";r=0;t=7");
            assert_eq!(response.headers()[RATE_LIMIT_POLICY], "\"password\";q=5;w=900");
        }
    }
}
