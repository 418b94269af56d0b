//! The permissions of a subscriber of the feed: it takes messages from one consumer, acknowledges them, and nothing
//! else.

use std::fmt;

use crate::crossing::Request;

/// The streams that a subscriber reads: the feed, and the states that it may start with.
const STREAMS: [&str; 2] = ["USER_EVENTS", "USER_SNAPSHOTS"];

/// The name of a subscriber, and of its consumers, its user and its inbox.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubscriberName(String);

/// The text cannot be the name of a subscriber.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name has 2 to 32 letters in lower case, digits and dashes, and begins with a letter")]
pub struct InvalidName;

impl SubscriberName {
    /// Parses a name that can be used in subjects and file names: `[a-z][a-z0-9-]{1,31}`.
    ///
    /// # Errors
    ///
    /// [`InvalidName`] for any other text.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let fits = (2..=32).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidName) }
    }

    /// The name, which is also that of the consumers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The prefix of its reply subjects.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.0)
    }
}

impl fmt::Display for SubscriberName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The prefix of the JetStream API for a subscriber, instead of `$JS.API`. Under that name the server itself answers in
/// every account, and reports that this one has no JetStream (tried).
pub const API_PREFIX: &str = "feed";

const fn api(
    name: &'static str,
    subject: &'static str,
    local: &'static str,
    many_answers: bool,
) -> Request {
    Request { local: Some(local), ..Request::new(name, subject, many_answers) }
}

const fn ack(name: &'static str, subject: &'static str) -> Request {
    Request::new(name, subject, false)
}

/// All requests. Acknowledgements have two forms; a server uses the longer one with `js_ack_fc_v2`.
#[rustfmt::skip]
pub(crate) const REQUESTS: [Request; 8] = [
    api("feed-next", "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.*", "feed.CONSUMER.MSG.NEXT.USER_EVENTS.$1", true),
    api("feed-info", "$JS.API.CONSUMER.INFO.USER_EVENTS.*", "feed.CONSUMER.INFO.USER_EVENTS.$1", false),
    ack("feed-ack", "$JS.ACK.USER_EVENTS.>"),
    ack("feed-ack-2", "$JS.ACK.*.*.USER_EVENTS.>"),
    api("snapshots-next", "$JS.API.CONSUMER.MSG.NEXT.USER_SNAPSHOTS.*", "feed.CONSUMER.MSG.NEXT.USER_SNAPSHOTS.$1", true),
    api("snapshots-info", "$JS.API.CONSUMER.INFO.USER_SNAPSHOTS.*", "feed.CONSUMER.INFO.USER_SNAPSHOTS.$1", false),
    ack("snapshots-ack", "$JS.ACK.USER_SNAPSHOTS.>"),
    ack("snapshots-ack-2", "$JS.ACK.*.*.USER_SNAPSHOTS.>"),
];

/// The requests of one subscriber, limited to its own consumers.
pub(crate) fn requests_of(name: &SubscriberName) -> Vec<String> {
    let of = |stream: &str| {
        [
            format!("{API_PREFIX}.CONSUMER.MSG.NEXT.{stream}.{name}"),
            format!("{API_PREFIX}.CONSUMER.INFO.{stream}.{name}"),
            format!("$JS.ACK.{stream}.{name}.>"),
            format!("$JS.ACK.*.*.{stream}.{name}.>"),
        ]
    };
    STREAMS.iter().flat_map(|stream| of(stream)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_into_a_subject() {
        for good in ["ab", "billing", "a-1"] {
            assert_eq!(SubscriberName::parse(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(33);
        for bad in ["", "a", "1a", "-a", "A-b", "a.b", "a*", "a>", "a b", "\u{e4}b", &long] {
            assert_eq!(SubscriberName::parse(bad), Err(InvalidName), "{bad}");
        }
    }

    #[test]
    fn every_request_of_a_subscriber_is_exported_to_the_product_account() {
        let name = SubscriberName::parse("billing").unwrap();
        for subject in requests_of(&name) {
            let crosses = |request: &Request| request.matches(&subject);
            assert!(REQUESTS.iter().any(crosses), "{subject}");
        }
    }
}
