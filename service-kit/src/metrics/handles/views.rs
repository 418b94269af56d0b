//! Views: who waits for them, who builds them, and whether they are right.

use std::time::Duration;

use events::{Position, Timestamp};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::{number, seconds, unix_seconds};
use crate::metrics::{Level, Metrics};
use crate::views_position::Waited;

impl Metrics {
    /// Watches the waits for one kind of views.
    #[must_use]
    pub fn views(&self, views: &'static str) -> ViewsMetrics {
        let waits = |outcome: &'static str| {
            self.table().views_waits.with([self.service(), views.into(), outcome.into()])
        };
        ViewsMetrics {
            reached: waits("reached"),
            timed_out: waits("timed_out"),
            projector_down: waits("projector_down"),
            duration: self.table().views_wait_duration.with([self.service(), views.into()]),
        }
    }

    /// Watches which generation of one kind of views is read.
    #[must_use]
    pub fn generation(&self, views: &'static str) -> GenerationMetrics {
        let live = self.table().views_generation.with([self.service(), views.into()]);
        GenerationMetrics { live }
    }

    /// Watches the projection of a stream.
    #[must_use]
    pub fn projector(&self, stream: &'static str) -> ProjectorMetrics {
        let table = self.table();
        let labels = || [self.service(), stream.into()];
        ProjectorMetrics {
            position: table.projector_position.with(labels()),
            lag: table.projector_lag.with(labels()),
            lag_seconds: table.projector_lag_seconds.with(labels()),
            progress: table.projector_progress.with(labels()),
            parked: table.projector_parked.with(labels()),
            events: table.projector_events.with(labels()),
            batches: table.projector_batches.with(labels()),
            batch_duration: table.projector_batch_duration.with(labels()),
            restarts: table.projector_restarts.with(labels()),
        }
    }

    /// Watches the slow check; `places` are where something can differ.
    #[must_use]
    pub fn checks(&self, places: &[&'static str]) -> CheckMetrics {
        let metrics = CheckMetrics(self.clone());
        for place in places {
            metrics.differences(place);
        }
        metrics
    }
}

/// Of the waits for one kind of views.
#[derive(Clone)]
pub struct ViewsMetrics {
    reached: Counter,
    timed_out: Counter,
    projector_down: Counter,
    duration: Histogram,
}

impl ViewsMetrics {
    /// A wait ended.
    pub fn waited(&self, outcome: Waited, took: Duration) {
        self.duration.observe(seconds(took));
        match outcome {
            Waited::Reached => &self.reached,
            Waited::TimedOut => &self.timed_out,
            Waited::ProjectorDown => &self.projector_down,
        }
        .inc();
    }
}

/// Of the generations of one kind of views.
#[derive(Clone)]
pub struct GenerationMetrics {
    live: Level,
}

impl GenerationMetrics {
    /// This one is read; 0 while that is not known.
    pub fn is_live(&self, number: u32) {
        self.live.set(number.into());
    }
}

/// Of the projection of one stream.
#[derive(Clone)]
pub struct ProjectorMetrics {
    position: Level,
    lag: Level,
    lag_seconds: Level,
    progress: Level,
    parked: Level,
    events: Counter,
    batches: Counter,
    batch_duration: Histogram,
    restarts: Counter,
}

impl ProjectorMetrics {
    /// The views have a position, and `pending` messages are to come.
    pub fn follows(&self, position: Position, pending: u64) {
        self.position.set(number(position.0));
        self.lag.set(number(pending));
    }

    /// A batch of messages was written.
    pub fn wrote(&self, events: u64, took: Duration) {
        self.events.inc_by(events);
        self.batches.inc();
        self.batch_duration.observe(seconds(took));
    }

    /// The views follow the log.
    pub fn alive(&self, now: Timestamp) {
        self.progress.set(unix_seconds(now));
    }

    /// How old the oldest event is that the views lack.
    pub fn lags(&self, age: Duration) {
        self.lag_seconds.set(seconds(age));
    }

    /// So many aggregates are parked.
    pub fn has_parked(&self, aggregates: usize) {
        self.parked.set(number(aggregates as u64));
    }

    /// It starts again from its checkpoint.
    pub fn restarted(&self) {
        self.restarts.inc();
    }
}

/// What the slow check does.
#[derive(Clone)]
pub struct CheckMetrics(Metrics);

impl CheckMetrics {
    /// A user was looked at.
    pub fn checked(&self) {
        self.0.table().checked.with([self.0.service()]).inc();
    }

    /// Something differs.
    pub fn differs(&self, place: &'static str) {
        self.differences(place).inc();
    }

    fn differences(&self, place: &'static str) -> Counter {
        self.0.table().check_differences.with([self.0.service(), place.into()])
    }
}
