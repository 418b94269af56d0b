//! Points in time as the contract writes them: RFC 3339, UTC, milliseconds.

use std::fmt;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use serde::{Deserialize, Serialize};

/// A point in time with millisecond precision, always UTC. On the wire `2026-01-31T12:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp(DateTime<Utc>);

impl Timestamp {
    /// Takes a time from a clock and cuts it to milliseconds, so that what is compared in memory is what
    /// was written.
    #[must_use]
    pub fn from_datetime(time: DateTime<Utc>) -> Self {
        Self(time.trunc_subsecs(3))
    }

    /// A time in whole seconds since 1970; `None` beyond what a calendar has.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        DateTime::from_timestamp(seconds, 0).map(Self)
    }

    /// The time so many seconds later, at most the last one there is.
    #[must_use]
    pub fn plus_seconds(&self, seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let later =
            chrono::TimeDelta::try_seconds(seconds).and_then(|d| self.0.checked_add_signed(d));
        Self(later.unwrap_or(DateTime::<Utc>::MAX_UTC))
    }

    /// The time so many seconds earlier, at least the first one there is.
    #[must_use]
    pub fn minus_seconds(&self, seconds: u64) -> Self {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        let earlier =
            chrono::TimeDelta::try_seconds(seconds).and_then(|d| self.0.checked_sub_signed(d));
        Self(earlier.unwrap_or(DateTime::<Utc>::MIN_UTC))
    }

    /// The time as `chrono` has it.
    #[must_use]
    pub const fn as_datetime(&self) -> DateTime<Utc> {
        self.0
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl TryFrom<String> for Timestamp {
    type Error = chrono::ParseError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        DateTime::parse_from_rfc3339(&text)
            .map(|time| Self::from_datetime(time.with_timezone(&Utc)))
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}
