//! When what is parked is read again: now and then by itself, and when the operator wishes it.

use std::time::Duration;

use async_nats::client::{FlushError, PublishError};
use async_nats::{Client, Subject, SubscribeError, Subscriber};
use futures::StreamExt;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Pause after which what is parked is read again without a wish.
const RETRY_EVERY: Duration = Duration::from_secs(30);

/// Core subject on which the operator wishes that what is parked of some views is read again. `views` names them, in
/// the plural. Never stored.
#[must_use]
pub fn retry_subject(views: &str) -> String {
    format!("roster.parked.{views}")
}

/// The operator's side: wishes that what is parked is read again.
pub struct RetryRequest {
    client: Client,
    subject: Subject,
}

impl RetryRequest {
    /// Over a connection with the operator's rights.
    #[must_use]
    pub fn new(client: Client, subject: impl Into<Subject>) -> Self {
        Self { client, subject: subject.into() }
    }

    /// Lets every projector that runs and listens there hear it.
    ///
    /// # Errors
    /// The connection is gone: perhaps nobody has.
    #[expect(clippy::disallowed_methods, reason = "a core subject that no stream keeps")]
    pub async fn send(&self) -> Result<(), RetryRequestError> {
        self.client.publish(self.subject.clone(), "".into()).await?;
        Ok(self.client.flush().await?)
    }
}

/// Perhaps nobody heard the wish.
#[derive(Debug, thiserror::Error)]
#[error("no projector can be told: {0}")]
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

/// Hears the operator's wishes.
pub struct RetryRequests {
    subscriber: Mutex<Subscriber>,
    count: watch::Sender<u64>,
}

impl RetryRequests {
    /// Begins to listen. The subscription outlives reconnections.
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

    /// For one that has something parked.
    #[must_use]
    pub fn heard(&self) -> Retries {
        Retries { wishes: self.count.subscribe(), due: Instant::now() + RETRY_EVERY }
    }

    /// Listens until `stop`.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut subscriber = self.subscriber.lock().await;
        loop {
            let wish = tokio::select! {
                () = stop.cancelled() => return,
                wish = subscriber.next() => wish,
            };
            if wish.is_none() {
                return;
            }
            self.count.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

/// Knows when to read again what is parked.
#[derive(Clone)]
pub struct Retries {
    wishes: watch::Receiver<u64>,
    due: Instant,
}

impl Retries {
    /// Whether it is time.
    pub fn are_due(&mut self) -> bool {
        let wished = self.wishes.has_changed().unwrap_or(false);
        let due = wished || Instant::now() >= self.due;
        if due {
            self.wishes.mark_unchanged();
            self.due = Instant::now() + RETRY_EVERY;
        }
        due
    }
}
