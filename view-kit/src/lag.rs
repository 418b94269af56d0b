//! How far views are behind their log.

use std::time::Duration;

use events::{Position, Timestamp};
use service_kit::ambient;
use service_kit::event_log::{EventLog, ReadError};

/// Age of a message that is not processed yet.
#[must_use]
pub fn age(stored_at: Option<Timestamp>, now: Timestamp) -> Duration {
    let age = stored_at.map(|stored_at| now.as_datetime() - stored_at.as_datetime());
    age.and_then(|age| age.to_std().ok()).unwrap_or_default()
}

/// Age of the oldest message after a position on the first of some filters; zero if there is none.
///
/// # Errors
/// [`ReadError`]: the log does not answer.
pub async fn age_of_missing(
    log: &EventLog,
    filters: &[&str],
    position: Position,
) -> Result<Duration, ReadError> {
    let events = filters.first().copied().unwrap_or_default();
    let missing = log.next(events, position).await?;
    Ok(age(missing.map(|missing| missing.stored_at), ambient::now()))
}

/// The readiness check of views with a position.
///
/// # Errors
/// The oldest event that they lack is older than `lag_max`, or the log does not answer.
pub async fn keeps_up(
    log: &EventLog,
    filters: &[&str],
    position: Position,
    lag_max: Duration,
) -> Result<(), String> {
    let lag = age_of_missing(log, filters, position).await.map_err(|error| error.to_string())?;
    if lag <= lag_max {
        return Ok(());
    }
    Err(format!("the views are {} s behind the log", lag.as_secs()))
}
