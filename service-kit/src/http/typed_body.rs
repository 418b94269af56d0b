//! Bodies with a type: one struct is parsed and described, beside the handler that takes it.
//!
//! A body derives `deserr::Deserr` with [`Faults`] as its error and `utoipa::ToSchema`. Parsing reports every broken
//! rule in one answer, each with the JSON pointer of its member: wrong types, missing and unknown members, and the
//! rules of the domain (`#[deserr(try_from(String) = parse -> Fault)]`). A rule that depends on settings or on other
//! members is checked by the handler, which adds what it finds with [`Parsed::reject`] before [`Parsed::finish`].
//!
//! `Option` with `#[deserr(default)]` is a member that may be absent or `null`. Where the two differ, as in a merge
//! patch, the member is an `Option<Option<T>>` with a function of its own: absent is `None`.

use std::ops::ControlFlow;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use deserr::{
    DeserializeError, Deserr, ErrorKind, IntoValue, MergeWithError, ValueKind, ValuePointerRef,
};
use http::HeaderMap;
use serde_json::{Map, Value};

use super::body::{JSON, MERGE_PATCH, read_object, read_optional_object};
use crate::problem::{FieldError, Problem};

/// Unknown members that one answer names.
const UNKNOWN_MAX: usize = 16;
/// Characters of an unknown member's name that an answer repeats.
const UNKNOWN_CHARS_MAX: usize = 64;
/// Code of an unknown member.
const UNKNOWN: &str = "unknown-member";

/// Why a value is rejected: a stable code and the rule in words.
pub type Fault = (&'static str, String);

/// Every rule that a body breaks.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    fn add(mut self, pointer: String, (code, detail): Fault) -> ControlFlow<Self, Self> {
        self.0.push(FieldError { pointer, code, detail });
        ControlFlow::Continue(self)
    }
}

impl MergeWithError<Self> for Faults {
    fn merge(faults: Option<Self>, other: Self, _: ValuePointerRef<'_>) -> ControlFlow<Self, Self> {
        let mut faults = faults.unwrap_or_default();
        faults.0.extend(other.0);
        ControlFlow::Continue(faults)
    }
}

impl MergeWithError<Fault> for Faults {
    fn merge(
        faults: Option<Self>,
        fault: Fault,
        at: ValuePointerRef<'_>,
    ) -> ControlFlow<Self, Self> {
        faults.unwrap_or_default().add(pointer(at), fault)
    }
}

impl DeserializeError for Faults {
    fn error<V: IntoValue>(
        faults: Option<Self>,
        error: ErrorKind<'_, V>,
        at: ValuePointerRef<'_>,
    ) -> ControlFlow<Self, Self> {
        let faults = faults.unwrap_or_default();
        match error {
            ErrorKind::MissingField { field } => {
                faults.add(pointer(at.push_key(field)), ("required", "must be given".to_owned()))
            }
            ErrorKind::UnknownKey { key, .. } => {
                if faults.0.iter().filter(|fault| fault.code == UNKNOWN).count() == UNKNOWN_MAX {
                    return ControlFlow::Continue(faults);
                }
                let name: String = key.chars().take(UNKNOWN_CHARS_MAX).collect();
                let what = "is not a member of this body".to_owned();
                faults.add(pointer(at.push_key(&name)), (UNKNOWN, what))
            }
            ErrorKind::UnknownValue { accepted, .. } => {
                let what = format!("must be one of {}", accepted.join(", "));
                faults.add(pointer(at), ("unknown-value", what))
            }
            ErrorKind::IncorrectValueKind { accepted, .. } => {
                let kinds: Vec<&str> = accepted.iter().map(kind).collect();
                faults.add(pointer(at), ("type", format!("must be {}", kinds.join(" or "))))
            }
            ErrorKind::BadSequenceLen { expected, .. } => {
                faults.add(pointer(at), ("type", format!("must have {expected} items")))
            }
            ErrorKind::Unexpected { msg } => faults.add(pointer(at), ("type", msg)),
        }
    }
}

const fn kind(kind: &ValueKind) -> &'static str {
    match kind {
        ValueKind::Null => "null",
        ValueKind::Boolean => "true or false",
        ValueKind::Integer => "a whole number, not negative",
        ValueKind::NegativeInteger => "a negative whole number",
        ValueKind::Float => "a number",
        ValueKind::String => "a string",
        ValueKind::Sequence => "an array",
        ValueKind::Map => "an object",
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(at: ValuePointerRef<'_>) -> String {
    match at {
        ValuePointerRef::Origin => String::new(),
        ValuePointerRef::Key { key, prev } => {
            format!("{}/{}", pointer(*prev), key.replace('~', "~0").replace('/', "~1"))
        }
        ValuePointerRef::Index { index, prev } => format!("{}/{index}", pointer(*prev)),
    }
}

/// A body after parsing, with the faults that were found so far.
#[derive(Debug)]
pub struct Parsed<T> {
    raw: Value,
    value: Option<T>,
    faults: Faults,
}

impl<T: Deserr<Faults>> Parsed<T> {
    fn of(members: Map<String, Value>) -> Self {
        let raw = Value::Object(members);
        match deserr::deserialize(raw.clone()) {
            Ok(value) => Self { raw, value: Some(value), faults: Faults::default() },
            Err(faults) => Self { raw, value: None, faults },
        }
    }

    /// The bytes as strict JSON.
    ///
    /// # Errors
    /// `malformed-body` with the line and column of the fault; `validation-failed` for a number that does not fit.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Problem> {
        super::strict_json::parse_object(bytes).map(Self::of)
    }

    /// A member as it was sent, for a rule that has to look at it before the whole body is known to be valid.
    #[must_use]
    pub fn member(&self, pointer: &str) -> Option<&Value> {
        self.raw.pointer(pointer)
    }

    /// The body as text without the members that are secret: what an idempotency key is bound to.
    #[must_use]
    pub fn fingerprint(&self, secrets: &[&str]) -> String {
        let members = self.raw.as_object().into_iter().flatten();
        let open: Map<String, Value> = members
            .filter(|(name, _)| !secrets.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        Value::Object(open).to_string()
    }

    /// Adds a fault that parsing alone cannot find.
    pub fn reject(&mut self, pointer: &str, (code, detail): Fault) {
        self.faults.0.push(FieldError { pointer: pointer.to_owned(), code, detail });
    }

    /// The value, if no rule is broken.
    ///
    /// # Errors
    /// `validation-failed` with every fault.
    pub fn finish(self) -> Result<T, Problem> {
        match self.value {
            Some(value) if self.faults.0.is_empty() => Ok(value),
            Some(_) | None => Err(Problem::validation(self.faults.0)),
        }
    }
}

/// A body as `application/json`.
#[derive(Debug)]
pub struct JsonBody<T>(pub Parsed<T>);

/// A merge patch (RFC 7396) as `application/merge-patch+json` or `application/json`.
#[derive(Debug)]
pub struct PatchBody<T>(pub Parsed<T>);

impl<S: Send + Sync, T: Deserr<Faults>> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_object(request, &[JSON]).await.map(|members| Self(Parsed::of(members)))
    }
}

impl<S: Send + Sync, T: Deserr<Faults>> FromRequest<S> for PatchBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_object(request, &[MERGE_PATCH, JSON]).await.map(|members| Self(Parsed::of(members)))
    }
}

/// Reads a body as `application/json` that may be left out: no body, blanks, `null` and an empty object are none, and
/// need no media type.
///
/// # Errors
/// Those of a body that must be there.
pub async fn optional_body<T: Deserr<Faults>>(
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<Parsed<T>>, Problem> {
    Ok(read_optional_object(headers, body).await?.map(Parsed::of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;

    #[derive(Debug, PartialEq, Eq, Deserr)]
    #[deserr(error = Faults, deny_unknown_fields)]
    struct Price {
        amount: u64,
    }

    #[derive(Debug, PartialEq, Eq, Deserr)]
    #[deserr(error = Faults, deny_unknown_fields)]
    struct Product {
        #[deserr(try_from(String) = short -> Fault)]
        name: String,
        #[deserr(default, try_from(Option<String>) = nullable -> Fault)]
        note: Option<Option<String>>,
        price: Price,
        #[deserr(default)]
        tags: Option<Vec<String>>,
    }

    fn short(text: String) -> Result<String, Fault> {
        if text.len() > 5 { Err(("too-long", "must be short".to_owned())) } else { Ok(text) }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form of a function that parses a member")]
    fn nullable(text: Option<String>) -> Result<Option<Option<String>>, Fault> {
        Ok(Some(text))
    }

    fn product(body: &str) -> Result<Product, Problem> {
        Parsed::<Product>::from_slice(body.as_bytes())?.finish()
    }

    #[test]
    fn reports_every_fault_with_its_pointer() {
        let body =
            r#"{"name": "too long", "price": {"amount": -1, "x/y": 1}, "tags": ["a", 7], "~": 1}"#;
        let problem = product(body).unwrap_err();
        assert_eq!(problem.code(), Code::ValidationFailed);
        let mut found: Vec<(String, &str)> =
            problem.errors().iter().map(|e| (e.pointer.clone(), e.code)).collect();
        found.sort();
        let expected = [
            ("/name", "too-long"),
            ("/price/amount", "type"),
            ("/price/x~1y", "unknown-member"),
            ("/tags/1", "type"),
            ("/~0", "unknown-member"),
        ];
        assert_eq!(found, expected.map(|(pointer, code)| (pointer.to_owned(), code)));
        let problem = product("{}").unwrap_err();
        let missing: Vec<&str> = problem.errors().iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!(missing, ["/name", "/price"]);
    }

    #[test]
    fn tells_an_absent_member_from_null() {
        let with =
            |note| Product { name: "a".to_owned(), note, price: Price { amount: 1 }, tags: None };
        for (member, note) in [
            ("", None),
            (r#", "note": null"#, Some(None)),
            (r#", "note": "b""#, Some(Some("b".to_owned()))),
        ] {
            let body = format!(r#"{{"name": "a", "price": {{"amount": 1}}{member}}}"#);
            assert_eq!(product(&body).unwrap(), with(note), "{body}");
        }
    }

    #[test]
    fn names_a_bounded_part_of_the_unknown_members() {
        let members: Vec<String> =
            (0..40).map(|n| format!("\"{}{n}\": 1", "x".repeat(80))).collect();
        let problem = product(&format!("{{{}}}", members.join(","))).unwrap_err();
        let unknown = problem.errors().iter().filter(|fault| fault.code == UNKNOWN);
        assert_eq!(unknown.clone().count(), UNKNOWN_MAX);
        assert!(unknown.clone().all(|fault| fault.pointer.len() == 1 + UNKNOWN_CHARS_MAX));
    }

    #[test]
    fn a_fingerprint_leaves_secrets_out() {
        let parsed = Parsed::<Product>::from_slice(br#"{"name": "a", "secret": "b"}"#).unwrap();
        assert_eq!(parsed.fingerprint(&["secret"]), r#"{"name":"a"}"#);
    }

    #[test]
    fn a_rule_of_the_handler_is_reported_with_the_others() {
        let mut parsed =
            Parsed::<Product>::from_slice(br#"{"name": 7, "price": {"amount": 9}}"#).unwrap();
        assert_eq!(parsed.member("/price/amount"), Some(&Value::from(9)));
        parsed.reject("/price/amount", ("too-large", "must be at most 8".to_owned()));
        assert_eq!(parsed.finish().unwrap_err().errors().len(), 2);
    }
}
