//! The client of the event log: guarded writes, reads from the leader, following in order, provisioning.
//!
//! # What cannot be written
//! There is no function here that publishes without a guard. A [`Write`] is made from a [`Guard`], and
//! a guard comes from [`Guard::absent`] or from a message that was read ([`Stored::guard`]); the NATS
//! client itself stays private. So "last writer wins" cannot be spelled:
//!
//! ```compile_fail,E0423
//! // A guard out of nothing: its number is private, and `absent` is the one constant there is.
//! let forged = service_kit::event_log::Guard(7);
//! ```
//! ```compile_fail,E0061
//! use service_kit::event_log::Write;
//! // A write without a guard.
//! let write = Write::new("ev.user.x".to_owned(), "{}");
//! ```
//!
//! `clippy.toml` forbids the publishing methods of async-nats everywhere else.
//!
//! # Unknown outcomes
//! A publish that times out may be stored, may be lost, and may still be on its way in a buffer and be
//! stored later. [`EventLog::append`] therefore looks for its command id behind the guard and, when it
//! is not there and the guard still stands, sends **the same** append again: either copy can win, but
//! only one, because the guard lets one in. Only when the deadline passes without an answer does the
//! caller get [`Outcome::Unknown`].

mod append;
mod consumers;
mod follow;
mod foreign;
mod provision;
mod read;
mod repack;
mod room;
mod sequel;
mod service;
mod snapshot;
mod state;
mod subscribers;
mod work;
mod working;

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use events::Position;
use tokio::sync::Semaphore;

use crate::config::{ServiceSettings, Settings};
use crate::metrics::{LogMetrics, Metrics};

pub use append::{Append, Guard, Outcome, Write};
pub use consumers::ConsumerState;
pub use follow::{FollowError, Followed, Following, Start};
pub use foreign::Top;
pub use provision::{
    OPERATIONS_STREAM, OPERATIONS_SUBJECT_PREFIX, ProvisionError, SERVER_VERSION_MIN, StreamSpec,
    THROTTLE_CLOSED_STREAM, THROTTLE_CLOSED_SUBJECT_PREFIX, THROTTLE_COUNTS_STREAM,
    THROTTLE_COUNTS_SUBJECT_PREFIX, THROTTLE_RECORD_LIFE, THROTTLE_STREAM, THROTTLE_SUBJECT_PREFIX,
    feed_stream, mails_stream, operations_stream, security_stream, sessions_stream,
    snapshots_stream, throttle_closed_stream, throttle_counts_stream, throttle_stream,
    users_stream,
};
pub use read::{ReadError, Stored};
pub use repack::{Damaged, Unpacker, beginning};
pub use room::Room;
pub use sequel::{SEQUEL_MESSAGES_MAX, Sequel, Tail};
pub use service::{service_feed_stream, service_log_stream, service_reaction};
pub use snapshot::{Restoring, Snapshot, SnapshotHead, Standing};
pub use state::StreamState;
pub use subscribers::{Beginning, NewSubscriber, Subscriber};
pub use work::{
    Backlog, ConsumerSpec, Task, WorkError, erasures, mailer_events, mailer_notices, mailer_orders,
};

/// Header that names the command on everything it wrote.
pub const COMMAND_ID_HEADER: &str = "Roster-Command-Id";
/// Header with the event type, so that a reader can filter without parsing.
pub const EVENT_TYPE_HEADER: &str = "Roster-Event-Type";

/// Batches one process keeps open at once. The server takes 50 per stream from all processes together
/// and answers 10210 beyond that, which is retried.
const OPEN_BATCHES_MAX: usize = 24;

/// Limits of the client.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One request to the server.
    pub request_timeout: Duration,
    /// An append with all its retries and look-ups.
    pub append_deadline: Duration,
    /// How long a command that reads the log from one position to another goes on trying while nothing comes.
    pub silence_max: Duration,
}

/// The same for those who read to no end, and never wait so.
pub const SILENCE_DEFAULT: Duration = Duration::from_secs(60);

impl Limits {
    /// The limits that the settings name.
    #[must_use]
    pub const fn of(settings: &Settings) -> Self {
        let limits = Self::ms(settings.nats.request_timeout_ms, settings.log.append_deadline_ms);
        Self { silence_max: Duration::from_secs(settings.log.silence_max_s), ..limits }
    }

    /// The limits that the settings of a further service name.
    #[must_use]
    pub const fn of_service(settings: &ServiceSettings) -> Self {
        Self::ms(settings.nats.request_timeout_ms, settings.log.append_deadline_ms)
    }

    const fn ms(request: u64, append: u64) -> Self {
        Self {
            request_timeout: Duration::from_millis(request),
            append_deadline: Duration::from_millis(append),
            silence_max: SILENCE_DEFAULT,
        }
    }
}

/// A handle on one stream of the log. Cheap to clone.
#[derive(Clone)]
pub struct EventLog {
    client: async_nats::Client,
    stream: Arc<str>,
    open_batches: Arc<Semaphore>,
    limits: Limits,
    metrics: Option<LogMetrics>,
    headroom: Option<room::Headroom>,
    foreign: foreign::Report,
}

impl EventLog {
    /// Wraps a connection. Nothing is checked; see [`EventLog::verify`].
    #[must_use]
    pub fn new(client: async_nats::Client, stream: &str, limits: Limits) -> Self {
        Self {
            client,
            stream: stream.into(),
            open_batches: Arc::new(Semaphore::new(OPEN_BATCHES_MAX)),
            limits,
            metrics: None,
            headroom: None,
            foreign: foreign::Report::default(),
        }
    }

    /// The same, with its appends counted.
    #[must_use]
    pub fn watched(self, metrics: &Metrics) -> Self {
        Self { metrics: Some(metrics.log(&self.stream)), ..self }.reporting(metrics)
    }

    /// The same, with the foreign messages counted that are passed over.
    #[must_use]
    pub fn reporting(mut self, metrics: &Metrics) -> Self {
        self.foreign.metrics = Some(metrics.foreign(&self.stream));
        self
    }

    /// How long a reader goes on trying while nothing comes.
    #[must_use]
    pub const fn silence_max(&self) -> Duration {
        self.limits.silence_max
    }

    /// The name of the stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether the connection to the server stands right now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Closes the connection, for a process that stops: a server that stops after it is no loss then.
    pub async fn disconnect(&self) {
        crate::nats::disconnect(&self.client).await;
    }

    /// Position of the last message of the stream, 0 when it is empty; also the check behind readiness.
    ///
    /// # Errors
    /// [`ReadError`] when the log does not answer.
    pub async fn end(&self) -> Result<Position, ReadError> {
        let path = format!("STREAM.INFO.{}", self.stream);
        let answer = self.request_json(&path, &serde_json::json!({})).await?;
        answer
            .pointer("/state/last_seq")
            .and_then(serde_json::Value::as_u64)
            .map(Position)
            .ok_or_else(|| ReadError::Refused("no state in the answer".to_owned()))
    }
}
