//! The loop: read on from the checkpoint, fold, write, say how far the views are.

use std::sync::Arc;
use std::time::Duration;

use events::{DecodeError, Position};
use futures::StreamExt;
use mongodb::error::Error;
use service_kit::ambient;
use service_kit::event_log::{EventLog, FollowError, ReadError, Start};
use service_kit::metrics::ProjectorMetrics;
use service_kit::trace::Tracer;
use service_kit::views_position::HEARTBEAT;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::batch::Chunk;
use crate::fold::Fold;
use crate::lineage::{Lineage, LineageMismatch};
use crate::parked::Parked;
use crate::retry::Retries;
use crate::store::{StoreError, checkpoint};
use crate::supervise::{Follower, Progress};
use crate::target::Target;

/// Time for the database to build indexes. A new one over millions of documents takes minutes.
const INDEXES_MAX: Duration = Duration::from_mins(60);

/// Why a run ended; the next one starts from the checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database refuses, or a document cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The messages of the log come no longer.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The database is silent.
    #[error(
        "MongoDB does not answer in time; look at its load, and at mongodb.operation_timeout_ms"
    )]
    DatabaseTimeout,
    /// A message that was promised is not delivered.
    #[error("an event that the log holds does not come")]
    Missing,
    /// The log gave messages out of order.
    #[error("the last messages of the subjects do not come in order: {1} behind {0}")]
    Disordered(Position, Position),
    /// So much cannot be read that it is the version of this service that is wrong, and not the events.
    #[error(
        "the event at position {0} cannot be read: {1}. It is not parked, as {2} aggregates are (parked_max), and nothing behind it is applied"
    )]
    TooManyParked(Position, DecodeError, usize),
    /// The views were built from another log.
    #[error(transparent)]
    LineageMismatch(#[from] LineageMismatch),
}

/// What a follower may take at once, and how long it waits.
#[derive(Debug, Clone, Copy)]
pub struct FollowLimits {
    /// Messages that are folded and written together.
    pub batch_events_max: usize,
    /// Aggregates that may be parked. With more of them it stands still.
    pub parked_max: usize,
    /// One operation on the database.
    pub operation_timeout: Duration,
    /// Age of the oldest event that views may lack and count as ready.
    pub lag_max: Duration,
}

/// Some views, and the log that they are made from.
pub struct Projection<T> {
    /// The log.
    pub log: EventLog,
    /// Where the views stand.
    pub target: Arc<T>,
    /// What is too much.
    pub limits: FollowLimits,
    /// What readiness looks at.
    pub progress: Progress<Position>,
    /// What is counted.
    pub metrics: ProjectorMetrics,
    /// Where spans go.
    pub tracer: Tracer,
    /// When what is parked is read again.
    pub retries: Retries,
}

/// How far a run is.
struct Place {
    position: Position,
    pending: u64,
    /// The end of the log when the run began.
    end: Position,
    has_caught_up: bool,
}

impl<T: Target> Projection<T> {
    /// What is counted, if it is what is read: other views are seen by their checkpoint.
    pub(crate) fn counted(&self) -> Option<&ProjectorMetrics> {
        self.target.is_counted().then_some(&self.metrics)
    }

    /// The views have come to a place, and so it is said.
    async fn reached(&self, place: &mut Place) -> Result<(), RunError> {
        if !place.has_caught_up && (place.pending == 0 || place.position >= place.end) {
            self.bounded(self.target.caught_up()).await?;
            place.has_caught_up = true;
        }
        self.progress.reached(place.position);
        if let Some(metrics) = self.counted() {
            metrics.follows(place.position, place.pending);
        }
        self.target.reached(place.position).await;
        Ok(())
    }

    /// The position behind a checkpoint of the database.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn position(&self, name: &str) -> Result<Position, RunError> {
        self.asked(self.target.database().position(name)).await
    }

    /// The messages behind a position, in as few chunks as they arrive in; before them, how many there are.
    async fn events_behind(
        &self,
        position: Position,
    ) -> Result<(u64, impl futures::Stream<Item = Chunk> + use<T>), RunError> {
        let following = self.log.follow(T::Fold::FILTERS, Start::Behind(position)).await?;
        let ready = self.chunks(following.messages);
        // What came before a failure is written before the failure is reported: a chunk is cut there.
        let chunks = ready.map(|chunk| {
            let (mut messages, mut failure) = (Vec::with_capacity(chunk.len()), None);
            for next in chunk {
                match next {
                    Ok(message) => messages.push(message),
                    Err(error) => {
                        failure = Some(error.into());
                        break;
                    }
                }
            }
            Chunk { messages, failure }
        });
        Ok((following.pending, chunks))
    }

    pub(crate) async fn asked<A>(
        &self,
        operation: impl Future<Output = Result<A, Error>>,
    ) -> Result<A, RunError> {
        self.bounded(async { operation.await.map_err(StoreError::from) }).await
    }

    /// An operation on the database, within its time.
    ///
    /// # Errors
    /// The operation failed, or its time is over.
    pub async fn bounded<A>(
        &self,
        operation: impl Future<Output = Result<A, StoreError>>,
    ) -> Result<A, RunError> {
        within(self.limits.operation_timeout, operation).await
    }

    /// Whether views and log belong together; then the log is noted. The end of the log.
    async fn belongs_to_log(&self, position: Position) -> Result<Position, RunError> {
        let (database, name) = (self.target.database(), self.target.checkpoint());
        let lineage = Lineage::of(&self.log).await?;
        let known = self.bounded(Lineage::known(database, name)).await?;
        lineage.check(&self.log, position, &known, database.database().name()).await??;
        self.bounded(lineage.note(database, name)).await?;
        Ok(lineage.end())
    }
}

impl<T: Target> Follower for Projection<T> {
    type Position = Position;
    type Error = RunError;

    fn stream(&self) -> &'static str {
        T::Fold::STREAM
    }

    fn is_over(&self) -> bool {
        self.target.is_over()
    }

    fn progress(&self) -> &Progress<Position> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), RunError> {
        within(INDEXES_MAX, self.target.prepare()).await?;
        let (database, views) = (self.target.database(), self.target.checkpoint());
        let position = self.position(views).await?;
        let end = self.belongs_to_log(position).await?;
        let states = self.target.begin(self, position).await?;
        let mut parked = self.asked(Parked::load(database, views, self.stream())).await?;
        self.retry(&mut parked, position).await?;
        let (pending, chunks) = self.events_behind(position).await?;
        let mut chunks = Box::pin(chunks);
        tracing::info!(stream = self.stream(), views, %position, "the projector follows the log");

        // That there is one says that there is a follower, with its indexes made.
        self.bounded(checkpoint(database, views, position, None)).await?;
        self.asked(self.target.look()).await?;
        let mut place = Place { position, pending, end, has_caught_up: false };
        self.reached(&mut place).await?;
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() {
            if let Some(metrics) = self.counted() {
                metrics.alive(ambient::now());
            }
            let chunk = tokio::select! {
                _ = heartbeat.tick() => {
                    self.reached(&mut place).await?;
                    if retries.are_due() {
                        self.retry(&mut parked, place.position).await?;
                    }
                    continue;
                }
                chunk = chunks.next() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let mut batch = self.fold(chunk, &mut parked).await?;
            batch.fold.drop_states(states);
            if let Some(end) = batch.end {
                let began = Instant::now();
                self.apply(&mut batch, &mut parked).await?;
                place.position = place.position.max(end);
                place.pending = batch.pending;
                // Readers have what is announced already; the checkpoint is for the next start.
                self.reached(&mut place).await?;
                let moved = checkpoint(database, views, place.position, batch.stored_at);
                self.bounded(moved).await?;
                self.rest(began.elapsed()).await;
            }
            if let Some(failure) = batch.failure {
                return Err(failure);
            }
        }
        Ok(())
    }
}

async fn within<A>(
    limit: Duration,
    operation: impl Future<Output = Result<A, StoreError>>,
) -> Result<A, RunError> {
    match timeout(limit, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RunError::DatabaseTimeout),
    }
}
