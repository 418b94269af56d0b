//! Reading a request body: exact media type, a bound on size and time, strict JSON, every broken rule
//! reported at once.

use std::fmt;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use tokio::time::{Instant, timeout_at};

use crate::problem::{Code, FieldError, Problem};

/// Largest body of a command in bytes: 4 KiB of metadata, names and a password, escaped at their worst.
pub const BODY_BYTES_MAX: usize = 32 * 1024;
/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// Media type of a merge patch (RFC 7396).
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of lines of JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// Largest body of lines in bytes.
pub const LINES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is still read beyond a bound, so that the client sees the answer and not a broken pipe.
const DRAIN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What is taken of a body.
struct Bounds {
    bytes_max: usize,
    /// Time it may take to arrive.
    timeout: Duration,
}

const COMMAND: Bounds = Bounds { bytes_max: BODY_BYTES_MAX, timeout: Duration::from_secs(10) };
const LINES: Bounds = Bounds { bytes_max: LINES_BYTES_MAX, timeout: Duration::from_secs(120) };

/// A JSON object as `application/json`.
#[derive(Debug)]
pub struct JsonObject(pub Object);

/// A merge patch (RFC 7396) as `application/merge-patch+json` or `application/json`.
#[derive(Debug)]
pub struct MergePatch(pub Object);

/// The bytes of a posted form, as `application/x-www-form-urlencoded`.
#[derive(Debug)]
pub struct Form(pub Bytes);

/// Lines of JSON as `application/x-ndjson`, as they came.
#[derive(Debug)]
pub struct Lines(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Lines {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_media_type(request.headers(), &[NDJSON])?;
        collect(request.into_body(), &LINES).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        check_media_type(request.headers(), &["application/x-www-form-urlencoded"])?;
        collect(request.into_body(), &COMMAND).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonObject {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read(request, &[JSON]).await.map(Self)
    }
}

impl<S: Send + Sync> FromRequest<S> for MergePatch {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read(request, &[MERGE_PATCH, JSON]).await.map(Self)
    }
}

/// Reads a JSON object as `application/json`, or nothing: no body, blanks, `null`, an empty object. What says nothing
/// needs no media type.
///
/// # Errors
/// Those of an object that must be there.
pub async fn optional_object(headers: &HeaderMap, body: Body) -> Result<Option<Object>, Problem> {
    let bytes = collect(body, &COMMAND).await?;
    if says_nothing(&bytes) {
        return Ok(None);
    }
    match Object::parse(&bytes) {
        Ok(object) if object.members.is_empty() => Ok(None),
        parsed => check_media_type(headers, &[JSON]).and(parsed).map(Some),
    }
}

async fn read(request: Request, accepted: &[&str]) -> Result<Object, Problem> {
    check_media_type(request.headers(), accepted)?;
    let bytes = collect(request.into_body(), &COMMAND).await?;
    Object::parse(&bytes)
}

fn check_media_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Problem> {
    let refused = || {
        Problem::new(Code::UnsupportedMediaType)
            .detail(format!("send {}, not compressed", accepted.join(" or ")))
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(content_type), None) = (types.next(), types.next()) else { return Err(refused()) };
    let text = content_type.to_str().map_err(|_| refused())?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    // The one parameter with a meaning we could get wrong. JSON is UTF-8 (RFC 8259 8.1).
    let charset_fits = parts.all(|p| {
        p.split_once('=').is_none_or(|(name, value)| {
            !name.trim().eq_ignore_ascii_case("charset")
                || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
    });
    if !charset_fits || !accepted.iter().any(|a| a.eq_ignore_ascii_case(essence)) {
        return Err(refused());
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(refused()),
        _ => Ok(()),
    }
}

async fn collect(mut body: Body, bounds: &Bounds) -> Result<Bytes, Problem> {
    let deadline = Instant::now() + bounds.timeout;
    let mut bytes = BytesMut::new();
    let mut seen = 0_usize;
    loop {
        match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Problem::new(Code::RequestTimeout)),
            Ok(Some(Err(_))) => {
                return Err(Problem::new(Code::BadRequest).detail("the body broke off"));
            }
            Ok(None) => break,
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                seen += data.len();
                if seen <= bounds.bytes_max {
                    bytes.extend_from_slice(&data);
                } else if seen > bounds.bytes_max + DRAIN_BYTES_MAX {
                    break;
                }
            }
        }
    }
    if seen > bounds.bytes_max {
        return Err(Problem::new(Code::BodyTooLarge)
            .detail(format!("at most {} bytes are accepted", bounds.bytes_max)));
    }
    Ok(bytes.freeze())
}

/// Lets a request pass that has no body, or one that says nothing: blanks, `null` or an empty object, as some
/// clients send where there is nothing to say.
///
/// # Errors
/// That of the body it has: it is no JSON, or has members that nobody asked for.
pub async fn check_absent(body: Body) -> Result<(), Problem> {
    let bytes = collect(body, &COMMAND).await?;
    if says_nothing(&bytes) { Ok(()) } else { Object::parse(&bytes)?.finish(|| Some(())) }
}

/// Whether a body has nothing in it.
fn says_nothing(bytes: &[u8]) -> bool {
    matches!(without_mark(bytes).trim_ascii(), b"" | b"null")
}

/// A text without the byte order mark that some programs write in front of it. Readers may pass over it (RFC 8259 8.1).
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Why a body is not read. A number that nothing here can hold is sound JSON, and breaks a rule; the parser has no other
/// word for it than its text.
fn unread(error: &serde_json::Error) -> Problem {
    let detail = error.to_string();
    if !detail.starts_with("number out of range") {
        return Problem::new(Code::MalformedBody).detail(detail);
    }
    let code = "number-range";
    Problem::validation(vec![FieldError { pointer: String::new(), code, detail }])
}

/// Why a value is refused: a stable code and the rule in words.
pub type Fault = (&'static str, String);

/// The members of a body while they are taken out and checked. What is left over at the end was not
/// asked for and is refused.
#[derive(Debug)]
pub struct Object {
    members: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Object {
    /// Parses strict JSON: one object, no duplicate member at any depth, valid UTF-8, no lone surrogate,
    /// nothing behind it, at most 128 levels.
    ///
    /// # Errors
    /// `malformed-body` with the place of the fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        let Strict(value) = serde_json::from_slice(without_mark(bytes)).map_err(|e| unread(&e))?;
        match value {
            Value::Object(members) => Ok(Self { members, errors: Vec::new() }),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                Err(Problem::new(Code::MalformedBody).detail("the body must be an object"))
            }
        }
    }

    /// All members, for a fingerprint of the request.
    #[must_use]
    pub const fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// A member that must be there.
    pub fn required<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, Fault>,
    ) -> Option<T> {
        if !self.members.contains_key(name) {
            self.refuse(name, ("required", "must be given".to_owned()));
        }
        self.optional(name, parse)
    }

    /// A member that may be absent.
    pub fn optional<T>(
        &mut self,
        name: &str,
        parse: impl FnOnce(Value) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.members.remove(name)?;
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(fault) => {
                self.refuse(name, fault);
                None
            }
        }
    }

    /// Refuses a member that was taken out, for a reason that took longer to find.
    pub fn refuse(&mut self, name: &str, (code, detail): Fault) {
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.errors.push(FieldError { pointer, code, detail });
    }

    /// Ends the reading: with nothing refused and nothing left over, `build` puts the command together.
    ///
    /// # Errors
    /// `validation-failed` with everything that was found.
    pub fn finish<T>(mut self, build: impl FnOnce() -> Option<T>) -> Result<T, Problem> {
        let unknown: Vec<String> = self.members.keys().take(16).cloned().collect();
        for name in unknown {
            let short: String = name.chars().take(64).collect();
            self.refuse(&short, ("unknown-member", "is not a member of this body".to_owned()));
        }
        if self.errors.is_empty()
            && let Some(built) = build()
        {
            return Ok(built);
        }
        Err(Problem::validation(self.errors))
    }
}

/// Takes a string.
///
/// # Errors
/// `type` when it is something else.
pub fn string(value: Value) -> Result<String, Fault> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(("type", "must be a string".to_owned()))
        }
    }
}

/// Takes a string or `null`.
///
/// # Errors
/// `type` when it is something else.
pub fn nullable_string(value: Value) -> Result<Option<String>, Fault> {
    if value.is_null() { Ok(None) } else { string(value).map(Some) }
}

/// A JSON value without duplicate members. `serde_json::Value` keeps the last of them silently, so two
/// readers of one body could see two different requests.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let Strict(value) = map.next_value()?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_strict_json_is_malformed() {
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"null",
            b"{} x",
            br#"{"a":1,"a":2}"#,
            br#"{"email":1,"\u0065mail":2}"#,
            br#"{"m":{"x":{"a":1,"a":1}}}"#,
            br#"{"a":"\ud800"}"#,
            b"{\"a\":\"\xff\"}",
            br#"{a:1}"#,
        ] {
            let problem = Object::parse(body).unwrap_err();
            assert_eq!(problem.code(), Code::MalformedBody, "{}", String::from_utf8_lossy(body));
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(Object::parse(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_number_that_is_too_large_breaks_a_rule() {
        let problem = Object::parse(br#"{"metadata":{"v":1e400}}"#).unwrap_err();
        assert_eq!(problem.code(), Code::ValidationFailed, "{problem:?}");
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let object = Object::parse(b"\xef\xbb\xbf{\"a\": 1}").unwrap();
        assert_eq!(object.members().len(), 1);
    }

    #[tokio::test]
    async fn a_body_that_says_nothing_is_none() {
        for body in ["", " \r\n", "null", "{}", " { } ", "\u{feff}{}"] {
            let given = optional_object(&HeaderMap::new(), Body::from(body)).await;
            assert!(matches!(given, Ok(None)), "{body:?} {given:?}");
            assert!(check_absent(Body::from(body)).await.is_ok(), "{body:?}");
        }
        for (body, code) in [
            ("{\"a\": 1}", Code::ValidationFailed),
            ("[]", Code::MalformedBody),
            ("garbage", Code::MalformedBody),
        ] {
            assert_eq!(check_absent(Body::from(body)).await.unwrap_err().code(), code, "{body}");
        }
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let mut object = Object::parse(br#"{"name": 7, "x/y": 1}"#).unwrap();
        let name = object.optional("name", string);
        let email = object.required("email", string);
        let problem = object.finish(|| Some((name?, email?))).unwrap_err();
        let body = format!("{problem:?}");
        for part in ["/name", "\"type\"", "/email", "\"required\"", "/x~1y", "\"unknown-member\""] {
            assert!(body.contains(part), "{part} in {body}");
        }
    }
}
