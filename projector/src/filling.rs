//! Filling a new generation of the users.
//!
//! Current state needs the last event of each user alone, and the history needs all. So the documents of users
//! are written first, from the last message of each subject; then the events are read in order as always, and
//! what they say of a state that is there already is not written again. With five events for each user that
//! saves four of five writes to the collection that has nine indexes.

use std::time::Duration;

use events::Position;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use service_kit::event_log::{FollowError, Followed, Start};
use tokio::time::{Instant, sleep, timeout};
use views::{states_begun_checkpoint, states_checkpoint};

use crate::batch::Batch;
use crate::causes::Causes;
use crate::fold::Fold;
use crate::generations::View;
use crate::run::{Projection, RunError};
use crate::store::{checkpoint, write};

/// How long a message may take to come that the log holds.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// How many batches' worth a generation that is being filled takes in at once. The waits for the disk cost the same
/// whatever stands in a write; but with more of them a busy database does not answer in time.
const BATCHES: usize = 2;
/// Longest rest after a batch: below the silence by which a follower counts as hung.
const REST_MAX: Duration = Duration::from_secs(1);
/// How long the next message is waited for when there is one.
const PATIENCE: Duration = Duration::from_millis(100);

impl<F: Fold> Projection<F> {
    /// Leaves the database to others for as long as a batch took, while nobody waits for this generation.
    pub(crate) async fn rest(&self, took: Duration) {
        if self.board.is_filling(self.of()) {
            sleep(took.min(REST_MAX)).await;
        }
    }

    /// Messages as they come, as many as are there. Where nobody waits, as many as there will be.
    pub(crate) fn chunks(
        &self,
        messages: BoxStream<'static, Result<Followed, FollowError>>,
    ) -> impl Stream<Item = Vec<Result<Followed, FollowError>>> + use<F> {
        let (board, of, batch_max) = (self.board.clone(), self.of(), self.batch_max);
        stream::unfold(messages, move |mut messages| {
            let patient = board.is_filling(of);
            let max = if patient { batch_max * BATCHES } else { batch_max };
            async move {
                let mut chunk = Vec::new();
                while chunk.len() < max {
                    let next = match chunk.last() {
                        None => messages.next().await,
                        Some(Ok(Followed { pending, .. })) if patient && *pending > 0 => {
                            // One that is erased under way never comes.
                            timeout(PATIENCE, messages.next()).await.ok().flatten()
                        }
                        Some(_) => messages.next().now_or_never().flatten(),
                    };
                    let Some(next) = next else { break };
                    chunk.push(next);
                }
                (!chunk.is_empty()).then_some((chunk, messages))
            }
        })
    }

    /// The position up to which a generation has the states. A new one that has nothing is given them now.
    pub(crate) async fn states(&self, position: Position) -> Result<Position, RunError> {
        if F::VIEW != View::Users {
            return Ok(Position(0));
        }
        let name = states_checkpoint(self.of().1);
        let known = self.position(&name).await?;
        if known > Position(0) || position > Position(0) || !self.board.is_filling(self.of()) {
            return Ok(known);
        }
        // What is stored from here on comes later in any case.
        let end = self.log.end().await?;
        if self.write_states().await? {
            self.bounded(checkpoint(&self.views, &name, end, None)).await?;
        }
        self.position(&name).await
    }

    /// Whether all of them are written: the generation may be removed meanwhile. They come in the order of the
    /// log. So those up to a position need not be written again by whoever begins anew: the last message of a
    /// subject that was written to since stands behind it.
    async fn write_states(&self) -> Result<bool, RunError> {
        let name = states_begun_checkpoint(self.of().1);
        let written = self.position(&name).await?;
        let following = self.log.follow(F::VIEW.filters(), Start::LastOfEach).await?;
        let mut pending = following.pending;
        let mut chunks = Box::pin(self.chunks(following.messages));
        let mut last = Position(0);
        while pending > 0 {
            let chunk = timeout(ARRIVAL_MAX, chunks.next()).await;
            let chunk = chunk.ok().flatten().ok_or(RunError::Missing)?;
            let mut batch = Batch::<F>::of(Causes::wanted(false));
            for next in chunk {
                let message = next?;
                pending = message.pending;
                if message.position < last {
                    return Err(RunError::Disordered(last, message.position));
                }
                last = message.position;
                if last <= written {
                    continue;
                }
                // What cannot be read is met again in its place, and parked there.
                let _ = batch.add(&message);
            }
            let (began, end) = (Instant::now(), batch.end);
            let mut states = batch.fold;
            states.keep_states();
            let generations = self.bounded(write(&self.views, self.of().1, &states)).await?;
            self.board.learn(&generations);
            if !self.board.is_there(self.of()) {
                return Ok(false);
            }
            if let Some(end) = end {
                self.bounded(checkpoint(&self.views, &name, end, None)).await?;
            }
            self.rest(began.elapsed()).await;
        }
        Ok(true)
    }
}
