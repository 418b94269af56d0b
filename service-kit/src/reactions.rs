//! Reactions of a service to Roster's feed: each event is delivered until its reaction is done, across crashes.
//!
//! The server keeps the position in the feed, in the consumer that the service's `provision` created. A reaction may be
//! run again for an event that it has completed, if the process crashed before the acknowledgement. So reactions must
//! be idempotent, like commands that change nothing if the change is already made.

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

/// First pause before a failed reaction is retried; doubles each time.
const PUT_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const PUT_OFF_MAX: Duration = Duration::from_secs(60);
/// The readiness check fails when an event waits without an attempt, or fails, for this long.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The result of a reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reacted {
    /// It is completed.
    Done,
    /// It has to be run again after a pause.
    Later(Duration),
}

/// What a service does about an event.
#[async_trait]
pub trait Reaction: Send + Sync + 'static {
    /// Runs the reaction. `request` names the event as the cause of its effects.
    ///
    /// # Errors
    /// A text for the log: it is retried.
    async fn react(&self, event: &FeedEvent, request: Request) -> Result<Reacted, String>;
}

/// Runs a reaction over the feed.
pub struct Reactions<R> {
    feed: EventLog,
    consumer: ConsumerSpec,
    at_once_max: usize,
    reaction: R,
    /// The last failures, for readiness.
    failing: Arc<Mutex<BTreeMap<Position, (Timestamp, String)>>>,
}

impl<R: Reaction> Reactions<R> {
    /// For the consumer that the service's `provision` created.
    ///
    /// # Errors
    /// [`ProvisionError`]: it does not exist, or is not configured as required.
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

    /// Adds the readiness checks: the consumer answers, and no reaction has failed for long.
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

    /// Runs until `stop`, then completes the work in progress.
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
                tracing::warn!(error = why, %position, "a reaction failed; retrying later");
                let since = lock(&self.failing).get(&position).map(|(since, _)| *since);
                let since = since.unwrap_or_else(ambient::now);
                lock(&self.failing).insert(position, (since, why));
                let pause = pause(task.deliveries);
                task.nak(pause).await
            }
        };
        if let Err(error) = acknowledged {
            tracing::warn!(%error, %position, "cannot acknowledge a reaction; it may be repeated");
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
