//! The feed: publishes each event to peer services once and in order.
//!
//! Any projector may write it. Every write is guarded by the last sequence of the whole stream
//! ([`EventLog::append_behind`]). Each message states in its headers up to which positions of `USERS` and `SESSIONS`
//! the feed is complete, so the end of the feed is its own checkpoint (ADR 14). After any outcome but an acknowledged
//! write, the end is read again, and what it covers by then is not published a second time.
//!
//! # Order
//! Users and sessions are two streams and one feed. The events of one user, and those of one session, are published in
//! their order. Between the two, the time of storing decides while there is a backlog. At the end of the log, an event
//! of a session waits until every earlier event of users is published.
//!
//! # Deletion
//! Nothing of a user is published after `users.v1.deleted`, so erasing everything before it erases everything. A login
//! can race a deletion and store a session after it. So before events of a session are published, the log is asked
//! whether their user is deleted; if so, they are not published. A deletion that is stored after that question is read
//! later, and therefore published after them.
//!
//! # Unreadable events
//! The user or session is parked: nothing more of it is published, and the last message says so in a header, so that
//! publishing it later and releasing it are one write (ADR 20). A deletion is published in any case, and ends the
//! parking.

mod ahead;
mod feed_end;
pub mod project;
mod reader;

use std::time::Duration;

use events::feed::{DataSchemas, FEED_STREAM, FEED_STREAM_SUBJECTS};
use events::{DecodeError, Position, subjects};
use service_kit::ambient;
use service_kit::config::{Deployment, Settings};
use service_kit::event_log::{
    EventLog, FollowError, Limits, Outcome, ReadError, SEQUEL_MESSAGES_MAX, Sequel, feed_stream,
};
use service_kit::health::Readiness;
use service_kit::metrics::{Metrics, ProjectorMetrics};
use service_kit::preflight::is_loopback_url;
use service_kit::telemetry::Telemetry;
use tokio::time::{Instant, MissedTickBehavior, interval};
use view_kit::{Follower, Progress, Retries, age, none_parked};

use self::ahead::Ahead;
pub use self::ahead::event_of;
use self::feed_end::{FeedEnd, PublishedThrough};
use self::reader::{Read, Reader, Source};
use crate::app::{PARKED_LIST, StartError};

/// Messages of one write: their size stays far below what a server accepts at once.
const WRITE_MESSAGES_MAX: usize = 500;
/// How often the follower reports that it is alive when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Writes in a row that another writer may win.
const CONFLICTS_MAX: u32 = 100;
/// Why a run ended; the next one starts from the end of the feed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(
        "the event at position {0} of {1} cannot be read: {2}. It is not parked because {3} aggregates are already (projector.parked_max), and nothing after it is published"
    )]
    TooManyParked(Position, &'static str, DecodeError, usize),
    #[error("an event cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("an event that is in the log of users does not arrive")]
    Missing,
    #[error("the feed is full: raise feed.bytes_max and run `roster provision`")]
    Full,
    #[error("the feed rejects the write: {0:?}")]
    Refused(Outcome),
    #[error("a message of the feed has no valid position or parking header")]
    NoPosition,
    #[error(
        "the feed is published through {feed} of {stream}, but the log ends at {log}: they do not belong together"
    )]
    LogBehindFeed { stream: &'static str, feed: Position, log: Position },
    #[error("the feed became shorter: it ended at {before} and now ends at {now}")]
    Shortened { before: Position, now: Position },
    #[error("another writer won every time")]
    Overtaken,
}

/// Writes the feed.
pub(crate) struct Feed {
    users: EventLog,
    sessions: EventLog,
    feed: EventLog,
    sessions_kept: Duration,
    schemas: Option<DataSchemas>,
    batch_max: usize,
    parked_max: usize,
    lag_max: Duration,
    progress: Progress<PublishedThrough>,
    metrics: ProjectorMetrics,
    retries: Retries,
}

impl Feed {
    /// Checks the stream of the feed. The views check those of the log.
    ///
    /// # Errors
    /// [`StartError`]: nothing was started.
    pub(crate) async fn open(
        client: &async_nats::Client,
        settings: &Settings,
        watch: &Telemetry,
        retries: Retries,
    ) -> Result<Self, StartError> {
        let log = |stream| {
            EventLog::new(client.clone(), stream, Limits::of(settings)).reporting(&watch.metrics)
        };
        let feed = log(FEED_STREAM).watched(&watch.metrics);
        feed.verify(&feed_stream(&settings.log, &settings.feed)).await?;
        feed.watch_room(&watch.metrics);
        let writer = Self {
            users: log(subjects::USERS_STREAM),
            sessions: log(subjects::SESSIONS_STREAM),
            feed,
            sessions_kept: Duration::from_secs(settings.feed.sessions_kept_s),
            schemas: data_schemas(settings),
            batch_max: settings
                .projector
                .batch_events_max
                .min(WRITE_MESSAGES_MAX)
                .min(SEQUEL_MESSAGES_MAX),
            parked_max: settings.projector.parked_max,
            lag_max: Duration::from_millis(settings.projector.lag_max_ms),
            progress: Progress::default(),
            metrics: watch.metrics.projector(FEED_STREAM),
            retries,
        };
        writer.watch(&watch.metrics);
        Ok(writer)
    }

    /// Reports the age of the oldest event that is not published, at every scrape of the metrics.
    fn watch(&self, metrics: &Metrics) {
        let (progress, users, sessions) =
            (self.progress.clone(), self.users.clone(), self.sessions.clone());
        let watched = self.metrics.clone();
        metrics.sample(move || {
            let (published, users, sessions) =
                (progress.position(), users.clone(), sessions.clone());
            let watched = watched.clone();
            async move {
                // A log that does not answer is reported where it is read, not here.
                if let Ok(age) = age_of_unpublished(&users, &sessions, published).await {
                    watched.lags(age);
                }
            }
        });
    }

    /// Adds the readiness check: the feed is published in time.
    #[must_use]
    pub(crate) fn check(&self, readiness: Readiness) -> Readiness {
        let (progress, lag_max) = (self.progress.clone(), self.lag_max);
        let (users, sessions) = (self.users.clone(), self.sessions.clone());
        readiness.with("projector-feed", move || {
            let (progress, users, sessions) = (progress.clone(), users.clone(), sessions.clone());
            async move {
                if let Some(trouble) = progress.trouble() {
                    return Err(trouble);
                }
                let lag = age_of_unpublished(&users, &sessions, progress.position()).await;
                let lag = lag.map_err(|error| error.to_string())?;
                if lag <= lag_max {
                    return none_parked(progress.parked(), PARKED_LIST);
                }
                Err(format!("the feed is {} s behind the log", lag.as_secs()))
            }
        })
    }

    /// Publishes what is not published yet of a batch of the logs.
    async fn publish(&self, mut batch: Vec<Read>, feed_end: &mut FeedEnd) -> Result<(), FeedError> {
        for _ in 0..CONFLICTS_MAX {
            batch.retain(|message| !feed_end.published.covers(message));
            // Computed anew in each attempt: another writer may have published a deletion in the meantime.
            let Ahead { messages, published, parked, failure } =
                self.ahead(&batch, feed_end).await?;
            if self.write(feed_end, &messages).await? {
                (feed_end.published, feed_end.parked) = (published, parked);
                self.has_parked(feed_end);
                return failure.map_or(Ok(()), Err);
            }
        }
        Err(FeedError::Overtaken)
    }

    /// Reads parked events again, and publishes those that can be read now.
    async fn retry(&self, feed_end: &mut FeedEnd) -> Result<(), FeedError> {
        for (from, aggregate, _) in feed_end.parked.entries() {
            while let Some(parked) = self.ahead_of_parked(from, &aggregate, feed_end).await? {
                let Ahead { messages, parked, .. } = parked;
                // If another writer published it in the meantime, it is no longer parked.
                if self.write(feed_end, &messages).await? {
                    feed_end.parked = parked;
                }
            }
        }
        self.has_parked(feed_end);
        Ok(())
    }

    /// Appends after the known end of the feed. If the feed has grown since, nothing is written and its end is read
    /// again.
    async fn write(&self, feed_end: &mut FeedEnd, messages: &[Sequel]) -> Result<bool, FeedError> {
        if messages.is_empty() {
            return Ok(true);
        }
        match self.feed.append_behind(feed_end.end, messages).await {
            Outcome::Stored(position) => {
                feed_end.end = position;
                Ok(true)
            }
            Outcome::Full => Err(FeedError::Full),
            refused @ Outcome::Refused(..) => Err(FeedError::Refused(refused)),
            // Another writer was first, or the outcome is unknown: read the end of the feed.
            Outcome::Conflict | Outcome::Duplicate | Outcome::Unknown | Outcome::Unavailable => {
                feed_end.catch_up(&self.feed.tail(&FEED_STREAM_SUBJECTS).await?)?;
                Ok(false)
            }
        }
    }

    fn has_parked(&self, feed_end: &FeedEnd) {
        self.progress.has_parked(feed_end.parked.count());
        self.metrics.has_parked(feed_end.parked.count());
    }
}

impl Follower for Feed {
    type Position = PublishedThrough;
    type Error = FeedError;

    fn stream(&self) -> &'static str {
        FEED_STREAM
    }

    fn progress(&self) -> &Progress<PublishedThrough> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), FeedError> {
        let mut feed_end = FeedEnd::of(&self.feed.tail(&FEED_STREAM_SUBJECTS).await?)?;
        for (from, log) in [(Source::Users, &self.users), (Source::Sessions, &self.sessions)] {
            let (stream, feed, log) =
                (from.stream(), feed_end.published.of(from), log.end().await?);
            if log < feed {
                return Err(FeedError::LogBehindFeed { stream, feed, log });
            }
        }
        self.retry(&mut feed_end).await?;
        let mut reader = Reader::open(
            (&self.users, feed_end.published.users),
            (&self.sessions, feed_end.published.sessions),
            self.batch_max,
        )
        .await?;
        tracing::info!(stream = FEED_STREAM, end = %feed_end.end, "the projector follows the log");
        // With a backlog it is healthy only once that is published: the feed may be full.
        if reader.pending() == 0 {
            self.progress.reached(feed_end.published);
        }
        self.metrics.follows(feed_end.end, reader.pending());
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let batch = tokio::select! {
                _ = heartbeat.tick() => {
                    if retries.are_due() {
                        self.retry(&mut feed_end).await?;
                    }
                    continue;
                }
                batch = reader.next(self.batch_max) => batch?,
            };
            let (began, events) = (Instant::now(), batch.len() as u64);
            self.publish(batch, &mut feed_end).await?;
            self.metrics.wrote(events, began.elapsed());
            self.metrics.follows(feed_end.end, reader.pending());
            self.progress.reached(feed_end.published);
        }
    }
}

/// Whether the feed is complete for the users up to a position, according to its last message.
pub(crate) async fn is_published_through(
    feed: &EventLog,
    position: Position,
) -> Result<bool, ReadError> {
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await?;
    let feed_end = FeedEnd::of(&tail).map_err(|error| ReadError::Refused(error.to_string()))?;
    Ok(feed_end.published.users >= position && feed_end.parked.count() == 0)
}

/// A user or session of which nothing more is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedInFeed {
    /// The stream with the event that cannot be read.
    pub stream: &'static str,
    /// The position of that event.
    pub position: Position,
    /// The aggregate, as [`subjects::aggregate`] names it.
    pub aggregate: String,
}

/// The parked aggregates according to the last message of the feed.
///
/// # Errors
/// [`ReadError`]: nothing is known.
pub async fn parked_in_feed(feed: &EventLog) -> Result<Vec<ParkedInFeed>, ReadError> {
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await?;
    let feed_end = FeedEnd::of(&tail).map_err(|error| ReadError::Refused(error.to_string()))?;
    let entry = |(from, aggregate, position): (Source, String, Position)| ParkedInFeed {
        stream: from.stream(),
        position,
        aggregate,
    };
    Ok(feed_end.parked.entries().into_iter().map(entry).collect())
}

/// The URL of the schemas. In production a default that only this machine can open is not published.
fn data_schemas(settings: &Settings) -> Option<DataSchemas> {
    let issuer = &settings.tokens.issuer;
    let is_reachable = settings.deployment == Deployment::Development || !is_loopback_url(issuer);
    is_reachable.then(|| DataSchemas::served_at(issuer)).flatten()
}

/// Age of the oldest event that is not published.
async fn age_of_unpublished(
    users: &EventLog,
    sessions: &EventLog,
    published: PublishedThrough,
) -> Result<Duration, ReadError> {
    let now = ambient::now();
    let user = users.next(subjects::USER_EVENTS_FILTER, published.users).await?;
    let session = sessions.next(subjects::SESSION_EVENTS_FILTER, published.sessions).await?;
    let age = |stored: Option<service_kit::event_log::Stored>| {
        age(stored.map(|stored| stored.stored_at), now)
    };
    Ok(age(user).max(age(session)))
}
