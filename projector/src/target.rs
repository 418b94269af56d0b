//! A view of a generation, as `view-kit` keeps it at the end of the log.

use std::marker::PhantomData;

use events::Position;
use mongodb::error::Error;
use view_kit::store::StoreError;
use view_kit::{Projection, RunError, Target, ViewDatabase};
use views::Views;

use crate::filling::states;
use crate::fold::IntoView;
use crate::generations::{FollowerRegistry, Of, View};
use crate::store::{prepare, write};

/// One view of one generation.
pub(crate) struct InGeneration<F> {
    pub(crate) views: Views,
    pub(crate) generation: u32,
    pub(crate) board: FollowerRegistry,
    checkpoint: String,
    fold: PhantomData<fn() -> F>,
}

impl<F: IntoView> InGeneration<F> {
    pub(crate) fn new(views: Views, generation: u32, board: FollowerRegistry) -> Self {
        let checkpoint = F::VIEW.checkpoint(generation);
        Self { views, generation, board, checkpoint, fold: PhantomData }
    }

    /// Which one it is.
    pub(crate) const fn of(&self) -> Of {
        (F::VIEW, self.generation)
    }
}

impl<F: IntoView> Target for InGeneration<F> {
    type Fold = F;

    fn database(&self) -> &ViewDatabase {
        &self.views
    }

    fn checkpoint(&self) -> &str {
        &self.checkpoint
    }

    fn is_over(&self) -> bool {
        !self.board.is_there(self.of())
    }

    fn is_counted(&self) -> bool {
        F::VIEW != View::Logins && self.board.is_live(self.of())
    }

    fn is_filling(&self) -> bool {
        self.board.is_filling(self.of())
    }

    fn prepare(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        prepare(&self.views, F::VIEW.set(), self.generation)
    }

    fn begin(
        &self,
        projection: &Projection<Self>,
        position: Position,
    ) -> impl Future<Output = Result<Position, RunError>> + Send {
        states(projection, position)
    }

    async fn write(&self, batch: &F) -> Result<(), StoreError> {
        self.board.learn(&write(&self.views, self.generation, batch).await?);
        Ok(())
    }

    async fn look(&self) -> Result<(), Error> {
        self.board.look().await.map(drop)
    }

    /// Which generations there are was read since the views have the position.
    async fn reached(&self, position: Position) {
        self.board.reached(self.of(), position);
        self.board.announce(F::VIEW).await;
    }
}
