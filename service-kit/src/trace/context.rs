//! W3C Trace Context (Level 1, and what Level 2 adds for readers): `traceparent` and `tracestate`.

use std::fmt;

use http::{HeaderMap, HeaderName};

/// The trace a request belongs to, and the span that caused it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What the systems of a trace pass on to each other.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` that is passed on; the standard asks for at least 512.
const TRACESTATE_BYTES_MAX: usize = 512;
/// The flag of the caller that records its span.
const SAMPLED: u8 = 0x01;

/// Where in which trace a span stands. Never with an id of zeros alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace_id: u128,
    pub(super) span_id: u64,
    pub(super) flags: u8,
    pub(super) state: String,
}

impl TraceContext {
    /// The context a request came with; `None` when there is none, or none that is valid. An invalid
    /// `tracestate` takes only itself away.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut given = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (given.next(), given.next()) else { return None };
        let context = Self::parse(parent.to_str().ok()?)?;
        let lines = headers.get_all(TRACESTATE).iter().map(|line| line.to_str().ok());
        let state = lines.collect::<Option<Vec<_>>>().unwrap_or_default().join(",");
        Some(Self {
            state: if state.len() <= TRACESTATE_BYTES_MAX { state } else { String::new() },
            ..context
        })
    }

    /// Reads a `traceparent`. Of a later version its first four parts are understood, and its flags
    /// beyond the first are not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
        let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
        let more = parts.next().is_some();
        if version == 0xff || (version == 0 && more) || trace_id == 0 || span_id == 0 {
            return None;
        }
        let flags = if version == 0 { flags } else { flags & SAMPLED };
        Some(Self { trace_id, span_id, flags, state: String::new() })
    }

    /// The id of the trace, as it is written.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

/// As `traceparent`, in version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// So many digits, in lower case alone.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let sane = text.len() == digits
        && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if sane { u128::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_context_is_written_as_it_was_read() {
        for text in [GOOD, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"] {
            let context = TraceContext::parse(text).unwrap();
            assert_eq!(context.to_string(), text);
            assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_understood() {
        for text in [
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-the-future-has",
        ] {
            assert_eq!(TraceContext::parse(text).unwrap().to_string(), GOOD);
        }
    }

    #[test]
    fn what_is_not_valid_is_dropped() {
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(text), None, "{text:?}");
        }
    }

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = lines
            .iter()
            .map(|(name, text)| (name.clone(), HeaderValue::from_bytes(text.as_bytes()).unwrap()));
        pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
    }

    #[test]
    fn a_parent_stands_once_and_a_state_may_stand_in_several_lines() {
        let state = |lines: &[(HeaderName, &str)]| {
            TraceContext::of(&headers(lines)).map(|context| context.state)
        };
        let parent = (TRACEPARENT, GOOD);
        assert_eq!(state(&[]), None);
        assert_eq!(state(&[(TRACESTATE, "a=1")]), None);
        assert_eq!(state(&[parent.clone(), parent.clone()]), None);
        assert_eq!(state(std::slice::from_ref(&parent)).unwrap(), "");
        let two = [parent.clone(), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")];
        assert_eq!(state(&two).unwrap(), "a=1,b=2");
        let long = "a=".to_owned() + &"x".repeat(TRACESTATE_BYTES_MAX);
        assert_eq!(state(&[parent.clone(), (TRACESTATE, &long)]).unwrap(), "");
        assert_eq!(state(&[parent, (TRACESTATE, "a=\u{e4}")]).unwrap(), "");
    }
}
