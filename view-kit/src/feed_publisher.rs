//! Publishes the feed of a service with one log: each event once and in order.
//!
//! Any instance may write the feed. Every write is guarded by the last sequence of the whole stream, and each message
//! states in a header up to which position of the log the feed is complete. So the end of the feed is its checkpoint,
//! and two publishers at once, or one that was killed, publish nothing twice (ADR 14).
//!
//! An event that cannot be read stops the feed, and readiness reports it: nothing is skipped, and nothing is published
//! out of order.

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

/// Header of every message of a service's feed: the position in its log up to which the feed is complete.
pub const POSITION_HEADER: &str = "Roster-Position";

/// Messages of one write: their size stays far below what a server accepts at once.
const WRITE_MESSAGES_MAX: usize = 500;
/// How often the follower reports that it is alive when nothing happens.
const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(1);
/// Writes in a row that another writer may win.
const CONFLICTS_MAX: u32 = 100;

/// The published part of an event: the name of its type, and its `data`.
pub type News = (&'static str, Value);

/// The published form of a service's events. The log may change with the service; the feed may not. So every member is
/// named here, and none is passed on implicitly.
pub trait Published: Fact + Sync {
    /// The service whose feed it is.
    const NAMES: ServiceNames;

    /// The published part of an event; `None` if it is not published.
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
    /// An event cannot be read, and nothing after it is published.
    #[error("the event at position {0} cannot be read: {1}. Nothing after it is published")]
    Unreadable(Position, DecodeError),
    /// A value cannot be JSON.
    #[error("an event cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    /// The feed is at its limit.
    #[error("the feed is full: raise log.feed_bytes_max and run `provision`")]
    Full,
    /// The server rejects the write.
    #[error("the feed rejects the write: {0:?}")]
    Refused(Outcome),
    /// Another program wrote the last message.
    #[error("the last message of the feed has no valid position header")]
    NoPosition,
    /// The log or the feed was restored, or belongs to another system.
    #[error(
        "the feed is published through {feed}, but the log ends at {log}: they do not belong together"
    )]
    LogBehindFeed {
        /// How far the feed is published.
        feed: Position,
        /// The end of the log.
        log: Position,
    },
    /// Another publisher is running, and won every write.
    #[error("another writer won every time")]
    Overtaken,
}

/// Publishes a service's feed.
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

/// The end of the feed, and how far it is published.
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
    /// Publishes from one verified stream into another. `stream` is the name of the feed.
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

    /// Reports the age of the oldest event that is not published, at every scrape of the metrics.
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

    /// Adds the readiness check: the feed is published in time.
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

    /// Runs until `stop`. After any failure it retries from the end of the feed.
    pub async fn run(&self, stop: &CancellationToken) {
        supervised(self, stop).await;
    }

    async fn place(&self) -> Result<Place, PublishError> {
        let subjects: Vec<&str> = self.subjects.iter().map(String::as_str).collect();
        Place::of(&self.feed.tail(&subjects).await?)
    }

    /// Publishes what is not published yet of some messages.
    async fn publish(
        &self,
        mut batch: Vec<Followed>,
        place: &mut Place,
    ) -> Result<(), PublishError> {
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
                // Another writer was first, or the outcome is unknown: read the end of the feed.
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
        // With a backlog it is healthy only once that is published: the feed may be full.
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
            self.publish(batch, &mut place).await?;
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
    /// A decimal string, because an integer of CloudEvents has 32 bits.
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
