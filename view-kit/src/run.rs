//! The projection loop: read from the checkpoint on, fold, write, move the checkpoint, announce the position.

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

use crate::batch::{Chunk, until_failure};
use crate::fold::Fold;
use crate::lineage::{Lineage, LineageMismatch};
use crate::parked::Parked;
use crate::retry::Retries;
use crate::store::{StoreError, checkpoint};
use crate::supervise::{Follower, Progress};
use crate::target::Target;

/// Time for the database to build indexes. A new index over millions of documents takes minutes.
const INDEXES_MAX: Duration = Duration::from_mins(60);

/// Why a run ended; the next one starts from the checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The database rejects a write, or a document cannot be encoded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log does not answer.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The messages of the log stopped arriving.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The database did not answer in time.
    #[error(
        "MongoDB does not answer in time; look at its load, and at mongodb.operation_timeout_ms"
    )]
    DatabaseTimeout,
    /// A message that is in the log is not delivered.
    #[error("an event that is in the log does not arrive")]
    Missing,
    /// The log delivered messages out of order.
    #[error("the last messages of the subjects do not arrive in order: {1} after {0}")]
    Disordered(Position, Position),
    /// So many events cannot be read that the version of this service is wrong, and not the events.
    #[error(
        "the event at position {0} cannot be read: {1}. It is not parked because {2} aggregates are already (parked_max), and nothing after it is applied"
    )]
    TooManyParked(Position, DecodeError, usize),
    /// The views were built from another log.
    #[error(transparent)]
    LineageMismatch(#[from] LineageMismatch),
}

/// Limits of a follower.
#[derive(Debug, Clone, Copy)]
pub struct FollowLimits {
    /// Messages that are folded and written together.
    pub batch_events_max: usize,
    /// Aggregates that may be parked. With one more it stops.
    pub parked_max: usize,
    /// One operation on the database.
    pub operation_timeout: Duration,
    /// The readiness check fails if the views lack an event older than this.
    pub lag_max: Duration,
}

/// A target and the log that it is built from.
pub struct Projection<T> {
    /// The log.
    pub log: EventLog,
    /// The views.
    pub target: Arc<T>,
    /// Limits.
    pub limits: FollowLimits,
    /// State for readiness.
    pub progress: Progress<Position>,
    /// Counters.
    pub metrics: ProjectorMetrics,
    /// Where spans are exported.
    pub tracer: Tracer,
    /// When parked aggregates are read again.
    pub retries: Retries,
}

/// The progress of a run.
struct RunProgress {
    position: Position,
    pending: u64,
    /// The end of the log when the run began.
    end: Position,
    has_caught_up: bool,
}

impl<T: Target> Projection<T> {
    /// The counters, if these views are read: others are observed by their checkpoint.
    pub(crate) fn counted(&self) -> Option<&ProjectorMetrics> {
        self.target.is_counted().then_some(&self.metrics)
    }

    /// Reports that the views reached a position.
    async fn reached(&self, run: &mut RunProgress) -> Result<(), RunError> {
        if !run.has_caught_up && (run.pending == 0 || run.position >= run.end) {
            self.bounded(self.target.caught_up()).await?;
            run.has_caught_up = true;
        }
        self.progress.reached(run.position);
        if let Some(metrics) = self.counted() {
            metrics.follows(run.position, run.pending);
        }
        self.target.reached(run.position).await;
        Ok(())
    }

    /// Reads a checkpoint of the database.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn position(&self, name: &str) -> Result<Position, RunError> {
        self.asked(self.target.database().position(name)).await
    }

    /// The number of messages after a position, and the messages in chunks as they arrive.
    async fn events_behind(
        &self,
        position: Position,
    ) -> Result<(u64, impl futures::Stream<Item = Chunk> + use<T>), RunError> {
        let following = self.log.follow(T::Fold::FILTERS, Start::Behind(position)).await?;
        let ready = self.chunks(following.messages);
        let chunks = ready.map(|chunk| {
            let (messages, failure) = until_failure(chunk);
            Chunk { messages, failure: failure.map(RunError::from) }
        });
        Ok((following.pending, chunks))
    }

    pub(crate) async fn asked<A>(
        &self,
        operation: impl Future<Output = Result<A, Error>>,
    ) -> Result<A, RunError> {
        self.bounded(async { operation.await.map_err(StoreError::from) }).await
    }

    /// Runs an operation on the database within its time limit.
    ///
    /// # Errors
    /// The operation failed, or reached its limit.
    pub async fn bounded<A>(
        &self,
        operation: impl Future<Output = Result<A, StoreError>>,
    ) -> Result<A, RunError> {
        within(self.limits.operation_timeout, operation).await
    }

    /// Checks that views and log belong together, and notes the log's lineage. Returns the end of the log.
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

        // The existence of a checkpoint signals that a follower is running and its indexes exist.
        self.bounded(checkpoint(database, views, position, None)).await?;
        self.asked(self.target.look()).await?;
        let mut run = RunProgress { position, pending, end, has_caught_up: false };
        self.reached(&mut run).await?;
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() {
            if let Some(metrics) = self.counted() {
                metrics.alive(ambient::now());
            }
            let chunk = tokio::select! {
                _ = heartbeat.tick() => {
                    self.reached(&mut run).await?;
                    if retries.are_due() {
                        self.retry(&mut parked, run.position).await?;
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
                run.position = run.position.max(end);
                run.pending = batch.pending;
                // Readers have what is announced already; the checkpoint is for the next start.
                self.reached(&mut run).await?;
                let moved = checkpoint(database, views, run.position, batch.stored_at);
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
