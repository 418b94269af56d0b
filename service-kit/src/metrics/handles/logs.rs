//! Streams: what is appended, how full they are, and what no writer wrote.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::{number, seconds};
use crate::event_log::{Outcome, Room};
use crate::metrics::{Level, Metrics, Value};

impl Metrics {
    /// Watches the appends to a stream.
    #[must_use]
    pub fn log(&self, stream: &str) -> LogMetrics {
        let stream: Value = stream.to_owned().into();
        let appends = |outcome: &'static str| {
            self.table().appends.with([self.service(), stream.clone(), outcome.into()])
        };
        LogMetrics {
            stored: appends("stored"),
            conflict: appends("conflict"),
            duplicate: appends("duplicate"),
            unknown: appends("unknown"),
            full: appends("full"),
            unavailable: appends("unavailable"),
            refused: appends("refused"),
            retries: self.table().append_retries.with([self.service(), stream.clone()]),
            duration: self.table().append_duration.with([self.service(), stream]),
        }
    }

    /// Watches the foreign messages of one stream.
    #[must_use]
    pub fn foreign(&self, stream: &str) -> ForeignMetrics {
        let stream: Value = stream.to_owned().into();
        ForeignMetrics { messages: self.table().foreign.with([self.service(), stream]) }
    }

    /// Watches how full a stream is.
    #[must_use]
    pub fn stream(&self, stream: &str) -> StreamMetrics {
        let (table, stream): (_, Value) = (self.table(), stream.to_owned().into());
        StreamMetrics {
            bytes: table.stream_bytes.with([self.service(), stream.clone()]),
            bytes_max: table.stream_bytes_max.with([self.service(), stream]),
        }
    }
}

/// Of the appends to one stream.
#[derive(Clone)]
pub struct LogMetrics {
    stored: Counter,
    conflict: Counter,
    duplicate: Counter,
    unknown: Counter,
    full: Counter,
    unavailable: Counter,
    refused: Counter,
    retries: Counter,
    duration: Histogram,
}

impl LogMetrics {
    /// An append ended.
    pub fn appended(&self, outcome: &Outcome, took: Duration) {
        self.duration.observe(seconds(took));
        match outcome {
            Outcome::Stored(_) => &self.stored,
            Outcome::Conflict => &self.conflict,
            Outcome::Duplicate => &self.duplicate,
            Outcome::Unknown => &self.unknown,
            Outcome::Full => &self.full,
            Outcome::Unavailable => &self.unavailable,
            Outcome::Refused(..) => &self.refused,
        }
        .inc();
    }

    /// An append is sent again.
    pub fn sent_again(&self) {
        self.retries.inc();
    }
}

/// Of the messages in one stream that none of its writers wrote.
#[derive(Clone)]
pub struct ForeignMetrics {
    messages: Counter,
}

impl ForeignMetrics {
    /// One is passed over.
    pub fn passed_over(&self) {
        self.messages.inc();
    }
}

/// How full a stream is.
#[derive(Clone)]
pub struct StreamMetrics {
    bytes: Level,
    bytes_max: Level,
}

impl StreamMetrics {
    /// It was looked up.
    pub fn holds(&self, room: Room) {
        self.bytes.set(number(room.bytes));
        self.bytes_max.set(number(room.bytes_max));
    }
}
