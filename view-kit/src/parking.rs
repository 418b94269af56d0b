//! How a projection skips what cannot be read, and retries it. [`Parked`] keeps the record.

use std::collections::HashMap;

use events::Position;
use tokio::time::Instant;

use crate::batch::{Batch, Chunk};
use crate::causes::Causes;
use crate::fold::Fold;
use crate::parked::Parked;
use crate::run::{Projection, RunError};
use crate::supervise::Follower;
use crate::target::Target;

/// Messages of a parked aggregate that are read and written at once.
const RETRY_MESSAGES_MAX: usize = 500;

impl<T: Target> Projection<T> {
    /// Folds messages, except those that are parked. Messages before an event that can no longer be parked are written
    /// before that failure is reported.
    pub(crate) async fn fold(
        &self,
        chunk: Chunk,
        parked: &mut Parked,
    ) -> Result<Batch<T::Fold>, RunError> {
        let mut batch = Batch::<T::Fold>::of(Causes::wanted(self.tracer.is_on()));
        let mut waiting = HashMap::new();
        for message in chunk.messages.iter().filter(|message| !message.is_foreign) {
            let aggregate = T::Fold::aggregate(&message.subject);
            if parked.holds(aggregate) {
                waiting.insert(aggregate.to_owned(), message.position);
            }
        }
        self.asked(parked.wait(waiting)).await?;
        for message in &chunk.messages {
            if message.is_foreign {
                batch.passes(message);
                continue;
            }
            let aggregate = T::Fold::aggregate(&message.subject);
            let is_parked = parked.holds(aggregate);
            if is_parked && !T::Fold::ends(message) {
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
                Err(error) if parked.count() < self.limits.parked_max => {
                    parked.hold(aggregate, message.position, error.to_string());
                    batch.parked.push(aggregate.to_owned());
                    batch.passes(message);
                }
                Err(error) => {
                    let parked_max = self.limits.parked_max;
                    let failure = RunError::TooManyParked(message.position, error, parked_max);
                    batch.failure = Some(failure);
                    return Ok(batch);
                }
            }
        }
        batch.failure = chunk.failure;
        Ok(batch)
    }

    /// Reads parked messages again: a version that can read them may have been started, or the unreadable message was
    /// removed.
    pub(crate) async fn retry(
        &self,
        parked: &mut Parked,
        position: Position,
    ) -> Result<(), RunError> {
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
        let subjects = T::Fold::subjects_of(aggregate);
        let mut behind = Position(from.0.saturating_sub(1));
        loop {
            let messages =
                self.log.between(&subjects, behind, position, RETRY_MESSAGES_MAX).await?;
            let Some(last) = messages.last().map(|last| last.position) else {
                return self.asked(parked.release(aggregate, position)).await;
            };
            let messages: Vec<_> =
                messages.into_iter().filter(|message| !message.is_foreign).collect();
            let counts_from = messages.iter().rposition(T::Fold::ends).unwrap_or(0);
            let mut batch = Batch::<T::Fold>::of(Causes::wanted(false));
            let mut stuck = None;
            for message in messages.iter().skip(counts_from) {
                if let Err(error) = batch.add(message) {
                    stuck = Some((message.position, error.to_string()));
                    break;
                }
            }
            self.bounded(self.target.write(&batch.fold)).await?;
            if let Some((at, why)) = stuck {
                return self.asked(parked.stuck(aggregate, at, why)).await;
            }
            behind = last;
        }
    }

    /// Writes folded messages, and stores what is parked of them.
    pub(crate) async fn apply(
        &self,
        batch: &mut Batch<T::Fold>,
        parked: &mut Parked,
    ) -> Result<(), RunError> {
        let began = Instant::now();
        let causes = std::mem::replace(&mut batch.causes, Causes::wanted(false));
        // An event belongs to the trace of its request once, however many views apply it.
        let causes = if self.counted().is_some() { causes } else { Causes::wanted(false) };
        let work = causes.begin(&self.tracer, self.stream());
        if let Err(error) = self.bounded(self.target.write(&batch.fold)).await {
            work.failed();
            return Err(error);
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
}
