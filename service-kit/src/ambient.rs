//! The two inputs that are not data: the clock and random ids. Nothing else in the workspace reads them, so that
//! decisions and projections stay pure.

use chrono::Utc;
use events::Timestamp;
use uuid::Uuid;

/// The current time, in milliseconds, UTC.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the port that the ban points to")]
pub fn now() -> Timestamp {
    Timestamp::from_datetime(Utc::now())
}

/// A new UUIDv7.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the port that the ban points to")]
pub fn new_uuid() -> Uuid {
    Uuid::now_v7()
}
