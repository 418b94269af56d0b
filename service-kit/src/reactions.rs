//! What a service does when Roster's feed tells it something: once it is done it is not asked again, and until then it
//! comes again, after a crash too.
//!
//! The place in the feed is kept by the server, in the consumer that the service's `provision` made. A reaction may
//! be asked a second time for what it has done, when it died before saying so: it must find out by itself, as commands
//! do that change nothing which is so already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use events::feed::{FEED_STREAM, FeedEvent};
use events::{Position, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::ambient;
use crate::commands::Request;
use crate::event_log::{ConsumerSpec, EventLog, Limits, ProvisionError, Task};
use crate::health::Readiness;

/// First pause before a reaction is tried again that failed; doubled each time.
const PUT_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const PUT_OFF_MAX: Duration = Duration::from_secs(60);
/// How long an event may wait untouched, or fail, before the service calls itself not ready.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// What came of a reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reacted {
    /// It is done for good.
    Done,
    /// It is to be asked once more, so much later.
    Later(Duration),
}

/// What a service does about an event.
#[async_trait]
pub trait Reaction: Send + Sync + 'static {
    /// Does it. `request` names the event as the cause of what it leads to.
    ///
    /// # Errors
    /// In words, for the log: it is tried again.
    async fn react(&self, event: &FeedEvent, request: Request) -> Result<Reacted, String>;
}

/// A reaction on its way through the feed.
pub struct Reactions<R> {
    feed: EventLog,
    consumer: ConsumerSpec,
    at_once_max: usize,
    reaction: R,
    /// What failed the last time it was tried, for whoever asks about readiness.
    failing: Arc<Mutex<BTreeMap<Position, (Timestamp, String)>>>,
}

impl<R: Reaction> Reactions<R> {
    /// Over the consumer that the service's `provision` made.
    ///
    /// # Errors
    /// [`ProvisionError`]: it is not there, or not as it must be.
    pub async fn open(
        client: &async_nats::Client,
        limits: Limits,
        consumer: ConsumerSpec,
        at_once_max: usize,
        reaction: R,
    ) -> Result<Self, ProvisionError> {
        let feed = EventLog::new(client.clone(), FEED_STREAM, limits);
        feed.verify_consumer(&consumer).await?;
        Ok(Self { feed, consumer, at_once_max, reaction, failing: Arc::default() })
    }

    /// What must hold for reactions to come in time: the consumer answers, and none has failed for long.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let (feed, consumer) = (self.feed.clone(), self.consumer.clone());
        let failing = Arc::clone(&self.failing);
        Readiness::default().with("reactions", move || {
            let (feed, consumer) = (feed.clone(), consumer.clone());
            let failing = Arc::clone(&failing);
            async move {
                feed.verify_consumer(&consumer).await.map_err(|error| error.to_string())?;
                let limit = ambient::now().minus_seconds(WAIT_MAX.as_secs());
                let failing = lock(&failing);
                let mut old = failing.iter().filter(|(_, (since, _))| *since < limit);
                match old.next() {
                    None => Ok(()),
                    Some((position, (_, why))) => {
                        Err(format!("the event at position {position} of the feed waits: {why}"))
                    }
                }
            }
        })
    }

    /// Runs until `stop`, then brings what was begun to its end.
    pub async fn run(&self, stop: &CancellationToken) {
        self.feed.work_off(&self.consumer, self.at_once_max, stop, |task| self.work(task)).await;
    }

    async fn work(&self, task: Task) {
        let position = task.position;
        let acknowledged = match self.react(&task).await {
            Ok(Reacted::Done) => {
                lock(&self.failing).remove(&position);
                task.ack().await
            }
            Ok(Reacted::Later(pause)) => {
                lock(&self.failing).remove(&position);
                task.nak(pause).await
            }
            Err(why) => {
                tracing::warn!(error = why, %position, "a reaction is put off");
                let since = lock(&self.failing).get(&position).map(|(since, _)| *since);
                let since = since.unwrap_or_else(ambient::now);
                lock(&self.failing).insert(position, (since, why));
                let pause = pause(task.deliveries);
                task.nak(pause).await
            }
        };
        if let Err(error) = acknowledged {
            tracing::warn!(%error, %position, "a reaction may be asked for again");
        }
    }

    async fn react(&self, task: &Task) -> Result<Reacted, String> {
        let event = FeedEvent::from_json(task.payload()).map_err(|error| error.to_string())?;
        let request = Request {
            correlation_id: event.correlation_id.clone(),
            causation_id: Some(event.id.to_string()),
            traceparent: event.traceparent.clone(),
            ..Request::of_the_system()
        };
        self.reaction.react(&event, request).await
    }
}

fn pause(deliveries: u64) -> Duration {
    let doublings = u32::try_from(deliveries.saturating_sub(1).min(10)).unwrap_or(10);
    (PUT_OFF_FIRST * 2_u32.pow(doublings)).min(PUT_OFF_MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
