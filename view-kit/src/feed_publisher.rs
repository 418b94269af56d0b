//! Telling others what happened: the feed of a service with one log, each event once and in order.
//!
//! Whoever knows the end of the feed writes it: every write is guarded by the last sequence of the whole stream, and
//! each message says in a header up to which position of the log the feed tells everything. So the end of the feed is
//! the checkpoint, and two tellers at once, or one that was killed, tell nothing twice (ADR 14).
//!
//! An event that cannot be read stops the feed, and readiness says so: nothing is skipped, and nothing is told out of
//! order.

use std::marker::PhantomData;

use events::{DecodeError, Envelope, Fact, Position, ServiceNames};
use futures::StreamExt;
use serde::Serialize;
use serde_json::Value;
use service_kit::ambient;
use service_kit::event_log::{
    EVENT_TYPE_HEADER, EventLog, FollowError, Followed, Outcome, ReadError, SEQUEL_MESSAGES_MAX,
    Sequel, Start, Tail,
};
use service_kit::health::Readiness;
use service_kit::metrics::ProjectorMetrics;
use service_kit::telemetry::Telemetry;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::lag::{age_of_missing, keeps_up};
use crate::run::FollowLimits;
use crate::supervise::{Follower, Progress, supervised};

/// Header of every message of a service's feed: the position in its log up to which the feed tells everything.
pub const POSITION_HEADER: &str = "Roster-Position";

/// Messages of one write: their bytes stay far below what a server takes in at once.
const WRITE_MESSAGES_MAX: usize = 500;
/// How often it is said that the feed follows the log when nothing happens.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);
/// Writes in a row that another writer was faster at.
const CONFLICTS_MAX: u32 = 100;

/// What others are told of an event: the name of its type, and its `data`.
pub type News = (&'static str, Value);

/// What is published of a kind of events. The log may change with the service, the feed may not: so every member is
/// named here, and none is passed on because it happens to be there.
pub trait Published: Fact + Sync {
    /// Whose feed it is.
    const NAMES: ServiceNames;

    /// What others are told; `None` when it is nobody's business.
    ///
    /// # Errors
    /// Only when a value cannot be JSON.
    fn news(event: &Envelope<Self>) -> Result<Option<News>, serde_json::Error>;
}

/// Why a run ended; the next one starts from the end of the feed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The log or the feed does not answer.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The log cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// Nothing is told behind it.
    #[error("the event at position {0} cannot be read: {1}. Nothing behind it is told")]
    Unreadable(Position, DecodeError),
    /// A value cannot be JSON.
    #[error("an event cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    /// The feed is at its bound.
    #[error("the feed is full: raise log.feed_bytes_max and run `provision`")]
    Full,
    /// The server refuses.
    #[error("the feed takes nothing in: {0:?}")]
    Refused(Outcome),
    /// Somebody else wrote it.
    #[error("the last message of the feed does not say how far it tells")]
    NoPosition,
    /// One of them was put back, or belongs to another system.
    #[error("the feed tells up to {feed} and the log ends at {log}: they do not belong together")]
    LogBehindFeed {
        /// How far the feed is.
        feed: Position,
        /// Where the log ends.
        log: Position,
    },
    /// Another teller is there, and quicker.
    #[error("another writer is faster every time")]
    Overtaken,
}

/// The writer of a service's feed.
pub struct FeedPublisher<F> {
    log: EventLog,
    feed: EventLog,
    limits: FollowLimits,
    events: String,
    subjects: Vec<String>,
    stream: &'static str,
    progress: Progress<Position>,
    metrics: ProjectorMetrics,
    of: PhantomData<fn() -> F>,
}

/// Where the feed ends, and how far it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    end: Position,
    told: Position,
}

impl Place {
    fn of(tail: &Tail) -> Result<Self, PublishError> {
        let told = match &tail.last {
            None => Position(0),
            Some(last) => {
                let header = last.header(POSITION_HEADER).and_then(|text| text.parse().ok());
                header.map(Position).ok_or(PublishError::NoPosition)?
            }
        };
        Ok(Self { end: tail.end, told })
    }
}

impl<F: Published> FeedPublisher<F> {
    /// From one verified stream into another. `stream` is the name of the feed's.
    #[must_use]
    pub fn new(
        log: EventLog,
        feed: EventLog,
        stream: &'static str,
        limits: FollowLimits,
        watch: &Telemetry,
    ) -> Self {
        let teller = Self {
            log,
            feed,
            limits,
            events: F::NAMES.events_filter(),
            subjects: F::NAMES.feed_subjects().to_vec(),
            stream,
            progress: Progress::default(),
            metrics: watch.metrics.projector(stream),
            of: PhantomData,
        };
        teller.watch(watch);
        teller
    }

    /// Lets every scrape see how old the oldest event is that is not told yet.
    fn watch(&self, watch: &Telemetry) {
        let (log, progress) = (self.log.clone(), self.progress.clone());
        let (watched, events) = (self.metrics.clone(), self.events.clone());
        watch.metrics.sample(move || {
            let (log, progress) = (log.clone(), progress.clone());
            let (watched, events) = (watched.clone(), events.clone());
            async move {
                if progress.trouble().is_none()
                    && let Ok(age) = age_of_missing(&log, &[&events], progress.position()).await
                {
                    watched.lags(age);
                }
            }
        });
    }

    /// What must hold for others to be told in time.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let (log, progress) = (self.log.clone(), self.progress.clone());
        let (events, lag_max) = (self.events.clone(), self.limits.lag_max);
        Readiness::default().with("feed", move || {
            let (log, progress, events) = (log.clone(), progress.clone(), events.clone());
            async move {
                if let Some(trouble) = progress.trouble() {
                    return Err(trouble);
                }
                keeps_up(&log, &[&events], progress.position(), lag_max).await
            }
        })
    }

    /// Runs until `stop`. Whatever fails is tried again, from the end of the feed.
    pub async fn run(&self, stop: &CancellationToken) {
        supervised(self, stop).await;
    }

    async fn place(&self) -> Result<Place, PublishError> {
        let subjects: Vec<&str> = self.subjects.iter().map(String::as_str).collect();
        Place::of(&self.feed.tail(&subjects).await?)
    }

    /// Tells what some messages lead to, and only what is not told yet.
    async fn tell(&self, mut batch: Vec<Followed>, place: &mut Place) -> Result<(), PublishError> {
        for _ in 0..CONFLICTS_MAX {
            batch.retain(|message| message.position > place.told);
            let Some(last) = batch.last() else { return Ok(()) };
            let told = last.position;
            let mut messages = Vec::with_capacity(batch.len());
            for message in batch.iter().filter(|message| !message.is_foreign) {
                messages.extend(self.sequel(message)?);
            }
            if messages.is_empty() {
                place.told = told;
                return Ok(());
            }
            match self.feed.append_behind(place.end, &messages).await {
                Outcome::Stored(end) => {
                    *place = Place { end, told };
                    return Ok(());
                }
                Outcome::Full => return Err(PublishError::Full),
                refused @ Outcome::Refused(..) => return Err(PublishError::Refused(refused)),
                // Somebody else wrote, or nobody knows: the end of the feed does.
                Outcome::Conflict
                | Outcome::Duplicate
                | Outcome::Unknown
                | Outcome::Unavailable => *place = self.place().await?,
            }
        }
        Err(PublishError::Overtaken)
    }

    fn sequel(&self, message: &Followed) -> Result<Option<Sequel>, PublishError> {
        let position = message.position;
        let event = Envelope::<F>::from_json(&message.payload)
            .map_err(|error| PublishError::Unreadable(position, error))?;
        let Some((name, data)) = F::news(&event)? else { return Ok(None) };
        let wire = Wire::of(&event, name, data, position);
        let headers = vec![
            (POSITION_HEADER, position.to_string()),
            (EVENT_TYPE_HEADER, wire.kind.clone()),
            ("Nats-Msg-Id", event.id.to_string()),
        ];
        Ok(Some(Sequel {
            subject: F::NAMES.feed_event(name, &wire.subject),
            payload: serde_json::to_vec(&wire)?.into(),
            headers,
            kept: None,
        }))
    }
}

impl<F: Published> Follower for FeedPublisher<F> {
    type Position = Position;
    type Error = PublishError;

    fn stream(&self) -> &'static str {
        self.stream
    }

    fn progress(&self) -> &Progress<Position> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), PublishError> {
        let mut place = self.place().await?;
        let log = self.log.end().await?;
        if log < place.told {
            return Err(PublishError::LogBehindFeed { feed: place.told, log });
        }
        let following = self.log.follow(&[&self.events], Start::Behind(place.told)).await?;
        let batch_max =
            self.limits.batch_events_max.min(WRITE_MESSAGES_MAX).min(SEQUEL_MESSAGES_MAX);
        let mut chunks = following.messages.ready_chunks(batch_max);
        tracing::info!(stream = self.stream, end = %place.end, "the feed follows the log");
        // With something to tell it is not well before that is told: the feed may be full.
        if following.pending == 0 {
            self.progress.reached(place.told);
        }
        self.metrics.follows(place.end, following.pending);
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let chunk = tokio::select! {
                _ = heartbeat.tick() => continue,
                chunk = chunks.next() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let (mut batch, mut failure) = (Vec::with_capacity(chunk.len()), None);
            for next in chunk {
                match next {
                    Ok(message) => batch.push(message),
                    Err(error) => failure = Some(error),
                }
            }
            let (began, events) = (Instant::now(), batch.len() as u64);
            let pending = batch.last().map_or(0, |last| last.pending);
            self.tell(batch, &mut place).await?;
            self.metrics.wrote(events, began.elapsed());
            self.metrics.follows(place.end, pending);
            self.progress.reached(place.told);
            if let Some(failure) = failure {
                return Err(failure.into());
            }
        }
    }
}

/// An event of the feed on the wire: CloudEvents 1.0 in JSON, in the form of Roster's own feed.
#[derive(Serialize)]
struct Wire<'a> {
    specversion: &'static str,
    id: String,
    source: &'static str,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: events::Timestamp,
    datacontenttype: &'static str,
    revision: events::Revision,
    /// A decimal string, since an integer of CloudEvents has 32 bits.
    position: String,
    actor: events::Actor,
    commandid: events::CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Value,
}

impl<'a> Wire<'a> {
    fn of<F: Published>(
        event: &'a Envelope<F>,
        name: &str,
        data: Value,
        position: Position,
    ) -> Self {
        Self {
            specversion: "1.0",
            id: event.id.to_string(),
            source: F::SOURCE,
            kind: format!("{}.v1.{name}", F::NAMES.plural()),
            subject: F::subject(&event.after),
            time: event.time,
            datacontenttype: "application/json",
            revision: event.revision(),
            position: position.to_string(),
            actor: event.actor,
            commandid: event.command_id,
            correlationid: event.correlation_id.as_deref(),
            causationid: event.causation_id.as_deref(),
            traceparent: event.traceparent.as_deref(),
            data,
        }
    }
}
