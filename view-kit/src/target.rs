//! The place that a fold is written to, and what waits for it.

use std::future::ready;

use events::Position;
use mongodb::error::Error;

use crate::database::ViewDatabase;
use crate::fold::Fold;
use crate::run::{Projection, RunError};
use crate::store::StoreError;

/// The place that a fold is written to, and what waits for it.
pub trait Target: Send + Sync + Sized + 'static {
    /// What is written.
    type Fold: Fold;

    /// The database.
    fn database(&self) -> &ViewDatabase;

    /// The name of the checkpoint.
    fn checkpoint(&self) -> &str;

    /// Whether there is nothing to follow any more.
    fn is_over(&self) -> bool {
        false
    }

    /// Whether its events are counted: these are the views that are read.
    fn is_counted(&self) -> bool {
        true
    }

    /// Whether no command waits for these views. Then larger batches are written, and the database is left to others
    /// for as long as each batch took.
    fn is_filling(&self) -> bool;

    /// Creates the indexes; existing ones stay.
    fn prepare(&self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Called when a run begins, at the position of the checkpoint. Returns up to where the states of all aggregates
    /// are written already; see [`Fold::drop_states`].
    fn begin(
        &self,
        projection: &Projection<Self>,
        position: Position,
    ) -> impl Future<Output = Result<Position, RunError>> + Send;

    /// Writes folded messages, and removes documents that must not exist any more.
    fn write(&self, batch: &Self::Fold) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Finds out what waits for these views, before a run first announces a position.
    fn look(&self) -> impl Future<Output = Result<(), Error>> + Send {
        ready(Ok(()))
    }

    /// Called once in a run when the views have everything that the log held when it began, before that is announced.
    fn caught_up(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        ready(Ok(()))
    }

    /// The views reached a position: announces it. Also called periodically as a heartbeat.
    fn reached(&self, position: Position) -> impl Future<Output = ()> + Send;
}
