//! Filling a new generation of the users.
//!
//! Current state needs the last event of each user alone, and the history needs all. So the documents of users
//! are written first, from the last message of each subject; then the events are read in order as always, and
//! what they say of a state that is there already is not written again. With five events for each user that
//! saves four of five writes to the collection that has nine indexes.

use std::time::Duration;

use events::Position;
use futures::StreamExt;
use service_kit::event_log::Start;
use tokio::time::timeout;
use views::states_checkpoint;

use crate::causes::Causes;
use crate::fold::Fold;
use crate::generations::View;
use crate::run::{Batch, Projection, RunError};
use crate::store::{checkpoint, write};

/// How long a message may take to come that the log holds.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

impl<F: Fold> Projection<F> {
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

    /// Whether all of them are written: the generation may be removed meanwhile.
    async fn write_states(&self) -> Result<bool, RunError> {
        let following = self.log.follow(F::VIEW.filters(), Start::LastOfEach).await?;
        let mut pending = following.pending;
        let mut chunks = following.messages.ready_chunks(self.batch_max);
        while pending > 0 {
            let chunk = timeout(ARRIVAL_MAX, chunks.next()).await;
            let chunk = chunk.ok().flatten().ok_or(RunError::Missing)?;
            let mut batch = Batch::<F>::of(Causes::wanted(false));
            for next in chunk {
                let message = next?;
                pending = message.pending;
                // What cannot be read is met again in its place, and stops the filling there.
                let _ = batch.add(&message);
            }
            let mut states = batch.fold;
            states.keep_states();
            let generations = self.bounded(write(&self.views, self.of().1, &states)).await?;
            self.board.learn(&generations);
            if !self.board.is_there(self.of()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
