//! The loop: read on from the checkpoint, fold, write, say how far the views are.

use std::marker::PhantomData;
use std::time::Duration;

use events::{DecodeError, Position};
use futures::StreamExt;
use service_kit::ambient;
use service_kit::event_log::{EventLog, FollowError, ReadError, Start};
use service_kit::metrics::ProjectorMetrics;
use service_kit::trace::Tracer;
use service_kit::views_position::HEARTBEAT;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use views::Views;

use crate::batch::Chunk;
use crate::fold::Fold;
use crate::generations::{Board, Of, View};
use crate::lineage::{Lineage, Parted};
use crate::parked::Parked;
use crate::retry::Retries;
use crate::store::{StoreError, checkpoint, prepare};
use crate::supervise::{Follower, Progress};

/// Time for the database to build indexes. A new one over millions of documents takes minutes.
const INDEXES_MAX: Duration = Duration::from_mins(60);

/// Why a run ended; the next one starts from the checkpoint.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("the database does not answer in time")]
    DatabaseTimeout,
    #[error("an event that the log holds does not come")]
    Missing,
    #[error("the last messages of the subjects do not come in order: {1} behind {0}")]
    Disordered(Position, Position),
    #[error(
        "the event at position {0} cannot be read: {1}. It is not parked, as {2} aggregates are (projector.parked_max), and nothing behind it is applied"
    )]
    TooManyParked(Position, DecodeError, usize),
    #[error(transparent)]
    Parted(#[from] Parted),
}

/// One view of one generation, and what it is made from.
pub(crate) struct Projection<F> {
    pub(crate) log: EventLog,
    pub(crate) views: Views,
    pub(crate) generation: u32,
    pub(crate) board: Board,
    pub(crate) batch_max: usize,
    pub(crate) parked_max: usize,
    pub(crate) operation_timeout: Duration,
    pub(crate) progress: Progress<Position>,
    pub(crate) metrics: ProjectorMetrics,
    pub(crate) tracer: Tracer,
    pub(crate) retries: Retries,
    pub(crate) fold: PhantomData<fn() -> F>,
}

impl<F: Fold> Projection<F> {
    /// Which one it is.
    pub(crate) const fn of(&self) -> Of {
        (F::VIEW, self.generation)
    }

    /// What is counted, if it is what is read: another generation is seen by its checkpoint.
    pub(crate) fn counted(&self) -> Option<&ProjectorMetrics> {
        let is_counted = F::VIEW != View::Logins && self.board.is_live(self.of());
        is_counted.then_some(&self.metrics)
    }

    /// The views have a position, and which generations there are was read since they have it.
    async fn reached(&self, position: Position, pending: u64) {
        self.progress.reached(position);
        self.board.reached(self.of(), position);
        if let Some(metrics) = self.counted() {
            metrics.follows(position, pending);
        }
        self.board.announce(F::VIEW).await;
    }

    pub(crate) async fn position(&self, name: &str) -> Result<Position, RunError> {
        self.asked(self.views.position(name)).await
    }

    /// The messages behind a position, in as few chunks as they arrive in; before them, how many there are.
    async fn events_behind(
        &self,
        position: Position,
    ) -> Result<(u64, impl futures::Stream<Item = Chunk> + use<F>), RunError> {
        let following = self.log.follow(F::VIEW.filters(), Start::Behind(position)).await?;
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

    pub(crate) async fn asked<T>(
        &self,
        operation: impl Future<Output = Result<T, mongodb::error::Error>>,
    ) -> Result<T, RunError> {
        self.bounded(async { operation.await.map_err(StoreError::from) }).await
    }

    pub(crate) async fn bounded<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, RunError> {
        within(self.operation_timeout, operation).await
    }
}

impl<F: Fold> Follower for Projection<F> {
    type Position = Position;
    type Error = RunError;

    fn stream(&self) -> &'static str {
        F::VIEW.stream()
    }

    fn is_over(&self) -> bool {
        !self.board.is_there(self.of())
    }

    fn progress(&self) -> &Progress<Position> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), RunError> {
        within(INDEXES_MAX, prepare(&self.views, F::VIEW.kind(), self.generation)).await?;
        let name = F::VIEW.checkpoint(self.generation);
        let mut position = self.position(&name).await?;
        let lineage = Lineage::of(&self.log).await?;
        let known = self.bounded(Lineage::known(&self.views, &name)).await?;
        lineage.check(&self.log, position, &known, self.views.database().name()).await??;
        self.bounded(lineage.note(&self.views, &name)).await?;
        let states = self.states(position).await?;
        let mut parked = self.asked(Parked::load(&self.views, &name, self.stream())).await?;
        self.retry(&mut parked, position).await?;
        let (mut pending, chunks) = self.events_behind(position).await?;
        let mut chunks = Box::pin(chunks);
        let (stream, generation) = (self.stream(), self.generation);
        tracing::info!(stream, generation, %position, "the projector follows the log");

        // That there is one says that there is a follower, with its indexes made.
        self.bounded(checkpoint(&self.views, &name, position, None)).await?;
        self.asked(self.board.look()).await?;
        self.reached(position, pending).await;
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_over() {
            if let Some(metrics) = self.counted() {
                metrics.alive(ambient::now());
            }
            let chunk = tokio::select! {
                _ = heartbeat.tick() => {
                    self.reached(position, pending).await;
                    if retries.are_due() {
                        self.retry(&mut parked, position).await?;
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
                position = position.max(end);
                pending = batch.pending;
                // Readers have what is announced already; the checkpoint is for the next start.
                self.reached(position, pending).await;
                self.bounded(checkpoint(&self.views, &name, position, batch.stored_at)).await?;
                self.rest(began.elapsed()).await;
            }
            if let Some(failure) = batch.failure {
                return Err(failure);
            }
        }
        Ok(())
    }
}

async fn within<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, RunError> {
    match timeout(limit, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RunError::DatabaseTimeout),
    }
}
