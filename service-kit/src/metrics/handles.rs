//! What each watched part holds: its values, looked up once.

use std::time::Duration;

use events::{Position, Timestamp};
use http::{Method, StatusCode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::{Level, Metrics, Value};
use crate::event_log::{Outcome, Room};
use crate::security::{Kind, Outcome as Outcomes};
use crate::views_position::Waited;

/// Methods with a name of their own.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The method, or `other` for a word of which the client alone knows the meaning.
pub(crate) fn known_method(method: &Method) -> &str {
    if METHODS.contains(method) { method.as_str() } else { "other" }
}

/// Counts a request among those that are worked on, until it is dropped.
pub struct InFlight(Level);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// A request begins.
    #[must_use]
    pub fn request_begins(&self) -> InFlight {
        let level = self.table().http_in_flight.with([self.service()]);
        level.inc();
        InFlight(level)
    }

    /// A request was answered. `route` is a template.
    pub fn request_ended(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let method: Value = known_method(method).to_owned().into();
        let route: Value = route.to_owned().into();
        let status = status.as_str().to_owned().into();
        let table = self.table();
        table
            .http_duration
            .with([self.service(), method.clone(), route.clone()])
            .observe(seconds(took));
        table.http_requests.with([self.service(), method, route, status]).inc();
    }

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

    /// Watches the pool that hashes passwords.
    #[must_use]
    pub fn hashing(&self) -> HashMetrics {
        let duration = |operation: &'static str| {
            self.table().hash_duration.with([self.service(), operation.into()])
        };
        HashMetrics {
            queue: self.table().hash_queue.with([self.service()]),
            shed: self.table().hash_shed.with([self.service()]),
            hash: duration("hash"),
            verify: duration("verify"),
        }
    }

    /// Watches the limits on attempts.
    #[must_use]
    pub fn throttle(&self, policies: &[&'static str]) -> ThrottleMetrics {
        let metrics = ThrottleMetrics(self.clone());
        for policy in policies {
            metrics.refusals(policy);
        }
        metrics
    }

    /// Says for how long a feed of revocations has been silent.
    pub fn revocations_silence(&self, feed: &'static str, silence: Duration) {
        let level = self.table().revocations_silence.with([self.service(), feed.into()]);
        level.set(seconds(silence));
    }

    /// Says how long ago keys of access tokens were fetched.
    pub fn keys_age(&self, age: Duration) {
        self.table().keys_age.with([self.service()]).set(seconds(age));
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

    /// Watches the mailer.
    #[must_use]
    pub fn mails(&self) -> MailMetrics {
        let mails =
            |outcome: &'static str| self.table().mails.with([self.service(), outcome.into()]);
        MailMetrics {
            sent: mails("sent"),
            put_off: mails("put_off"),
            parked: mails("parked"),
            failed: mails("failed"),
            capped: mails("capped"),
        }
    }

    /// Watches the eraser of these streams.
    #[must_use]
    pub fn erasures(&self, streams: [&'static str; 5]) -> ErasureMetrics {
        let table = self.table();
        let erasures = |kind: &'static str| table.erasures.with([self.service(), kind.into()]);
        ErasureMetrics {
            users: erasures("user"),
            credentials: erasures("credential"),
            messages: streams.map(|stream| {
                (stream, table.erased_messages.with([self.service(), stream.into()]))
            }),
            oldest: table.erasure_oldest.with([self.service()]),
        }
    }

    /// Watches the security record.
    #[must_use]
    pub fn security(&self) -> SecurityMetrics {
        let table = self.table();
        let records =
            |outcome: &'static str| table.security_records.with([self.service(), outcome.into()]);
        let metrics = SecurityMetrics {
            metrics: self.clone(),
            stored: records("stored"),
            coalesced: records("coalesced"),
            dropped: records("dropped"),
        };
        for kind in Kind::ALL {
            for outcome in Outcomes::ALL {
                metrics.events(*kind, outcome);
            }
        }
        metrics
    }

    /// Watches the spans of traces.
    #[must_use]
    pub fn spans(&self) -> SpanMetrics {
        let spans =
            |outcome: &'static str| self.table().spans.with([self.service(), outcome.into()]);
        SpanMetrics { begun: spans("begun"), sent: spans("sent"), lost: spans("lost") }
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

/// Of the pool that hashes passwords.
#[derive(Clone)]
pub struct HashMetrics {
    queue: Level,
    shed: Counter,
    hash: Histogram,
    verify: Histogram,
}

impl HashMetrics {
    /// One more waits.
    pub fn queued(&self) {
        self.queue.inc();
    }

    /// One waits no more.
    pub fn taken(&self) {
        self.queue.dec();
    }

    /// One was turned away.
    pub fn shed(&self) {
        self.shed.inc();
    }

    /// A new password was hashed.
    pub fn hashed(&self, took: Duration) {
        self.hash.observe(seconds(took));
    }

    /// A password was compared.
    pub fn verified(&self, took: Duration) {
        self.verify.observe(seconds(took));
    }
}

/// Of the limits on attempts.
#[derive(Clone)]
pub struct ThrottleMetrics(Metrics);

impl ThrottleMetrics {
    /// An attempt was refused.
    pub fn refused(&self, policy: &'static str) {
        self.refusals(policy).inc();
    }

    fn refusals(&self, policy: &'static str) -> Counter {
        self.0.table().throttle_refusals.with([self.0.service(), policy.into()])
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

/// Of the security record.
#[derive(Clone)]
pub struct SecurityMetrics {
    metrics: Metrics,
    stored: Counter,
    coalesced: Counter,
    dropped: Counter,
}

impl SecurityMetrics {
    /// Something happened that is worth a record.
    pub fn happened(&self, kind: Kind, outcome: Outcomes) {
        self.events(kind, outcome).inc();
    }

    /// So many were stored.
    pub fn stored(&self, records: u64) {
        self.stored.inc_by(records);
    }

    /// One was counted and not written for itself.
    pub fn coalesced(&self) {
        self.coalesced.inc();
    }

    /// So many are lost.
    pub fn dropped(&self, records: u64) {
        self.dropped.inc_by(records);
    }

    fn events(&self, kind: Kind, outcome: Outcomes) -> Counter {
        let (kind, outcome) = (kind.name().into(), outcome.name().into());
        self.metrics.table().security_events.with([self.metrics.service(), kind, outcome])
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

/// Of the mailer.
#[derive(Clone)]
pub struct MailMetrics {
    sent: Counter,
    put_off: Counter,
    parked: Counter,
    failed: Counter,
    capped: Counter,
}

impl MailMetrics {
    /// A mail was handed over.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// An order is tried again later.
    pub fn put_off(&self) {
        self.put_off.inc();
    }

    /// An order was put aside.
    pub fn parked(&self) {
        self.parked.inc();
    }

    /// An order could not even be put aside, and is tried again later.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// A mail is not sent, since its address got enough of its kind.
    pub fn capped(&self) {
        self.capped.inc();
    }
}

/// Of the eraser.
#[derive(Clone)]
pub struct ErasureMetrics {
    users: Counter,
    credentials: Counter,
    messages: [(&'static str, Counter); 5],
    oldest: Level,
}

impl ErasureMetrics {
    /// A deleted user is erased.
    pub fn user_erased(&self) {
        self.users.inc();
    }

    /// What was before a credential is erased.
    pub fn credential_erased(&self) {
        self.credentials.inc();
    }

    /// A message of a stream is erased.
    pub fn message_erased(&self, stream: &str) {
        for (_, count) in self.messages.iter().filter(|(name, _)| *name == stream) {
            count.inc();
        }
    }

    /// How long the oldest has waited that is not done.
    pub fn oldest(&self, age: Duration) {
        self.oldest.set(seconds(age));
    }
}

/// Of the spans of traces.
#[derive(Debug, Clone)]
pub struct SpanMetrics {
    begun: Counter,
    sent: Counter,
    lost: Counter,
}

impl SpanMetrics {
    /// One is recorded.
    pub fn begun(&self) {
        self.begun.inc();
    }

    /// Some were taken by the receiver.
    pub fn sent(&self, spans: u64) {
        self.sent.inc_by(spans);
    }

    /// Some could not be sent.
    pub fn lost(&self, spans: u64) {
        self.lost.inc_by(spans);
    }
}

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
