//! Values that are validated once, at the boundary, and trusted from there on.

use events::{Metadata, is_role, is_seen};
use serde_json::{Number, Value};

/// A broken rule: a stable code and the rule in words.
pub type Violation = (&'static str, String);

/// Longest name in code points.
const FULL_NAME_CHARS_MAX: usize = 200;
/// Most roles of one user.
const ROLES_MAX: usize = 16;
/// Largest metadata as JSON, in bytes.
const METADATA_BYTES_MAX: usize = 4096;
/// Deepest metadata, in levels.
const METADATA_DEPTH_MAX: usize = 16;

/// A display name: 1..=200 code points, at least one of them visible, without control characters. Blanks at its ends
/// are trimmed; the rest is kept verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullName(String);

impl FullName {
    /// Checks a name.
    pub fn parse(text: String) -> Result<Self, Violation> {
        if !text.chars().any(is_seen) {
            return Err(("blank", "must not be blank; null removes it".to_owned()));
        }
        // Invisible characters are allowed: a joiner at the end of a word shapes it.
        let text = text.trim().to_owned();
        if text.chars().count() > FULL_NAME_CHARS_MAX {
            return Err(("too-long", format!("has more than {FULL_NAME_CHARS_MAX} characters")));
        }
        if text.chars().any(char::is_control) {
            return Err(("control-character", "contains a control character".to_owned()));
        }
        Ok(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

/// Roles: `[a-z][a-z0-9-]{1,31}` each, at least one, sorted, without repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles(Vec<String>);

impl Roles {
    /// Checks a list of roles.
    pub fn parse(mut roles: Vec<String>) -> Result<Self, Violation> {
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() || roles.len() > ROLES_MAX {
            return Err(("count", format!("must be 1..{ROLES_MAX} roles")));
        }
        if roles.iter().all(|role| is_role(role)) {
            Ok(Self(roles))
        } else {
            Err(("format", "a role is [a-z][a-z0-9-]{1,31}".to_owned()))
        }
    }

    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    pub fn contain(&self, role: &str) -> bool {
        self.0.iter().any(|one| one == role)
    }

    pub fn into_vec(self) -> Vec<String> {
        self.0
    }
}

/// Validates metadata: an object of at most 4 KiB, numbers within signed 64 bits, no NUL in names.
pub fn parse_metadata(value: Value) -> Result<Metadata, Violation> {
    let members = match value {
        Value::Null => Metadata::new(),
        Value::Object(members) => members,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(("type", "must be an object".to_owned()));
        }
    };
    check_metadata(members)
}

fn check_metadata(members: Metadata) -> Result<Metadata, Violation> {
    let value = Value::Object(members.clone());
    check_value(&value, METADATA_DEPTH_MAX)?;
    if value.to_string().len() > METADATA_BYTES_MAX {
        return Err(("too-long", format!("is larger than {METADATA_BYTES_MAX} bytes as JSON")));
    }
    Ok(members)
}

fn check_value(value: &Value, depth: usize) -> Result<(), Violation> {
    let Some(below) = depth.checked_sub(1) else {
        return Err(("too-deep", format!("has more than {METADATA_DEPTH_MAX} levels")));
    };
    match value {
        Value::Object(members) => members.iter().try_for_each(|(name, value)| {
            if name.contains('\0') {
                return Err(("nul", "a name contains NUL".to_owned()));
            }
            check_value(value, below)
        }),
        Value::Array(items) => items.iter().try_for_each(|item| check_value(item, below)),
        Value::Number(number) if !in_range(number) => {
            Err(("number-range", "a number is beyond 2^63".to_owned()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Whether every reader gets a number back unchanged: a 64-bit integer, or a fraction of that size. A longer integer
/// has already lost digits when it arrives here.
fn in_range(number: &Number) -> bool {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    number.is_i64() || number.as_f64().is_some_and(|value| value.abs() < BEYOND)
}

/// Applies a merge patch (RFC 7396) to metadata and validates the result.
pub fn merge_metadata(current: &Metadata, patch: &Value) -> Result<Metadata, Violation> {
    let mut merged = Value::Object(current.clone());
    merge(&mut merged, patch);
    parse_metadata(merged)
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Metadata::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names() {
        assert!(FullName::parse("Ada Lovelace".to_owned()).is_ok());
        assert!(FullName::parse("日".repeat(200)).is_ok());
        for (text, code) in [
            (String::new(), "blank"),
            ("  ".to_owned(), "blank"),
            ("\u{200b}".to_owned(), "blank"),
            ("\u{3164}\u{2800} \u{feff}".to_owned(), "blank"),
            ("\u{301} \u{93f}".to_owned(), "blank"),
            ("a\0b".to_owned(), "control-character"),
            ("a\nb".to_owned(), "control-character"),
            ("日".repeat(201), "too-long"),
        ] {
            assert_eq!(FullName::parse(text).unwrap_err().0, code);
        }
    }

    #[test]
    fn blanks_at_the_ends_of_a_name_are_cut_off() {
        let name = FullName::parse(" \u{2003}Ada  Lovelace ".to_owned()).unwrap();
        assert_eq!(name.as_str(), "Ada  Lovelace");
    }

    #[test]
    fn roles_are_sorted_and_unique() {
        let roles = |list: &[&str]| Roles::parse(list.iter().map(|r| (*r).to_owned()).collect());
        assert_eq!(roles(&["user", "admin", "user"]).unwrap().into_vec(), ["admin", "user"]);
        for bad in [&["Admin"][..], &["a"], &["1a"], &["a b"], &["ä-rolle"], &[]] {
            assert!(roles(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metadata_is_bounded() {
        assert!(parse_metadata(json!({"a": [1, i64::MIN, i64::MAX, 1.5, null, "\u{0}"]})).is_ok());
        assert_eq!(parse_metadata(json!(null)).unwrap(), Metadata::new());
        for (value, code) in [
            (json!([]), "type"),
            (json!({"a\u{0}": 1}), "nul"),
            (json!({"a": {"b": [9_223_372_036_854_775_808_u64]}}), "number-range"),
            (
                serde_json::from_str(r#"{"a": 123456789012345678901234567890}"#).unwrap(),
                "number-range",
            ),
            (json!({"a": -1e300}), "number-range"),
            (json!({"a": "x".repeat(4096)}), "too-long"),
        ] {
            assert_eq!(parse_metadata(value).unwrap_err().0, code);
        }
        let deep = (0..20).fold(json!(1), |inner, _| json!({"a": inner}));
        assert_eq!(parse_metadata(deep).unwrap_err().0, "too-deep");
    }

    /// The table of RFC 7396 appendix A, where both sides are objects.
    #[test]
    fn merging_follows_the_rfc() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
            (json!({"a":1}), json!(null), json!({})),
        ] {
            let Value::Object(target) = target else { panic!("an object") };
            assert_eq!(Value::Object(merge_metadata(&target, &patch).unwrap()), result);
        }
    }
}
