//! Where the views of a fold stand, and who waits for them.

use std::future::ready;

use events::Position;
use mongodb::error::Error;

use crate::database::ViewDatabase;
use crate::fold::Fold;
use crate::run::{Projection, RunError};
use crate::store::StoreError;

/// Where the views of a fold stand, and who waits for them.
pub trait Target: Send + Sync + Sized + 'static {
    /// What is written there.
    type Fold: Fold;

    /// The database.
    fn database(&self) -> &ViewDatabase;

    /// The name of the checkpoint.
    fn checkpoint(&self) -> &str;

    /// Whether there is nothing to follow any more.
    fn is_over(&self) -> bool {
        false
    }

    /// Whether it is counted what happens here: these are the views that are read.
    fn is_counted(&self) -> bool {
        true
    }

    /// Whether nobody waits for these views. Then as many messages as there will be soon are taken in at once, and
    /// the database is left to others for as long as a batch took.
    fn is_filling(&self) -> bool;

    /// Makes the indexes; those that are there stay.
    fn prepare(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A run begins, at the position of the checkpoint, and nothing is followed yet. Answers up to where the states
    /// of all aggregates are written already; see [`Fold::drop_states`].
    fn begin(
        &self,
        projection: &Projection<Self>,
        position: Position,
    ) -> impl Future<Output = Result<Position, RunError>> + Send;

    /// Writes what was folded, and removes what must not be there beside it.
    fn write(&self, batch: &Self::Fold) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Looks who waits for these views, before it is first said in a run how far they are.
    fn look(&self) -> impl Future<Output = Result<(), Error>> + Send {
        ready(Ok(()))
    }

    /// The views have everything that the log held when the run began. Once in a run, and before that is said.
    fn caught_up(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(Ok(()))
    }

    /// The views have a position: it is said to whoever waits. Also a sign of life, when nothing happens.
    fn reached(&self, position: Position) -> impl Future<Output = ()> + Send;
}
