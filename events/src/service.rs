//! The names of a peer service: all of them are derived from a singular and a plural.
//!
//! A service like `product` has its own log, feed and views in Roster's NATS account (ADR 23). Its permissions on NATS
//! are derived from the same names, so a badly chosen name would open data of another owner: names that would collide
//! with a subject, a stream or a database of Roster are rejected.

use std::borrow::Cow;
use std::fmt;

/// Minimum length of a name.
pub const SERVICE_NAME_CHARS_MIN: usize = 2;
/// Maximum length of a name.
pub const SERVICE_NAME_CHARS_MAX: usize = 24;

/// The suffix of a service's user, crate, binary and consumer.
const SUFFIX: &str = "-service";

/// Names that are taken. A service with such a name would collide with the subjects, streams, database or folders of
/// Roster, NATS or MongoDB, or could be mistaken for them.
#[rustfmt::skip]
const TAKEN: &[&str] = &[
    // Aggregates, streams and views of Roster, and its processes.
    "user", "users", "session", "sessions", "mail", "mails", "mailer", "eraser", "operator", "operators",
    "operation", "operations", "throttle", "snapshot", "snapshots", "feed", "roster",
    // First and last tokens of its subjects.
    "ev", "ik", "sec", "uq", "rv", "lk", "er", "op", "kv", "retry", "position", "parked",
    // Databases of MongoDB itself.
    "admin", "local", "config",
];

/// Why two words cannot name a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServiceName {
    /// It cannot be used in subjects, variables and file names.
    #[error(
        "a name has {min} to {max} letters in lower case and digits, and begins with a letter",
        min = SERVICE_NAME_CHARS_MIN,
        max = SERVICE_NAME_CHARS_MAX
    )]
    Form,
    /// It belongs to Roster, NATS or MongoDB.
    #[error("the name is taken by Roster itself: choose another one")]
    Taken,
}

/// The names of one service, derived from a singular (`product`) and a plural (`products`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceNames {
    singular: Cow<'static, str>,
    plural: Cow<'static, str>,
}

impl ServiceNames {
    /// The names of a service that stand in its code:
    ///
    /// ```
    /// const NAMES: events::ServiceNames = events::ServiceNames::fixed("product", "products");
    /// assert_eq!(NAMES.log_stream(), "PRODUCTS");
    /// ```
    ///
    /// # Panics
    ///
    /// When [`ServiceNames::parse`] would refuse them. In a constant it does not compile then:
    ///
    /// ```compile_fail
    /// const NAMES: events::ServiceNames = events::ServiceNames::fixed("user", "users");
    /// # let _ = NAMES;
    /// ```
    #[must_use]
    pub const fn fixed(singular: &'static str, plural: &'static str) -> Self {
        assert!(check(singular).is_ok(), "the singular cannot name a service");
        assert!(check(plural).is_ok(), "the plural cannot name a service");
        Self { singular: Cow::Borrowed(singular), plural: Cow::Borrowed(plural) }
    }

    /// Parses a singular and a plural of the form `[a-z][a-z0-9]{1,23}`. They may be the same word.
    ///
    /// # Errors
    ///
    /// [`InvalidServiceName`]: choose other words.
    pub fn parse(singular: &str, plural: &str) -> Result<Self, InvalidServiceName> {
        check(singular)?;
        check(plural)?;
        let owned = |text: &str| Cow::Owned(text.to_owned());
        Ok(Self { singular: owned(singular), plural: owned(plural) })
    }

    /// Whether a text has the form of a service's user, as in `product-service`. A subscriber must not have such a
    /// name: both would have their consumer on the same stream.
    #[must_use]
    pub fn is_of_a_service(text: &str) -> bool {
        text.strip_suffix(SUFFIX).is_some_and(|singular| check(singular).is_ok())
    }

    /// `product`
    #[must_use]
    pub fn singular(&self) -> &str {
        &self.singular
    }

    /// `products`
    #[must_use]
    pub fn plural(&self) -> &str {
        &self.plural
    }

    /// `product-service`: its NATS user, its crate, its binary and its folder.
    #[must_use]
    pub fn service(&self) -> String {
        format!("{}{SUFFIX}", self.singular)
    }

    /// `_INBOX_product-service`: the prefix of the subjects on which its client must receive replies.
    #[must_use]
    pub fn inbox_prefix(&self) -> String {
        format!("_INBOX_{}", self.service())
    }

    /// `PRODUCT_`: the prefix of its environment variables.
    #[must_use]
    pub fn variable_prefix(&self) -> String {
        format!("{}_", self.singular.to_ascii_uppercase())
    }

    /// `product`: the name of its database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.singular
    }

    /// `PRODUCTS`: the stream that is its source of truth.
    #[must_use]
    pub fn log_stream(&self) -> String {
        self.plural.to_ascii_uppercase()
    }

    /// The subjects of [`ServiceNames::log_stream`]: `ev.product.*` and `ik.product.*`.
    #[must_use]
    pub fn log_subjects(&self) -> [String; 2] {
        [self.events_filter(), self.idempotency_filter()]
    }

    /// `ev.product.*`: every event of every aggregate, and nothing else.
    #[must_use]
    pub fn events_filter(&self) -> String {
        self.events("*")
    }

    /// `ev.product.<id>`: the facts of one aggregate. The id is used as it is, so it must be a single token.
    #[must_use]
    pub fn events(&self, id: impl fmt::Display) -> String {
        format!("ev.{}.{id}", self.singular)
    }

    /// `ik.product.*`: the outcomes of commands, and nothing else.
    #[must_use]
    pub fn idempotency_filter(&self) -> String {
        self.idempotency_record("*")
    }

    /// `ik.product.<key>`: the outcome of a command under its `Idempotency-Key`. `key` is a keyed hash in hex.
    #[must_use]
    pub fn idempotency_record(&self, key: &str) -> String {
        format!("ik.{}.{key}", self.singular)
    }

    /// The id of the aggregate that a message of the log is about. A subject of another log is returned unchanged.
    #[must_use]
    pub fn aggregate<'a>(&self, subject: &'a str) -> &'a str {
        let rest = subject.strip_prefix("ev.").and_then(|rest| rest.strip_prefix(self.singular()));
        rest.and_then(|rest| rest.strip_prefix('.')).unwrap_or(subject)
    }

    /// `PRODUCT_EVENTS`: the stream with its feed.
    #[must_use]
    pub fn feed_stream(&self) -> String {
        format!("{}_EVENTS", self.singular.to_ascii_uppercase())
    }

    /// The subjects of [`ServiceNames::feed_stream`]: `products.v1.*.*`.
    #[must_use]
    pub fn feed_subjects(&self) -> [String; 1] {
        [self.feed_event("*", "*")]
    }

    /// `products.v1.<event>.<id>`: one event of the feed. Both must be one token.
    #[must_use]
    pub fn feed_event(&self, event: &str, id: impl fmt::Display) -> String {
        format!("{}.v1.{event}.{id}", self.plural)
    }

    /// `roster.position.products`: the core subject on which it announces the position of its views. Never stored.
    #[must_use]
    pub fn position(&self) -> String {
        format!("roster.position.{}", self.plural)
    }

    /// `roster.parked.products`: the core subject of requests to read its parked aggregates again. Never stored.
    #[must_use]
    pub fn parked_retry(&self) -> String {
        format!("roster.parked.{}", self.plural)
    }

    /// `product-service`: its durable consumer on Roster's feed.
    #[must_use]
    pub fn consumer(&self) -> String {
        self.service()
    }
}

impl fmt::Display for ServiceNames {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.singular)
    }
}

/// Whether a word can be the singular or the plural of a service.
const fn check(name: &str) -> Result<(), InvalidServiceName> {
    let mut rest = name.as_bytes();
    if rest.len() < SERVICE_NAME_CHARS_MIN || rest.len() > SERVICE_NAME_CHARS_MAX {
        return Err(InvalidServiceName::Form);
    }
    if !matches!(rest, [b'a'..=b'z', ..]) {
        return Err(InvalidServiceName::Form);
    }
    while let [first, behind @ ..] = rest {
        if !matches!(first, b'a'..=b'z' | b'0'..=b'9') {
            return Err(InvalidServiceName::Form);
        }
        rest = behind;
    }
    let mut taken = TAKEN;
    while let [first, behind @ ..] = taken {
        if is_same(first.as_bytes(), name.as_bytes()) {
            return Err(InvalidServiceName::Taken);
        }
        taken = behind;
    }
    Ok(())
}

/// `==` is not available in a constant.
const fn is_same(mut one: &[u8], mut other: &[u8]) -> bool {
    while let ([a, one_behind @ ..], [b, other_behind @ ..]) = (one, other) {
        if *a != *b {
            return false;
        }
        one = one_behind;
        other = other_behind;
    }
    one.is_empty() && other.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{feed, subjects};

    const PRODUCT: ServiceNames = ServiceNames::fixed("product", "products");

    /// Whether some subject matches both filters.
    fn meet(one: &str, other: &str) -> bool {
        let (one, other) =
            (one.split('.').collect::<Vec<_>>(), other.split('.').collect::<Vec<_>>());
        one.len() == other.len()
            && one.iter().zip(&other).all(|(a, b)| a == b || *a == "*" || *b == "*")
    }

    /// Every subject and every stream of Roster.
    fn of_roster() -> (Vec<&'static str>, Vec<&'static str>) {
        let subjects = subjects::USERS_STREAM_SUBJECTS
            .into_iter()
            .chain(subjects::SESSIONS_STREAM_SUBJECTS)
            .chain(subjects::MAILS_STREAM_SUBJECTS)
            .chain(feed::FEED_STREAM_SUBJECTS)
            .chain(feed::SNAPSHOTS_STREAM_SUBJECTS)
            .chain([subjects::USER_VIEWS_POSITION, subjects::SESSION_VIEWS_POSITION])
            .chain([subjects::PARKED_RETRY, "op.*"])
            .collect();
        let streams = vec![
            subjects::USERS_STREAM,
            subjects::SESSIONS_STREAM,
            subjects::MAILS_STREAM,
            feed::FEED_STREAM,
            feed::SNAPSHOTS_STREAM,
            "OPERATIONS",
            "KV_THROTTLE",
            "KV_THROTTLE_CLOSED",
            "KV_THROTTLE_COUNTS",
        ];
        (subjects, streams)
    }

    fn all_subjects(names: &ServiceNames) -> Vec<String> {
        let mut all = names.log_subjects().to_vec();
        all.extend(names.feed_subjects());
        all.extend([names.position(), names.parked_retry()]);
        all
    }

    #[test]
    fn everything_comes_from_two_words() {
        assert_eq!((PRODUCT.singular(), PRODUCT.plural()), ("product", "products"));
        assert_eq!(PRODUCT.service(), "product-service");
        assert_eq!(PRODUCT.consumer(), "product-service");
        assert_eq!(PRODUCT.inbox_prefix(), "_INBOX_product-service");
        assert_eq!(PRODUCT.variable_prefix(), "PRODUCT_");
        assert_eq!(PRODUCT.database(), "product");
        assert_eq!(PRODUCT.log_stream(), "PRODUCTS");
        assert_eq!(PRODUCT.log_subjects(), ["ev.product.*", "ik.product.*"]);
        assert_eq!(PRODUCT.events(7), "ev.product.7");
        assert_eq!(PRODUCT.idempotency_record("ab"), "ik.product.ab");
        assert_eq!(PRODUCT.feed_stream(), "PRODUCT_EVENTS");
        assert_eq!(PRODUCT.feed_subjects(), ["products.v1.*.*"]);
        assert_eq!(PRODUCT.feed_event("renamed", 7), "products.v1.renamed.7");
        assert_eq!(PRODUCT.position(), "roster.position.products");
        assert_eq!(PRODUCT.parked_retry(), "roster.parked.products");
        assert_eq!(PRODUCT.to_string(), "product");
        assert_eq!(ServiceNames::parse("product", "products"), Ok(PRODUCT));
    }

    #[test]
    fn the_aggregate_of_a_subject_is_that_of_this_log_alone() {
        assert_eq!(PRODUCT.aggregate("ev.product.7"), "7");
        for other in ["ev.products.7", "ev.user.7", "ik.product.7", "7"] {
            assert_eq!(PRODUCT.aggregate(other), other);
        }
    }

    #[test]
    fn a_name_fits_into_subjects_variables_and_files() {
        let longest = "a".repeat(SERVICE_NAME_CHARS_MAX);
        for good in ["ab", "order", "order2", "sheep", longest.as_str()] {
            assert!(ServiceNames::parse(good, good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(SERVICE_NAME_CHARS_MAX + 1);
        for bad in
            ["", "a", "1a", "Ab", "a-b", "a_b", "a.b", "a*", "a>", "a b", "\u{e4}b", &too_long]
        {
            for (singular, plural) in [(bad, "orders"), ("order", bad)] {
                let refused = ServiceNames::parse(singular, plural);
                assert_eq!(refused, Err(InvalidServiceName::Form), "{bad}");
            }
        }
    }

    #[test]
    fn what_belongs_to_roster_is_refused_as_either_word() {
        for taken in TAKEN {
            for (singular, plural) in [(*taken, "orders"), ("order", *taken)] {
                let refused = ServiceNames::parse(singular, plural);
                assert_eq!(refused, Err(InvalidServiceName::Taken), "{taken}");
            }
        }
    }

    /// Tries the tokens of every subject and stream of Roster as names: accepted ones collide with none of them.
    #[test]
    fn no_service_meets_a_subject_or_a_stream_of_roster() {
        let (subjects, streams) = of_roster();
        let words: Vec<String> = subjects
            .iter()
            .flat_map(|subject| subject.split('.'))
            .chain(streams.iter().flat_map(|stream| stream.split('_')))
            .map(|word| word.to_ascii_lowercase())
            .chain(["product".to_owned(), "products".to_owned()])
            .collect();
        let mut let_in = 0;
        for singular in &words {
            for plural in &words {
                let Ok(names) = ServiceNames::parse(singular, plural) else { continue };
                let_in += 1;
                for subject in all_subjects(&names) {
                    for taken in &subjects {
                        assert!(!meet(&subject, taken), "{singular} {plural}: {subject} {taken}");
                    }
                }
                for stream in [names.log_stream(), names.feed_stream()] {
                    assert!(!streams.contains(&stream.as_str()), "{singular} {plural}: {stream}");
                }
            }
        }
        assert!(let_in > 0, "nothing was compared");
    }

    /// Without the list they would collide: the test above would find it.
    #[test]
    fn names_of_roster_would_meet_its_subjects() {
        assert!(meet("ev.user.*", "ev.user.x") && meet("users.v1.*.*", "users.v1.*.*"));
        assert!(!meet("ik.product.*", "ik.*") && !meet("ev.product.*", "ev.user.*"));
    }

    #[test]
    fn the_name_of_a_service_is_known_as_such() {
        assert!(ServiceNames::is_of_a_service("product-service"));
        for other in ["product", "-service", "service", "user-service", "a-b-service"] {
            assert!(!ServiceNames::is_of_a_service(other), "{other}");
        }
    }
}
