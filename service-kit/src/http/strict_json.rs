//! Strict JSON: one object, no duplicate members at any depth, no byte that two readers could understand differently.
//!
//! `serde_json::Value` keeps the last of two members with one name silently, so two readers of one body could see
//! two different requests.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::{Code, FieldError, Problem};

/// Parses one object: no duplicate member at any depth, valid UTF-8, no lone surrogate, nothing after it, at most
/// 128 levels.
///
/// # Errors
/// `malformed-body` with the line and column of the fault; `validation-failed` for a number that does not fit.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let parsed = serde_json::from_slice(without_mark(bytes));
    let Strict(value) = parsed.map_err(|error| rejected(&error))?;
    match value {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Problem::new(Code::MalformedBody).detail("the body must be an object"))
        }
    }
}

/// Whether a body is empty, blank or `null`.
pub(super) fn is_empty(bytes: &[u8]) -> bool {
    matches!(without_mark(bytes).trim_ascii(), b"" | b"null")
}

/// A text without the byte order mark that some programs write in front of it. Readers may ignore it (RFC 8259 8.1).
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// A number that does not fit into 64 bits is valid JSON and breaks a rule; the parser tells it apart only by its text.
fn rejected(error: &serde_json::Error) -> Problem {
    let detail = error.to_string();
    if !detail.starts_with("number out of range") {
        return Problem::new(Code::MalformedBody).detail(detail);
    }
    let code = "number-range";
    Problem::validation(vec![FieldError { pointer: String::new(), code, detail }])
}

/// A JSON value without duplicate members.
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
    fn rejects_what_is_not_strict_json() {
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
            let problem = parse_object(body).unwrap_err();
            assert_eq!(problem.code(), Code::MalformedBody, "{}", String::from_utf8_lossy(body));
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
        assert!(parse_object(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_number_that_does_not_fit_breaks_a_rule() {
        let problem = parse_object(br#"{"metadata":{"v":1e400}}"#).unwrap_err();
        assert_eq!(problem.code(), Code::ValidationFailed, "{problem:?}");
    }

    #[test]
    fn ignores_a_byte_order_mark() {
        assert_eq!(parse_object(b"\xef\xbb\xbf{\"a\": 1}").unwrap().len(), 1);
    }
}
