//! Reads request bodies: exact media type, limits on size and time, strict JSON.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use deserr::Deserr;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde_json::{Map, Value};
use tokio::time::{Instant, timeout_at};

use super::strict_json::{is_empty, parse_object};
use super::typed_body::{Faults, Parsed};
use crate::problem::{Code, Problem};

/// Largest body of a command in bytes: 4 KiB of metadata, names and a password, escaped at their worst.
pub const BODY_BYTES_MAX: usize = 32 * 1024;
/// Media type of JSON.
pub(crate) const JSON: &str = "application/json";
/// Media type of a merge patch (RFC 7396).
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of newline-delimited JSON.
pub const NDJSON: &str = "application/x-ndjson";
/// Largest newline-delimited body in bytes.
pub const LINES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that are still read beyond a limit, so that the client sees the answer and not a broken pipe.
const DRAIN_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The body of a call that takes none.
#[derive(Debug, Deserr)]
#[deserr(error = Faults, deny_unknown_fields)]
struct NoMembers {}

/// Limits of a body.
struct Bounds {
    bytes_max: usize,
    /// Time limit for its arrival.
    timeout: Duration,
}

const COMMAND: Bounds = Bounds { bytes_max: BODY_BYTES_MAX, timeout: Duration::from_secs(10) };
const LINES: Bounds = Bounds { bytes_max: LINES_BYTES_MAX, timeout: Duration::from_secs(120) };

/// The bytes of a posted form, as `application/x-www-form-urlencoded`.
#[derive(Debug)]
pub struct Form(pub Bytes);

/// Newline-delimited JSON as `application/x-ndjson`, unparsed.
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

/// Reads a JSON object as `application/json`, or nothing: no body, blanks, `null`, an empty object. None of these needs
/// a media type.
pub(super) async fn read_optional_object(
    headers: &HeaderMap,
    body: Body,
) -> Result<Option<Map<String, Value>>, Problem> {
    let bytes = collect(body, &COMMAND).await?;
    if is_empty(&bytes) {
        return Ok(None);
    }
    match parse_object(&bytes) {
        Ok(members) if members.is_empty() => Ok(None),
        parsed => check_media_type(headers, &[JSON]).and(parsed).map(Some),
    }
}

/// Reads one JSON object of one of the accepted media types.
pub(super) async fn read_object(
    request: Request,
    accepted: &[&str],
) -> Result<Map<String, Value>, Problem> {
    check_media_type(request.headers(), accepted)?;
    let bytes = collect(request.into_body(), &COMMAND).await?;
    parse_object(&bytes)
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
    // The only parameter that could be misread. JSON is UTF-8 (RFC 8259 8.1).
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
                return Err(Problem::new(Code::BadRequest).detail("the body ended early"));
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

/// Accepts a request without a body, or with an empty one: blanks, `null` or an empty object, which some clients send.
///
/// # Errors
/// The body is not JSON, or has members.
pub async fn check_absent(body: Body) -> Result<(), Problem> {
    let bytes = collect(body, &COMMAND).await?;
    if is_empty(&bytes) {
        Ok(())
    } else {
        Parsed::<NoMembers>::from_slice(&bytes)?.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_says_nothing_is_none() {
        for body in ["", " \r\n", "null", "{}", " { } ", "\u{feff}{}"] {
            let given = read_optional_object(&HeaderMap::new(), Body::from(body)).await;
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
}
