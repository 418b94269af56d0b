//! A view of a generation as a `view-kit` target.

use std::marker::PhantomData;

use events::Position;
use mongodb::error::Error;
use view_kit::store::StoreError;
use view_kit::{Projection, RunError, Target, ViewDatabase};
use views::Views;

use crate::filling::states;
use crate::fold::IntoView;
use crate::generations::{FollowerRegistry, View, ViewId};
use crate::store::{prepare, write};

/// One view of one generation.
pub(crate) struct InGeneration<F> {
    pub(crate) views: Views,
    pub(crate) generation: u32,
    pub(crate) registry: FollowerRegistry,
    checkpoint: String,
    fold: PhantomData<fn() -> F>,
}

impl<F: IntoView> InGeneration<F> {
    pub(crate) fn new(views: Views, generation: u32, registry: FollowerRegistry) -> Self {
        let checkpoint = F::VIEW.checkpoint(generation);
        Self { views, generation, registry, checkpoint, fold: PhantomData }
    }

    /// Its key.
    pub(crate) const fn id(&self) -> ViewId {
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
        !self.registry.is_there(self.id())
    }

    fn is_counted(&self) -> bool {
        F::VIEW != View::Logins && self.registry.is_live(self.id())
    }

    fn is_filling(&self) -> bool {
        self.registry.is_filling(self.id())
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
        self.registry.learn(&write(&self.views, self.generation, batch).await?);
        Ok(())
    }

    async fn look(&self) -> Result<(), Error> {
        self.registry.look().await.map(drop)
    }

    /// Called after the generations were read again following a write up to the position.
    async fn reached(&self, position: Position) {
        self.registry.reached(self.id(), position);
        self.registry.announce(F::VIEW).await;
    }
}
