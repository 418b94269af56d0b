//! When parked aggregates are read again: periodically, and on the operator's request.

use std::time::Duration;

use async_nats::client::{FlushError, PublishError};
use async_nats::{Client, Subject, SubscribeError, Subscriber};
use futures::StreamExt;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pause after which parked aggregates are read again without a request.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Core NATS subject of requests to read the parked aggregates of some views again. `views` is their name, in the
/// plural. Never stored.
#[must_use]
pub fn retry_subject(views: &str) -> String {
    format!("roster.parked.{views}")
}

/// The operator's side: requests that parked aggregates are read again.
pub struct RetryRequest {
    client: Client,
    subject: Subject,
}

impl RetryRequest {
    /// For a connection with the operator's permissions.
    #[must_use]
    pub fn new(client: Client, subject: impl Into<Subject>) -> Self {
        Self { client, subject: subject.into() }
    }

    /// Publishes the request to every projector that listens.
    ///
    /// # Errors
    /// The connection is gone: possibly nobody received it.
    #[expect(clippy::disallowed_methods, reason = "a core subject that no stream keeps")]
    pub async fn send(&self) -> Result<(), RetryRequestError> {
        self.client.publish(self.subject.clone(), "".into()).await?;
        Ok(self.client.flush().await?)
    }
}

/// Possibly nobody received the request.
#[derive(Debug, thiserror::Error)]
#[error("the request cannot be sent to the projectors: {0}")]
pub struct RetryRequestError(String);

impl From<PublishError> for RetryRequestError {
    fn from(error: PublishError) -> Self {
        Self(error.to_string())
    }
}

impl From<FlushError> for RetryRequestError {
    fn from(error: FlushError) -> Self {
        Self(error.to_string())
    }
}

/// Receives the operator's requests.
pub struct RetryRequests {
    subscriber: Mutex<Subscriber>,
    count: watch::Sender<u64>,
}

impl RetryRequests {
    /// Subscribes. The subscription survives reconnections.
    ///
    /// # Errors
    /// The subscription could not be made.
    pub async fn listen(
        client: &Client,
        subject: impl Into<Subject>,
    ) -> Result<Self, SubscribeError> {
        let subscriber = client.subscribe(subject.into()).await?;
        Ok(Self { subscriber: Mutex::new(subscriber), count: watch::Sender::new(0) })
    }

    /// A handle for a follower that may have parked something.
    #[must_use]
    pub fn heard(&self) -> Retries {
        Retries { requests: self.count.subscribe(), due: Instant::now() + RETRY_EVERY }
    }

    /// Receives requests until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut subscriber = self.subscriber.lock().await;
        loop {
            let request = tokio::select! {
                () = stop.cancelled() => return,
                request = subscriber.next() => request,
            };
            if request.is_none() {
                return;
            }
            self.count.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Knows when to read parked aggregates again.
#[derive(Clone)]
pub struct Retries {
    requests: watch::Receiver<u64>,
    due: Instant,
}

impl Retries {
    /// Whether a retry is due.
    pub fn are_due(&mut self) -> bool {
        let requested = self.requests.has_changed().unwrap_or(false);
        let due = requested || Instant::now() >= self.due;
        if due {
            self.requests.mark_unchanged();
            self.due = Instant::now() + RETRY_EVERY;
        }
        due
    }
}
