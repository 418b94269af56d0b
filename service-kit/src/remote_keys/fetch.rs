//! One look at the server: what may be asked, and which answers hold keys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AGE, CACHE_CONTROL, HeaderMap};
use jsonwebtoken::DecodingKey;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use serde::Deserialize;

use super::KeySource;

/// Time for one answer, and for the connection.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer. A key takes 150 bytes.
const SET_BYTES_MAX: usize = 64 * 1024;
/// Most keys of a set, of whatever kind.
const KEYS_MAX: usize = 64;
/// Longest id of a key; ours have 43.
const KEY_ID_BYTES_MAX: usize = 128;
/// Bytes of an Ed25519 key.
const KEY_BYTES: usize = 32;
/// What an answer without `max-age` is taken for.
const FRESH_DEFAULT: Duration = Duration::from_secs(300);

/// A source of keys that cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No URL of a key set.
    #[error("{0:?} is not like https://HOST/.well-known/jwks.json")]
    Url(String),
    /// Whoever is on the way could give keys of their own.
    #[error(
        "the keys at {0} would come without TLS, so that anyone on the way could make tokens: use https://, \
         or allow plain HTTP where the network is trusted"
    )]
    Plain(String),
    /// The file with certificates cannot be read.
    #[error("cannot read the certificates in {path}")]
    Authority {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates are none, or TLS cannot be set up.
    #[error("cannot set up TLS to fetch keys")]
    Tls(#[source] reqwest::Error),
}

/// An answer without keys, or none.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or no answer in time.
    #[error("no answer")]
    Request(#[from] reqwest::Error),
    /// Another status than 200; a redirection is one of them.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// Not what a key set of Roster is.
    #[error("the answer {0}")]
    Content(&'static str),
}

/// What was fetched.
pub(super) struct Fetched {
    pub(super) keys: HashMap<String, Arc<DecodingKey>>,
    pub(super) fresh_for: Duration,
}

/// The server that has keys.
pub(super) struct Server {
    http: Client,
    url: Url,
}

impl Server {
    pub(super) fn new(source: &KeySource) -> Result<Self, SourceError> {
        let url = checked(source)?;
        let mut http = Client::builder()
            .timeout(FETCH_TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(Policy::none())
            // Where keys come from is a setting, and no variable of whoever starts the service.
            .no_proxy()
            .https_only(url.scheme() == "https")
            .user_agent(concat!("roster-service-kit/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &source.ca_file {
            let io = |source| SourceError::Authority { path: path.clone(), source };
            let pem = std::fs::read(path).map_err(io)?;
            let authority = Certificate::from_pem_bundle(&pem).map_err(SourceError::Tls)?;
            if authority.is_empty() {
                return Err(io(std::io::Error::other("no certificate in PEM in it")));
            }
            http = http.tls_certs_only(authority);
        }
        Ok(Self { http: http.build().map_err(SourceError::Tls)?, url })
    }

    pub(super) async fn fetch(&self) -> Result<Fetched, FetchError> {
        let answer = self.http.get(self.url.clone()).send().await?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let fresh_for = fresh_for(answer.headers());
        Ok(Fetched { keys: keys(&body(answer).await?)?, fresh_for })
    }
}

fn checked(source: &KeySource) -> Result<Url, SourceError> {
    let wrong = || SourceError::Url(source.url.clone());
    let url: Url = source.url.parse().map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(wrong());
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback || source.plain_http => Ok(url),
        "http" => Err(SourceError::Plain(source.url.clone())),
        _ => Err(wrong()),
    }
}

async fn body(mut answer: Response) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > SET_BYTES_MAX {
            return Err(FetchError::Content("is too large for a set of keys"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// `max-age` without the `Age` that a cache on the way gives it.
fn fresh_for(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = directives.flat_map(|value| value.split(',')).map(str::trim);
    let mut max_age = None;
    if directives.any(|directive| {
        let directive = directive.to_ascii_lowercase();
        max_age = directive.strip_prefix("max-age=").and_then(|s| s.parse().ok()).or(max_age);
        directive == "no-store" || directive == "no-cache"
    }) {
        return Duration::ZERO;
    }
    let age = headers.get(AGE).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    max_age.map_or(FRESH_DEFAULT, |seconds: u64| Duration::from_secs(seconds.saturating_sub(age)))
}

/// A JWK set (RFC 7517). What it holds beside keys of ours is passed over, as the RFC wants it.
#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

/// A key that tokens can be checked with (RFC 8037).
#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: String,
    x: String,
    kid: String,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
}

impl Key {
    fn decoding(&self) -> Option<DecodingKey> {
        let is_ours = self.kty == "OKP"
            && self.crv == "Ed25519"
            && matches!(self.alg.as_deref(), None | Some("EdDSA" | "Ed25519"))
            && matches!(self.purpose.as_deref(), None | Some("sig"))
            && (1..=KEY_ID_BYTES_MAX).contains(&self.kid.len())
            && URL_SAFE_NO_PAD.decode(&self.x).is_ok_and(|key| key.len() == KEY_BYTES);
        if is_ours { DecodingKey::from_ed_components(&self.x).ok() } else { None }
    }
}

fn keys(bytes: &[u8]) -> Result<HashMap<String, Arc<DecodingKey>>, FetchError> {
    let set: Set =
        serde_json::from_slice(bytes).map_err(|_| FetchError::Content("is no set of keys"))?;
    if set.keys.len() > KEYS_MAX {
        return Err(FetchError::Content("has too many keys"));
    }
    let mut keys = HashMap::new();
    for key in set.keys {
        let Ok(key) = serde_json::from_value::<Key>(key) else { continue };
        let Some(decoding) = key.decoding() else { continue };
        if keys.insert(key.kid, Arc::new(decoding)).is_some() {
            return Err(FetchError::Content("has two keys of one id"));
        }
    }
    if keys.is_empty() {
        return Err(FetchError::Content("has no Ed25519 key to check signatures with"));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The key of RFC 8037 A.2.
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    #[test]
    fn keys_come_over_tls_but_for_the_loopback() {
        for (url, plain, good) in [
            ("https://id.example.com/.well-known/jwks.json", false, true),
            ("http://127.0.0.1:8080/.well-known/jwks.json", false, true),
            ("http://[::1]:8080/jwks", false, true),
            ("http://localhost/jwks", false, true),
            ("http://id.example.com/jwks", false, false),
            ("http://id.example.com/jwks", true, true),
            ("http://127.0.0.1.example.com/jwks", false, false),
            ("http://localhost.example.com/jwks", false, false),
            ("https://me:secret@id.example.com/jwks", false, false),
            ("https://id.example.com/jwks#keys", false, false),
            ("ftp://id.example.com/jwks", true, false),
            ("id.example.com/jwks", false, false),
            ("", false, false),
        ] {
            let source = KeySource { plain_http: plain, ..KeySource::at(url) };
            assert_eq!(checked(&source).is_ok(), good, "{url}");
        }
    }

    #[test]
    fn an_answer_says_for_how_long_it_is_fresh() {
        for (control, age, wanted) in [
            (Some("public, max-age=300"), None, 300),
            (Some("Max-Age=60"), Some("45"), 15),
            (Some("max-age=60"), Some("75"), 0),
            (Some("max-age=60, no-cache"), None, 0),
            (Some("no-store"), None, 0),
            (Some("max-age=soon"), None, 300),
            (None, None, 300),
        ] {
            let mut headers = HeaderMap::new();
            let mut add = |name, value: Option<&'static str>| {
                headers.extend(value.map(|value| (name, HeaderValue::from_static(value))));
            };
            add(CACHE_CONTROL, control);
            add(AGE, age);
            assert_eq!(fresh_for(&headers), Duration::from_secs(wanted), "{control:?} {age:?}");
        }
    }

    #[test]
    fn only_keys_that_check_signatures_are_taken() {
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","kid":"a","new":1}}"#);
        let set = |others: &str| format!(r#"{{"keys":[{good}{others}],"more":true}}"#);
        let ids = |text: &str| -> Option<Vec<String>> {
            let mut ids: Vec<String> = keys(text.as_bytes()).ok()?.into_keys().collect();
            ids.sort();
            Some(ids)
        };
        for (key, taken) in [
            (r#","kty":"OKP","crv":"Ed25519","alg":"EdDSA","use":"sig""#, true),
            (r#","kty":"OKP","crv":"X25519""#, false),
            (r#","kty":"oct","k":"c2VjcmV0","crv":"Ed25519""#, false),
            (r#","kty":"EC","crv":"P-256""#, false),
            (r#","kty":"OKP","crv":"Ed25519","use":"enc""#, false),
            (r#","kty":"OKP","crv":"Ed25519","alg":"HS256""#, false),
        ] {
            let other = format!(r#",{{"kid":"b","x":"{X}"{key}}}"#);
            let wanted = if taken { vec!["a", "b"] } else { vec!["a"] };
            assert_eq!(ids(&set(&other)).unwrap(), wanted, "{key}");
        }
        let short = r#",{"kid":"b","kty":"OKP","crv":"Ed25519","x":"AAAA"}, 7, {}"#;
        assert_eq!(ids(&set(short)).unwrap(), ["a"]);
        assert_eq!(ids(&set(&format!(",{good}"))), None, "two of one id");
        assert_eq!(ids(&set(&",{}".repeat(KEYS_MAX))), None, "too many");
        for text in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":{}}"#, r#"{"keys":[{}]}"#] {
            assert_eq!(ids(text), None, "{text}");
        }
    }
}
