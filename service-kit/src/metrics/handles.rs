//! What each watched part holds: its values, looked up once.

mod access;
mod logs;
mod reactor;
mod requests;
mod spans;
mod views;

use std::time::Duration;

use events::Timestamp;

pub use access::{HashMetrics, SecurityMetrics, ThrottleMetrics};
pub use logs::{ForeignMetrics, LogMetrics, StreamMetrics};
pub use reactor::{ErasureMetrics, MailMetrics};
pub use requests::InFlight;
pub(crate) use requests::known_method;
pub use spans::SpanMetrics;
pub use views::{CheckMetrics, GenerationMetrics, ProjectorMetrics, ViewsMetrics};

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

pub(super) fn unix_seconds(time: Timestamp) -> f64 {
    let ms = u64::try_from(time.as_datetime().timestamp_millis()).unwrap_or_default();
    number(ms) / 1_000.0
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
const fn number(count: u64) -> f64 {
    count as f64
}
