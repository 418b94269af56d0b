//! One view without generations: a new layout builds it anew.
//!
//! The number of the layout is part of the names of collection and checkpoint. A version with a new layout finds
//! neither, and fills its own from the start of the log, next to those of the version before, which are still served.
//! Until it has caught up once it is not ready and announces nothing. The checkpoint remembers that it has, and the
//! query side of the new version only listens to its own layout, which every announcement names (ADR 21).

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use events::Position;
use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use service_kit::views_position::{Announcer, subject_of};

use crate::database::ViewDatabase;
use crate::fold::Fold;
use crate::run::{Projection, RunError};
use crate::store::{StoreError, write};
use crate::target::Target;

/// Member of a checkpoint whose views have caught up with the log once.
const FILLED: &str = "filled";

/// A fold into one collection of a service without generations.
pub trait View: Fold {
    /// The service's name for its views, in the plural. It is part of the names of collection and checkpoint, and of
    /// the subjects of announcements and retry requests.
    const NAME: &'static str;

    /// Increase it when documents get more members, or other documents are built from the same messages: all of them
    /// are built anew. Never reuse a number.
    const LAYOUT: u32;

    /// Every index of the collection.
    #[must_use]
    fn indexes() -> Vec<IndexModel>;

    /// The name of the collection, and of the checkpoint.
    #[must_use]
    fn collection() -> String {
        collection(Self::NAME, Self::LAYOUT)
    }
}

/// The collection of views in a layout.
#[must_use]
pub fn collection(views: &str, layout: u32) -> String {
    format!("{views}_{layout}")
}

/// The views of one layout.
pub struct OneView<V> {
    database: ViewDatabase,
    name: String,
    announcer: Announcer,
    is_filling: AtomicBool,
    view: PhantomData<fn() -> V>,
}

impl<V: View> OneView<V> {
    /// For a database. Whether they are filled is read when a run begins.
    #[must_use]
    pub fn new(client: &async_nats::Client, database: ViewDatabase) -> Self {
        let announcer = Announcer::new(client.clone(), subject_of(V::NAME)).of_layout(V::LAYOUT);
        let (name, is_filling, view) = (V::collection(), AtomicBool::new(true), PhantomData);
        Self { database, name, announcer, is_filling, view }
    }

    fn is_filled(&self, is_filled: bool) {
        self.is_filling.store(!is_filled, Ordering::Release);
    }

    async fn filled(&self) -> Result<bool, Error> {
        let found = self.database.checkpoints().find_one(doc! {"_id": &self.name}).await?;
        Ok(found.is_some_and(|found| found.get_bool(FILLED).unwrap_or(false)))
    }
}

impl<V: View> Target for OneView<V> {
    type Fold = V;

    fn database(&self) -> &ViewDatabase {
        &self.database
    }

    fn checkpoint(&self) -> &str {
        &self.name
    }

    fn is_filling(&self) -> bool {
        self.is_filling.load(Ordering::Acquire)
    }

    async fn prepare(&self) -> Result<(), StoreError> {
        let indexes = V::indexes();
        if !indexes.is_empty() {
            let collection = self.database.database().collection::<Document>(&self.name);
            collection.create_indexes(indexes).await?;
        }
        Ok(())
    }

    async fn begin(
        &self,
        projection: &Projection<Self>,
        _: Position,
    ) -> Result<Position, RunError> {
        self.is_filled(projection.asked(self.filled()).await?);
        Ok(Position(0))
    }

    fn write(&self, batch: &V) -> impl Future<Output = Result<(), StoreError>> + Send {
        write(&self.database, V::LAYOUT, batch)
    }

    async fn caught_up(&self) -> Result<(), StoreError> {
        if self.is_filling() {
            let noted = doc! {"$set": {FILLED: true}};
            self.database.checkpoints().update_one(doc! {"_id": &self.name}, noted).await?;
            self.is_filled(true);
            let views = &self.name;
            tracing::info!(views, "the views are filled and have caught up with the log");
        }
        Ok(())
    }

    async fn reached(&self, position: Position) {
        if !self.is_filling() {
            self.announcer.announce(position).await;
        }
    }
}
