//! Points in time in the contract's format: RFC 3339, UTC, milliseconds, years 0001 to 9999.
//!
//! The range is what every reader of the log, the views and the feed supports: BSON, JavaScript's `Date`, Python's
//! `datetime` and RFC 3339 itself, whose years have four digits. There are two ways in. A time from a caller is
//! rejected when it is out of range ([`Timestamp::parse`]). A time from a clock or a stored record becomes the nearest
//! valid time, because older versions accepted more and their events must stay readable.

use std::fmt;

use chrono::{DateTime, FixedOffset, SecondsFormat, TimeDelta, Utc};
use serde::{Deserialize, Deserializer, Serialize};

/// `0001-01-01T00:00:00.000Z` in milliseconds since 1970.
const FIRST_MS: i64 = -62_135_596_800_000;
/// `9999-12-31T23:59:59.999Z` in milliseconds since 1970.
const LAST_MS: i64 = 253_402_300_799_999;

/// A point in time with millisecond precision, always UTC, from `0001-01-01T00:00:00.000Z` to
/// `9999-12-31T23:59:59.999Z`. On the wire `2026-01-31T12:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Timestamp(DateTime<Utc>);

/// Why a text is not an accepted time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTime(&'static str);

impl Timestamp {
    /// The first valid time.
    pub const FIRST: Self = Self::of_millis(FIRST_MS);
    /// The last valid time.
    pub const LAST: Self = Self::of_millis(LAST_MS);

    /// Parses a time from a caller, truncated to milliseconds.
    ///
    /// # Errors
    /// [`InvalidTime`] describes the fault in words that may be shown to the caller.
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        accepted(text).map(Self::from_datetime)
    }

    /// Parses a time from a caller, rounded up to milliseconds: the first time with this precision that is not before
    /// it. A stored time is before the one exactly when it is before the other.
    ///
    /// # Errors
    /// As [`Timestamp::parse`].
    pub fn parse_rounded_up(text: &str) -> Result<Self, InvalidTime> {
        let time = accepted(text)?;
        let cut = Self::from_datetime(time);
        let is_exact = cut.0 == time;
        Ok(if is_exact { cut } else { cut.plus(TimeDelta::milliseconds(1)) })
    }

    /// Converts a time from a clock or a database, truncated to milliseconds, so that memory and store compare equal. A
    /// time out of range becomes the nearest one in range, and a leap second the next second.
    #[must_use]
    pub fn from_datetime(time: DateTime<Utc>) -> Self {
        Self::of_millis(time.timestamp_millis())
    }

    /// A time in whole seconds since 1970; `None` when it is out of range.
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        let millis = seconds.checked_mul(1_000)?;
        (FIRST_MS..=LAST_MS).contains(&millis).then(|| Self::of_millis(millis))
    }

    /// The time this many seconds later, at most the last valid time.
    #[must_use]
    pub fn plus_seconds(&self, seconds: u64) -> Self {
        self.plus(seconds_of(seconds))
    }

    /// The time this many seconds earlier, at least the first valid time.
    #[must_use]
    pub fn minus_seconds(&self, seconds: u64) -> Self {
        self.plus(-seconds_of(seconds))
    }

    /// The time as a `chrono` type.
    #[must_use]
    pub const fn as_datetime(&self) -> DateTime<Utc> {
        self.0
    }

    fn plus(self, span: TimeDelta) -> Self {
        let millis = self.0.timestamp_millis().saturating_add(span.num_milliseconds());
        Self::of_millis(millis)
    }

    const fn of_millis(millis: i64) -> Self {
        let within = if millis < FIRST_MS {
            FIRST_MS
        } else if millis > LAST_MS {
            LAST_MS
        } else {
            millis
        };
        match DateTime::from_timestamp_millis(within) {
            Some(time) => Self(time),
            None => Self(DateTime::UNIX_EPOCH),
        }
    }

    /// Parses a time in a record that an older version may have written: a year before 0001 or a leap second becomes
    /// the nearest valid time.
    fn stored(text: &str) -> Result<Self, chrono::ParseError> {
        let time = match text.starts_with(['+', '-']) {
            // `chrono` writes a sign when four digits are not enough for the year.
            true => text.parse::<DateTime<FixedOffset>>(),
            false => DateTime::parse_from_rfc3339(text),
        };
        time.map(|time| Self::from_datetime(time.with_timezone(&Utc)))
    }
}

fn accepted(text: &str) -> Result<DateTime<Utc>, InvalidTime> {
    let time = DateTime::parse_from_rfc3339(text)
        .map_err(|_| InvalidTime("must be a time as in RFC 3339"))?
        .with_timezone(&Utc);
    if time.timestamp_subsec_millis() >= 1_000 {
        return Err(InvalidTime("has a second 60, which not every reader knows"));
    }
    if !(FIRST_MS..=LAST_MS).contains(&time.timestamp_millis()) {
        return Err(InvalidTime("must be in the years 0001 to 9999 in UTC"));
    }
    Ok(time)
}

/// A span longer than all of time is limited to it.
fn seconds_of(seconds: u64) -> TimeDelta {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    TimeDelta::try_seconds(seconds).unwrap_or(TimeDelta::MAX)
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
    type Error = InvalidTime;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::stored(&text).map_err(serde::de::Error::custom)
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_reader_can_hold_is_accepted() {
        for (given, written) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z"),
            ("2026-01-31T12:00:00.123999Z", "2026-01-31T12:00:00.123Z"),
            ("2026-01-31T14:00:00+02:00", "2026-01-31T12:00:00.000Z"),
            ("1969-12-31T23:59:59.9999Z", "1969-12-31T23:59:59.999Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000Z"),
            ("0000-12-31T23:00:00-01:00", "0001-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::parse(given).unwrap().to_string(), written, "{given}");
        }
    }

    #[test]
    fn what_some_reader_cannot_hold_is_refused() {
        for given in [
            "0000-01-01T00:00:00+01:00",
            "0000-06-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "-0001-01-01T00:00:00Z",
            "+10000-01-01T00:00:00Z",
            "2026-01-31T10:00:60Z",
            "2026-02-30T10:00:00Z",
            "2026-01-31",
            "yesterday",
        ] {
            assert!(Timestamp::parse(given).is_err(), "{given}");
        }
    }

    #[test]
    fn what_older_versions_wrote_is_read_as_the_nearest_time() {
        for (stored, read) in [
            ("-0001-12-31T23:00:00.000Z", "0001-01-01T00:00:00.000Z"),
            ("0000-01-01T00:00:00.000Z", "0001-01-01T00:00:00.000Z"),
            ("+262142-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"),
            ("2026-01-31T10:00:60.000Z", "2026-01-31T10:01:00.000Z"),
            ("2026-01-31T10:00:00.250Z", "2026-01-31T10:00:00.250Z"),
        ] {
            let time: Timestamp = serde_json::from_value(stored.into()).unwrap();
            assert_eq!(time.to_string(), read, "{stored}");
        }
        assert!(serde_json::from_value::<Timestamp>("-x".into()).is_err());
    }

    #[test]
    fn a_bound_finer_than_a_millisecond_is_rounded_up() {
        let up = |text| Timestamp::parse_rounded_up(text).unwrap().to_string();
        assert_eq!(up("2026-01-31T10:00:00.250Z"), "2026-01-31T10:00:00.250Z");
        assert_eq!(up("2026-01-31T10:00:00.250001Z"), "2026-01-31T10:00:00.251Z");
        assert_eq!(up("1969-12-31T23:59:59.9999Z"), "1970-01-01T00:00:00.000Z");
        assert_eq!(up("9999-12-31T23:59:59.9999Z"), Timestamp::LAST.to_string());
    }

    proptest::proptest! {
        /// Whatever arithmetic and clocks produce, a written time can be read.
        #[test]
        fn every_time_is_read_back(millis in proptest::prelude::any::<i64>(), seconds in proptest::prelude::any::<u64>()) {
            let time = Timestamp::of_millis(millis);
            for time in [time, time.plus_seconds(seconds), time.minus_seconds(seconds)] {
                proptest::prop_assert_eq!(Timestamp::parse(&time.to_string()), Ok(time));
            }
        }
    }
}
