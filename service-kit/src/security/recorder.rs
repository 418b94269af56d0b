//! The queue of records and the task that stores them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{Actor, CommandId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::task::TaskTracker;

use super::coalesce::Coalescer;
use super::{SecurityEvent, SecurityRecord};
use crate::ambient;
use crate::config;
use crate::event_log::{
    Append, EventLog, Guard, Limits, Outcome, ProvisionError, Write, security_stream,
};
use crate::keys::SecretKey;
use crate::metrics::{Metrics, SecurityMetrics};

/// Records that are stored together.
const BATCH_MAX: usize = 100;
/// Pause before what could not be stored is sent again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked for minutes that are over.
const TICK: Duration = Duration::from_secs(1);
/// How long a service that ends waits for the last records.
const FINISH_MAX: Duration = Duration::from_secs(3);

enum Message {
    Record(Box<SecurityRecord>),
    /// Store everything and say so.
    Finish(oneshot::Sender<()>),
}

/// The stream of security records is not as it must be.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct SecurityStreamError(ProvisionError);

/// Takes what is to be recorded. Cheap to clone.
#[derive(Clone)]
pub struct SecurityRecorder(Option<Arc<Queue>>);

struct Queue {
    messages: mpsc::Sender<Message>,
    coalescer: Mutex<Coalescer>,
    address_key: Option<SecretKey>,
    metrics: SecurityMetrics,
}

impl SecurityRecorder {
    /// Records nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Writes to the stream `SECURITY`. `address_key` hashes addresses; whoever sees none needs none.
    ///
    /// # Errors
    /// [`SecurityStreamError`]: the stream is not as it must be. Do not start.
    pub async fn open(
        client: &async_nats::Client,
        address_key: Option<SecretKey>,
        settings: &config::Settings,
        metrics: &Metrics,
    ) -> Result<Self, SecurityStreamError> {
        let spec = security_stream(&settings.log, &settings.security);
        let log = EventLog::new(client.clone(), spec.name(), Limits::of(settings));
        log.verify(&spec).await.map_err(SecurityStreamError)?;
        let log = log.watched(metrics);
        log.watch_room(metrics);
        let (messages, queued) = mpsc::channel(settings.security.queue_max);
        let coalescer = Mutex::new(Coalescer::new(settings.security.anonymous_per_minute_max));
        let metrics = metrics.security();
        let queue = Arc::new(Queue { messages, coalescer, address_key, metrics });
        // The task ends with the last handle on the queue; `finish` waits for what it has to do until then.
        TaskTracker::new().spawn(Writer { log, queue: Arc::downgrade(&queue) }.run(queued));
        Ok(Self(Some(queue)))
    }

    /// Records something that happens within the present request. Never waits: what finds the queue full is counted
    /// and lost. What Roster or its operator did is in the stream of operations already.
    pub fn record(&self, event: SecurityEvent) {
        let Some(queue) = &self.0 else { return };
        let record = event.record(queue.address_key.as_ref());
        if record.actor == Actor::System {
            return;
        }
        queue.metrics.happened(record.kind, record.outcome);
        let admitted = queue.coalescer().admit(seconds(), record);
        match admitted {
            Some(record) => queue.put(record),
            None => queue.metrics.coalesced(),
        }
    }

    /// Stores what is queued and counted, as far as the stream takes it within a few seconds.
    pub async fn finish(&self) {
        let Some(queue) = &self.0 else { return };
        let (done, stored) = oneshot::channel();
        let finished = timeout(FINISH_MAX, async {
            if queue.messages.send(Message::Finish(done)).await.is_ok() {
                // The writer has gone when this fails, and there is nobody to wait for.
                let _ = stored.await;
            }
        });
        if finished.await.is_err() {
            tracing::warn!("the last security records are lost: the stream does not take them");
        }
    }
}

impl Queue {
    fn put(&self, record: SecurityRecord) {
        if self.messages.try_send(Message::Record(Box::new(record))).is_err() {
            self.metrics.dropped(1);
        }
    }

    fn coalescer(&self) -> MutexGuard<'_, Coalescer> {
        self.coalescer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer {
    log: EventLog,
    queue: std::sync::Weak<Queue>,
}

impl Writer {
    async fn run(self, mut queued: mpsc::Receiver<Message>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut messages = Vec::with_capacity(BATCH_MAX);
        loop {
            let received = tokio::select! {
                received = queued.recv_many(&mut messages, BATCH_MAX) => Some(received),
                _ = ticks.tick() => None,
            };
            if received == Some(0) {
                return;
            }
            let Some(queue) = self.queue.upgrade() else { return };
            let mut finishing = Vec::new();
            let mut records = Vec::new();
            for message in messages.drain(..) {
                match message {
                    Message::Record(record) => records.push(*record),
                    Message::Finish(done) => finishing.push(done),
                }
            }
            let counted = match finishing.is_empty() {
                true => queue.coalescer().take_due(seconds()),
                false => queue.coalescer().take_all(),
            };
            records.extend(counted);
            for batch in records.chunks(BATCH_MAX) {
                self.store(batch, &queue.metrics).await;
            }
            for done in finishing {
                // Nobody waits any more when this fails.
                let _ = done.send(());
            }
        }
    }

    /// Stores a batch, however long that takes: the queue behind it is bounded. Each record has a subject of its
    /// own, so sending it again cannot store it twice.
    async fn store(&self, records: &[SecurityRecord], metrics: &SecurityMetrics) {
        let count = records.len() as u64;
        let Some(append) = append(records) else { return };
        let mut is_told = false;
        loop {
            match self.log.append(&append).await {
                // A conflict: the batch is there from an attempt before.
                Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => {
                    return metrics.stored(count);
                }
                Outcome::Refused(code, why) => {
                    tracing::warn!(code, why, count, "security records were refused and are lost");
                    return metrics.dropped(count);
                }
                outcome @ (Outcome::Unknown | Outcome::Unavailable | Outcome::Full) => {
                    if !is_told {
                        tracing::warn!(?outcome, "cannot store security records; retrying");
                        is_told = true;
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

fn append(records: &[SecurityRecord]) -> Option<Append> {
    let mut writes = records.iter().filter_map(|record| {
        let payload = serde_json::to_vec(record).ok()?;
        Some(Write::new(record.subject(), Guard::absent(), payload))
    });
    let last = writes.next()?;
    let command = CommandId::from_uuid(ambient::new_uuid());
    Some(writes.fold(Append::new(command, last), Append::with))
}

fn seconds() -> u64 {
    u64::try_from(ambient::now().as_datetime().timestamp()).unwrap_or(0)
}
