//! Publishes a feed: the events of one or more logs, each once and in order.
//!
//! Any instance may write the feed. Every write is guarded by the last sequence of the whole stream
//! ([`EventLog::append_behind`]). The headers of each message state up to which position of each log the feed is
//! complete. So the end of the feed is its checkpoint, and two publishers at once, or one that was killed, publish
//! nothing twice (ADR 14). After any outcome except an acknowledged write, the end is read again, and what it covers by
//! then is skipped.
//!
//! # Order
//! The events of one log are published in their order. Between logs, the time of storing decides while there is a
//! backlog. At the end of the logs, an event of another log waits until every earlier event of the first one is
//! published.
//!
//! # Unreadable events
//! The aggregate is parked: nothing more of it is published, and the last message says so in a header, so that
//! publishing it later and releasing it are one write (ADR 20). An event that ends its aggregate is published in any
//! case, and ends the parking. Once `parked_max` aggregates are parked, the next unreadable event stops the feed.
//!
//! Roster's feed merges two logs. A peer service has one, and runs a [`ServiceFeedPublisher`].

mod advance;
mod error;
mod feed_end;
mod reader;
mod service;

use std::sync::Arc;
use std::time::Duration;

use events::{DecodeError, Position};
use service_kit::ambient;
use service_kit::event_log::{
    EventLog, Followed, Outcome, ReadError, SEQUEL_MESSAGES_MAX, Sequel, Stored,
};
use service_kit::health::Readiness;
use service_kit::metrics::ProjectorMetrics;
use service_kit::telemetry::Telemetry;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::advance::Advance;
pub use self::error::PublishError;
pub use self::feed_end::FeedEnd;
use self::reader::{Reader, SourceMessage};
pub use self::service::{PublicEvent, Published, ServiceFeedPublisher, ServiceFeedSource};
use crate::lag::age;
use crate::retry::Retries;
use crate::run::FollowLimits;
use crate::supervise::{Follower, Progress, none_parked, supervised};

/// Messages of one write: their size stays far below what a server accepts at once.
const WRITE_MESSAGES_MAX: usize = 500;
/// How often the publisher reports that it is alive when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Writes in a row that another writer may win.
const CONFLICTS_MAX: u32 = 100;

/// What the messages of the logs become.
pub trait FeedSource: Send + Sync + 'static {
    /// An event of the feed.
    type Event: Send;

    /// The event of a message, if it has one.
    ///
    /// # Errors
    /// [`DecodeError`]: the message cannot be read.
    fn event(&self, message: &Followed) -> Result<Option<Self::Event>, DecodeError>;

    /// Whether nothing follows an event of its aggregate, and nothing before it counts.
    fn is_last(_event: &Self::Event) -> bool {
        false
    }

    /// The message of each event; `None` for an event that is not published after all.
    ///
    /// # Errors
    /// Nothing can be published now.
    fn messages(
        &self,
        events: Vec<Self::Event>,
    ) -> impl Future<Output = Result<Vec<Option<Sequel>>, PublishError>> + Send;
}

/// A log that is published.
pub struct SourceLog {
    /// The log.
    pub log: EventLog,
    /// The subjects that are read, each a prefix before the name of an aggregate. The first one has the events, by which
    /// the lag is measured.
    pub filters: Vec<String>,
    /// The header of the feed's messages that states how far this log is published.
    pub header: &'static str,
}

impl SourceLog {
    /// The first event after a position.
    async fn next_event(&self, position: Position) -> Result<Option<Stored>, ReadError> {
        self.log.next(self.filters.first().map_or("", String::as_str), position).await
    }
}

/// A feed and its logs.
pub struct Feed<S> {
    /// What the messages of the logs become.
    pub source: S,
    /// The logs.
    pub logs: Vec<SourceLog>,
    /// The verified stream of the feed.
    pub stream: EventLog,
    /// The name of that stream.
    pub name: &'static str,
    /// The subjects of that stream.
    pub subjects: Vec<String>,
    /// The name of the readiness check.
    pub check: &'static str,
    /// The command that lists parked aggregates.
    pub parked_list: &'static str,
}

impl<S> Feed<S> {
    async fn end(&self) -> Result<FeedEnd, PublishError> {
        let subjects: Vec<&str> = self.subjects.iter().map(String::as_str).collect();
        FeedEnd::of(&self.stream.tail(&subjects).await?, &self.headers())
    }

    /// The streams of the logs with their headers.
    fn headers(&self) -> Vec<(&str, &'static str)> {
        self.logs.iter().map(|of| (of.log.stream(), of.header)).collect()
    }

    /// Age of the oldest event that is not published.
    async fn lag(&self, published: &FeedEnd) -> Result<Duration, ReadError> {
        let mut lag = Duration::ZERO;
        for (n, source) in self.logs.iter().enumerate() {
            let missing = source.next_event(published.published_through(n)).await?;
            lag = lag.max(age(missing.map(|missing| missing.stored_at), ambient::now()));
        }
        Ok(lag)
    }
}

/// Publishes a feed.
pub struct FeedPublisher<S> {
    feed: Arc<Feed<S>>,
    limits: FollowLimits,
    progress: Progress<FeedEnd>,
    metrics: ProjectorMetrics,
    retries: Option<Retries>,
}

impl<S: FeedSource> FeedPublisher<S> {
    /// `retries` says when parked aggregates are read again.
    #[must_use]
    pub fn of(
        feed: Feed<S>,
        mut limits: FollowLimits,
        retries: Option<Retries>,
        watch: &Telemetry,
    ) -> Self {
        let messages_max = WRITE_MESSAGES_MAX.min(SEQUEL_MESSAGES_MAX);
        limits.batch_events_max = limits.batch_events_max.min(messages_max);
        let publisher = Self {
            limits,
            progress: Progress::default(),
            metrics: watch.metrics.projector(feed.name),
            feed: Arc::new(feed),
            retries,
        };
        publisher.watch(watch);
        publisher
    }

    /// Reports the age of the oldest event that is not published, at every scrape of the metrics.
    fn watch(&self, watch: &Telemetry) {
        let (feed, progress) = (Arc::clone(&self.feed), self.progress.clone());
        let watched = self.metrics.clone();
        watch.metrics.sample(move || {
            let (feed, published) = (Arc::clone(&feed), progress.position());
            let watched = watched.clone();
            async move {
                // A log that does not answer is reported where it is read, not here.
                if let Ok(lag) = feed.lag(&published).await {
                    watched.lags(lag);
                }
            }
        });
    }

    /// The readiness check: the feed is published in time, and nothing is parked.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let (feed, progress) = (Arc::clone(&self.feed), self.progress.clone());
        let lag_max = self.limits.lag_max;
        Readiness::default().with(self.feed.check, move || {
            let (feed, progress) = (Arc::clone(&feed), progress.clone());
            async move {
                if let Some(trouble) = progress.trouble() {
                    return Err(trouble);
                }
                let lag = feed.lag(&progress.position()).await;
                let lag = lag.map_err(|error| error.to_string())?;
                if lag <= lag_max {
                    return none_parked(progress.parked(), feed.parked_list);
                }
                Err(format!("the feed is {} s behind the log", lag.as_secs()))
            }
        })
    }

    /// Runs until `stop`. After any failure it retries from the end of the feed.
    pub async fn run(&self, stop: &CancellationToken) {
        supervised(self, stop).await;
    }

    /// Publishes what is not published yet of a batch of the logs.
    async fn publish(
        &self,
        mut batch: Vec<SourceMessage>,
        feed_end: &mut FeedEnd,
    ) -> Result<(), PublishError> {
        for _ in 0..CONFLICTS_MAX {
            batch.retain(|message| !feed_end.covers(message));
            // Computed anew in each attempt: another publisher may have published the end of an aggregate meanwhile.
            let mut advance = self.advance(&batch, feed_end).await?;
            let failure = advance.failure.take();
            if self.write(feed_end, advance).await? {
                return failure.map_or(Ok(()), Err);
            }
        }
        Err(PublishError::Overtaken)
    }

    /// Reads parked events again, and publishes those that can be read now.
    async fn retry(&self, feed_end: &mut FeedEnd) -> Result<(), PublishError> {
        for (log, aggregate, _) in feed_end.parked() {
            while let Some(advance) = self.advance_parked(log, &aggregate, feed_end).await? {
                // If another publisher released it in the meantime, it is no longer parked.
                self.write(feed_end, advance).await?;
            }
        }
        self.has_parked(feed_end);
        Ok(())
    }

    /// Appends after the known end of the feed. If the feed has grown since, nothing is written and its end is read
    /// again.
    async fn write(&self, feed_end: &mut FeedEnd, advance: Advance) -> Result<bool, PublishError> {
        let Advance { messages, after, .. } = advance;
        let outcome = if messages.is_empty() {
            Outcome::Stored(feed_end.end)
        } else {
            self.feed.stream.append_behind(feed_end.end, &messages).await
        };
        match outcome {
            Outcome::Stored(end) => {
                *feed_end = FeedEnd { end, ..after };
                self.has_parked(feed_end);
                Ok(true)
            }
            Outcome::Full => Err(PublishError::Full),
            refused @ Outcome::Refused(..) => Err(PublishError::Refused(refused)),
            // Another writer was first, or the outcome is unknown: read the end of the feed.
            Outcome::Conflict | Outcome::Duplicate | Outcome::Unknown | Outcome::Unavailable => {
                feed_end.catch_up(self.feed.end().await?)?;
                Ok(false)
            }
        }
    }

    fn has_parked(&self, feed_end: &FeedEnd) {
        self.progress.has_parked(feed_end.parked_count());
        self.metrics.has_parked(feed_end.parked_count());
    }
}

impl<S: FeedSource> Follower for FeedPublisher<S> {
    type Position = FeedEnd;
    type Error = PublishError;

    fn stream(&self) -> &'static str {
        self.feed.name
    }

    fn progress(&self) -> &Progress<FeedEnd> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), PublishError> {
        let mut feed_end = self.feed.end().await?;
        for (n, SourceLog { log, .. }) in self.feed.logs.iter().enumerate() {
            let (published, end) = (feed_end.published_through(n), log.end().await?);
            if end < published {
                let stream = log.stream().to_owned();
                return Err(PublishError::LogBehindFeed(published, stream, end));
            }
        }
        self.progress.starts_at(feed_end.clone());
        self.retry(&mut feed_end).await?;
        let batch_max = self.limits.batch_events_max;
        let mut reader = Reader::open(&self.feed.logs, &feed_end, batch_max).await?;
        tracing::info!(stream = self.stream(), end = %feed_end.end, "the feed follows the log");
        // With a backlog it is healthy only once that is published: the feed may be full.
        if reader.pending() == 0 {
            self.progress.reached(feed_end.clone());
        }
        self.metrics.follows(feed_end.end, reader.pending());
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let batch = tokio::select! {
                _ = heartbeat.tick() => {
                    if retries.as_mut().is_some_and(Retries::are_due) {
                        self.retry(&mut feed_end).await?;
                    }
                    continue;
                }
                batch = reader.next(batch_max) => batch?,
            };
            let (began, events) = (Instant::now(), batch.len() as u64);
            self.publish(batch, &mut feed_end).await?;
            self.metrics.wrote(events, began.elapsed());
            self.metrics.follows(feed_end.end, reader.pending());
            self.progress.reached(feed_end.clone());
        }
    }
}
