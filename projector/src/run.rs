//! The loop: read on from the checkpoint, fold, write, say how far the views are.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::time::Duration;

use events::{DecodeError, Position, Timestamp, subjects};
use futures::StreamExt;
use service_kit::ambient;
use service_kit::event_log::{EventLog, FollowError, Followed, ReadError, Start};
use service_kit::metrics::ProjectorMetrics;
use service_kit::trace::Tracer;
use service_kit::views_position::HEARTBEAT;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use views::Views;

use crate::causes::Causes;
use crate::fold::Fold;
use crate::generations::{Board, Of, View};
use crate::lineage::{Lineage, Parted};
use crate::parked::Parked;
use crate::retry::Retries;
use crate::store::{StoreError, checkpoint, prepare, write};
use crate::supervise::{Follower, Progress};

/// Time for the database to build indexes. A new one over millions of documents takes minutes.
const INDEXES_MAX: Duration = Duration::from_mins(60);
/// Messages of a parked aggregate that are read and written at once.
const RETRY_MESSAGES_MAX: usize = 500;

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

/// Messages that came together, and why nothing comes behind them, if so.
struct Chunk {
    messages: Vec<Followed>,
    failure: Option<RunError>,
}

/// Messages that came together, folded.
pub(crate) struct Batch<F> {
    pub(crate) fold: F,
    /// How many they were.
    events: u64,
    /// How many there are behind them.
    pending: u64,
    /// Position of the last, applied or passed over.
    end: Option<Position>,
    /// When the last of them was stored.
    stored_at: Option<Timestamp>,
    causes: Causes,
    /// Aggregates that are parked from this batch on.
    parked: Vec<String>,
    /// Parked aggregates that came to their end.
    ended: Vec<String>,
    /// Why nothing behind it is applied, if so.
    failure: Option<RunError>,
}

impl<F: Fold> Batch<F> {
    pub(crate) fn of(causes: Causes) -> Self {
        Self {
            fold: F::default(),
            events: 0,
            pending: 0,
            end: None,
            stored_at: None,
            causes,
            parked: Vec::new(),
            ended: Vec::new(),
            failure: None,
        }
    }

    pub(crate) fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        self.fold.add(message)?;
        self.causes.add(message);
        self.passes(message);
        Ok(())
    }

    /// Comes past a message.
    fn passes(&mut self, message: &Followed) {
        self.events += 1;
        self.pending = message.pending;
        self.end = Some(message.position);
        self.stored_at = Some(message.stored_at);
    }
}

impl<F: Fold> Projection<F> {
    /// Which one it is.
    pub(crate) const fn of(&self) -> Of {
        (F::VIEW, self.generation)
    }

    /// What is counted, if it is what is read: another generation is seen by its checkpoint.
    fn counted(&self) -> Option<&ProjectorMetrics> {
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

    /// Folds what has come, without what is parked. As before a failure, what comes before an event that cannot
    /// be parked any more is written before that is reported.
    async fn fold(&self, chunk: Chunk, parked: &mut Parked) -> Result<Batch<F>, RunError> {
        let mut batch = Batch::<F>::of(Causes::wanted(self.tracer.is_on()));
        let mut waiting = HashMap::new();
        for message in &chunk.messages {
            let aggregate = subjects::aggregate(&message.subject);
            if parked.holds(aggregate) {
                waiting.insert(aggregate.to_owned(), message.position);
            }
        }
        self.asked(parked.wait(waiting)).await?;
        for message in &chunk.messages {
            let aggregate = subjects::aggregate(&message.subject);
            let is_parked = parked.holds(aggregate);
            if is_parked && !F::ends(message) {
                parked.passes(aggregate, message.position);
                batch.passes(message);
                continue;
            }
            match batch.add(message) {
                Ok(()) if is_parked => {
                    parked.forget(aggregate);
                    batch.ended.push(aggregate.to_owned());
                }
                Ok(()) => {}
                Err(error) if parked.count() < self.parked_max => {
                    parked.hold(aggregate, message.position, error.to_string());
                    batch.parked.push(aggregate.to_owned());
                    batch.passes(message);
                }
                Err(error) => {
                    let failure = RunError::TooManyParked(message.position, error, self.parked_max);
                    batch.failure = Some(failure);
                    return Ok(batch);
                }
            }
        }
        batch.failure = chunk.failure;
        Ok(batch)
    }

    /// Reads what is parked once more: a version that can read it may have been started, or the message that
    /// could not be read was removed.
    async fn retry(&self, parked: &mut Parked, position: Position) -> Result<(), RunError> {
        self.asked(parked.reload()).await?;
        for (aggregate, from) in parked.aggregates() {
            self.retry_one(parked, &aggregate, from, position).await?;
        }
        self.has_parked(parked.count());
        Ok(())
    }

    async fn retry_one(
        &self,
        parked: &mut Parked,
        aggregate: &str,
        from: Position,
        position: Position,
    ) -> Result<(), RunError> {
        let subjects = F::VIEW.subjects_of(aggregate);
        let mut behind = Position(from.0.saturating_sub(1));
        loop {
            let messages =
                self.log.between(&subjects, behind, position, RETRY_MESSAGES_MAX).await?;
            let Some(last) = messages.last().map(|last| last.position) else {
                return self.asked(parked.release(aggregate, position)).await;
            };
            let counts_from = messages.iter().rposition(F::ends).unwrap_or(0);
            let mut batch = Batch::<F>::of(Causes::wanted(false));
            let mut stuck = None;
            for message in messages.iter().skip(counts_from) {
                if let Err(error) = batch.add(message) {
                    stuck = Some((message.position, error.to_string()));
                    break;
                }
            }
            let written = write(&self.views, self.generation, &batch.fold);
            self.board.learn(&self.bounded(written).await?);
            if let Some((at, why)) = stuck {
                return self.asked(parked.stuck(aggregate, at, why)).await;
            }
            behind = last;
        }
    }

    /// Writes what was folded, and what is parked of it.
    async fn apply(&self, batch: &mut Batch<F>, parked: &mut Parked) -> Result<(), RunError> {
        let began = Instant::now();
        let causes = std::mem::replace(&mut batch.causes, Causes::wanted(false));
        // An event is a part of its request once, however many generations take it in.
        let causes = if self.counted().is_some() { causes } else { Causes::wanted(false) };
        let work = causes.begin(&self.tracer, self.stream());
        match self.bounded(write(&self.views, self.generation, &batch.fold)).await {
            Ok(generations) => self.board.learn(&generations),
            Err(error) => {
                work.failed();
                return Err(error);
            }
        }
        if let Some(metrics) = self.counted() {
            metrics.wrote(batch.events, began.elapsed());
        }
        work.done();
        for aggregate in &batch.parked {
            self.asked(parked.park(aggregate)).await?;
        }
        for aggregate in &batch.ended {
            self.asked(parked.end(aggregate)).await?;
        }
        self.has_parked(parked.count());
        Ok(())
    }

    fn has_parked(&self, aggregates: usize) {
        self.progress.has_parked(aggregates);
        if let Some(metrics) = self.counted() {
            metrics.has_parked(aggregates);
        }
    }

    async fn asked<T>(
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
                self.apply(&mut batch, &mut parked).await?;
                position = position.max(end);
                pending = batch.pending;
                // Readers have what is announced already; the checkpoint is for the next start.
                self.reached(position, pending).await;
                self.bounded(checkpoint(&self.views, &name, position, batch.stored_at)).await?;
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
