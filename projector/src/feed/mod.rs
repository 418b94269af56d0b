//! The feed: what other services are published, each event once and in order.
//!
//! It is written by whichever projector knows the end of it: every write is guarded by the last sequence of the
//! whole stream ([`EventLog::append_behind`]). Each message says in its headers up to which position of `USERS`
//! and of `SESSIONS` the feed tells everything, so the end of the feed is the checkpoint, and none has to be
//! kept anywhere else (ADR 14). After anything but an acknowledged write the end is read again, and what it
//! covers by then is not published a second time.
//!
//! # Order
//! Users and sessions are two streams, and one feed. What happened to one user, and what happened to one session,
//! comes in its order. Between the two the time of storing decides while there is a backlog, and at the end of
//! the log an event of a session waits until everything is published that happened to users before it.
//!
//! # Deletion
//! Nothing about a user comes after `users.v1.deleted`, so that erasing what is before it erases everything. A
//! login can race a deletion and store a session later than it. So the log is asked, with the events of a
//! session in hand, whether their user is gone; then they are not published. A deletion that is stored after that
//! question is published after them, since it is read later.
//!
//! # What cannot be read
//! The user or session is parked: nothing is published of it from there on, and the last message says so in a header, so
//! that telling it later is one write with letting it go (ADR 20). A deletion is published in any case, and ends it.

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

/// Members of one write: its bytes stay far below what a server takes in at once.
const WRITE_MESSAGES_MAX: usize = 500;
/// How often it is said that the feed follows the log when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Writes in a row that another writer was faster at.
const CONFLICTS_MAX: u32 = 100;
/// Why a run ended; the next one starts from the end of the feed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(
        "the event at position {0} of {1} cannot be read: {2}. It is not parked, as {3} aggregates are (projector.parked_max), and nothing behind it is published"
    )]
    TooManyParked(Position, &'static str, DecodeError, usize),
    #[error("an event cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    #[error("an event that the log of users holds does not come")]
    Missing,
    #[error("the feed is full: raise feed.bytes_max and run `roster provision`")]
    Full,
    #[error("the feed takes nothing in: {0:?}")]
    Refused(Outcome),
    #[error("a message of the feed does not say how far it tells, or what is parked")]
    NoPosition,
    #[error(
        "the feed tells up to {feed} of {stream} and the log ends at {log}: they do not belong together"
    )]
    LogBehindFeed { stream: &'static str, feed: Position, log: Position },
    #[error("the feed has become shorter: it ended at {before} and ends at {now}")]
    Shortened { before: Position, now: Position },
    #[error("another writer is faster every time")]
    Overtaken,
}

/// The writer of the feed.
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
    /// Checks the stream of the feed. Those of the log are checked by the views.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
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

    /// Lets every scrape see how old the oldest event is that is not published yet.
    fn watch(&self, metrics: &Metrics) {
        let (progress, users, sessions) =
            (self.progress.clone(), self.users.clone(), self.sessions.clone());
        let watched = self.metrics.clone();
        metrics.sample(move || {
            let (published, users, sessions) =
                (progress.position(), users.clone(), sessions.clone());
            let watched = watched.clone();
            async move {
                // A log that does not answer is published by what it is asked for, not here.
                if let Ok(age) = age_of_unpublished(&users, &sessions, published).await {
                    watched.lags(age);
                }
            }
        });
    }

    /// What must hold for other services to be published in time.
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

    /// Tells what a batch of the logs leads to, and only what is not published yet.
    async fn tell(&self, mut batch: Vec<Read>, place: &mut FeedEnd) -> Result<(), FeedError> {
        for _ in 0..CONFLICTS_MAX {
            batch.retain(|message| !place.published.covers(message));
            // Anew each time: a user may have been deleted since, and published to be.
            let Ahead { messages, published, parked, failure } = self.ahead(&batch, place).await?;
            if self.write(place, &messages).await? {
                (place.published, place.parked) = (published, parked);
                self.has_parked(place);
                return failure.map_or(Ok(()), Err);
            }
        }
        Err(FeedError::Overtaken)
    }

    /// Reads once more what is parked, and tells what can be read of it.
    async fn retry(&self, place: &mut FeedEnd) -> Result<(), FeedError> {
        for (from, aggregate, _) in place.parked.entries() {
            while let Some(parked) = self.ahead_of_parked(from, &aggregate, place).await? {
                let Ahead { messages, parked, .. } = parked;
                // Whoever was faster may have published it as well: then it is not parked any more.
                if self.write(place, &messages).await? {
                    place.parked = parked;
                }
            }
        }
        self.has_parked(place);
        Ok(())
    }

    /// Writes behind the end of the feed. If that is not where it was thought to be nothing is written, and
    /// where the feed stands is known again.
    async fn write(&self, place: &mut FeedEnd, messages: &[Sequel]) -> Result<bool, FeedError> {
        if messages.is_empty() {
            return Ok(true);
        }
        match self.feed.append_behind(place.end, messages).await {
            Outcome::Stored(position) => {
                place.end = position;
                Ok(true)
            }
            Outcome::Full => Err(FeedError::Full),
            refused @ Outcome::Refused(..) => Err(FeedError::Refused(refused)),
            // Somebody else wrote, or nobody knows: the end of the feed does.
            Outcome::Conflict | Outcome::Duplicate | Outcome::Unknown | Outcome::Unavailable => {
                place.catch_up(&self.feed.tail(&FEED_STREAM_SUBJECTS).await?)?;
                Ok(false)
            }
        }
    }

    fn has_parked(&self, place: &FeedEnd) {
        self.progress.has_parked(place.parked.count());
        self.metrics.has_parked(place.parked.count());
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
        let mut place = FeedEnd::of(&self.feed.tail(&FEED_STREAM_SUBJECTS).await?)?;
        for (from, log) in [(Source::Users, &self.users), (Source::Sessions, &self.sessions)] {
            let (stream, feed, log) = (from.stream(), place.published.of(from), log.end().await?);
            if log < feed {
                return Err(FeedError::LogBehindFeed { stream, feed, log });
            }
        }
        self.retry(&mut place).await?;
        let mut reader = Reader::open(
            (&self.users, place.published.users),
            (&self.sessions, place.published.sessions),
            self.batch_max,
        )
        .await?;
        tracing::info!(stream = FEED_STREAM, end = %place.end, "the projector follows the log");
        // With something to tell it is not well before that is published: the feed may be full.
        if reader.pending() == 0 {
            self.progress.reached(place.published);
        }
        self.metrics.follows(place.end, reader.pending());
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let batch = tokio::select! {
                _ = heartbeat.tick() => {
                    if retries.are_due() {
                        self.retry(&mut place).await?;
                    }
                    continue;
                }
                batch = reader.next(self.batch_max) => batch?,
            };
            let (began, events) = (Instant::now(), batch.len() as u64);
            self.tell(batch, &mut place).await?;
            self.metrics.wrote(events, began.elapsed());
            self.metrics.follows(place.end, reader.pending());
            self.progress.reached(place.published);
        }
    }
}

/// Whether the feed tells everything of the users up to a position, as its last message says.
pub(crate) async fn is_published_through(
    feed: &EventLog,
    position: Position,
) -> Result<bool, ReadError> {
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await?;
    let place = FeedEnd::of(&tail).map_err(|error| ReadError::Refused(error.to_string()))?;
    Ok(place.published.users >= position && place.parked.count() == 0)
}

/// A user or session of which nothing is published any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedInFeed {
    /// The stream with the event that cannot be read.
    pub stream: &'static str,
    /// Where it stands there.
    pub position: Position,
    /// Whom it is about, as [`subjects::aggregate`] names it.
    pub aggregate: String,
}

/// What the last message of the feed says is parked.
///
/// # Errors
/// [`ReadError`]: nothing is known.
pub async fn parked_in_feed(feed: &EventLog) -> Result<Vec<ParkedInFeed>, ReadError> {
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await?;
    let place = FeedEnd::of(&tail).map_err(|error| ReadError::Refused(error.to_string()))?;
    let entry = |(from, aggregate, position): (Source, String, Position)| ParkedInFeed {
        stream: from.stream(),
        position,
        aggregate,
    };
    Ok(place.parked.entries().into_iter().map(entry).collect())
}

/// Where subscribers find the schemas. In production a default that only this machine can open is not published.
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
