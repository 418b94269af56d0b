//! Headers about a rate limit: `RateLimit-Policy` and `RateLimit` as structured fields
//! (draft-ietf-httpapi-ratelimit-headers), and `Retry-After` (RFC 9110 10.2.3) with the same number.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The quota of a client.
pub const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// The rest of the quota.
pub const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// An exhausted rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Name of the policy: letters, digits and hyphens.
    pub policy: &'static str,
    /// How many requests the policy allows.
    pub quota: u32,
    /// The time window of the quota.
    pub window: Duration,
    /// When the next request is allowed.
    pub retry_after: Duration,
}

impl RateLimit {
    /// Whole seconds until the next request is allowed, never 0, so that a client that waits this long is not rejected
    /// for a fraction of a second.
    #[must_use]
    pub const fn retry_after_s(&self) -> u64 {
        whole_seconds(self.retry_after)
    }

    /// The three headers, which are consistent.
    #[must_use]
    pub fn headers(&self) -> HeaderMap {
        let Self { policy, quota, window, .. } = *self;
        let (window, reset) = (whole_seconds(window), self.retry_after_s());
        let mut headers = HeaderMap::new();
        let fields = [
            (RATE_LIMIT_POLICY, format!("\"{policy}\";q={quota};w={window}")),
            (RATE_LIMIT, format!("\"{policy}\";r=0;t={reset}")),
            (RETRY_AFTER, reset.to_string()),
        ];
        for (name, text) in fields {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
        headers
    }
}

const fn whole_seconds(time: Duration) -> u64 {
    let up = if time.subsec_nanos() > 0 { 1 } else { 0 };
    let seconds = time.as_secs().saturating_add(up);
    if seconds == 0 { 1 } else { seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_fields_agree() {
        for (retry_after, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(1), 1),
            (Duration::from_secs(1), 1),
            (Duration::from_millis(1_001), 2),
            (Duration::from_secs(900), 900),
        ] {
            let window = Duration::from_mins(10);
            let limit = RateLimit { policy: "requests", quota: 30, window, retry_after };
            let headers = limit.headers();
            let text = |name: HeaderName| headers[name].to_str().unwrap().to_owned();
            assert_eq!(text(RATE_LIMIT_POLICY), "\"requests\";q=30;w=600");
            assert_eq!(text(RATE_LIMIT), format!("\"requests\";r=0;t={seconds}"));
            assert_eq!(text(RETRY_AFTER), seconds.to_string());
        }
    }
}
