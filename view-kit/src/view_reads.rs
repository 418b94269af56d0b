//! The query side of a service with one view.

use std::marker::PhantomData;
use std::time::Duration;

use events::Position;
use mongodb::Collection;
use service_kit::health::Readiness;
use service_kit::http::page::Total;
use service_kit::metrics::Metrics;
use service_kit::views_position::{ViewsPosition, subject_of};
use tokio_util::sync::CancellationToken;

use crate::database::ViewDatabase;
use crate::one_view::View;
use crate::reads::{Count, Find, ReadError, ReadLimits, Reads};

/// Reads one view, in the layout of this version. Cheap to clone.
pub struct ViewReads<V> {
    database: ViewDatabase,
    position: ViewsPosition,
    reads: Reads,
    view: PhantomData<fn() -> V>,
}

impl<V> Clone for ViewReads<V> {
    fn clone(&self) -> Self {
        let (database, position) = (self.database.clone(), self.position.clone());
        Self { database, position, reads: self.reads.clone(), view: PhantomData }
    }
}

impl<V: View> ViewReads<V> {
    /// Follows the position of the views until `stop`. The database may become available later.
    ///
    /// # Errors
    /// The position cannot be followed.
    pub async fn follow(
        client: &async_nats::Client,
        database: ViewDatabase,
        limits: ReadLimits,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Result<Self, async_nats::SubscribeError> {
        let subject = subject_of(V::NAME);
        let position = ViewsPosition::follow_layout(client, subject, V::LAYOUT, stop).await?;
        let position = position.watched(metrics, V::NAME);
        let reads = Reads::new(position.clone(), limits);
        Ok(Self { database, position, reads, view: PhantomData })
    }

    /// Adds the readiness checks: the database answers, and the projector of this layout announces its position, which
    /// it does once its views are filled.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let (reads, position) = (self.clone(), self.position.clone());
        Readiness::default()
            .with("database", move || {
                let reads = reads.clone();
                async move { reads.ping().await.map_err(|error| error.to_string()) }
            })
            .with("views", move || {
                let alive = position.is_alive();
                async move {
                    if alive { Ok(()) } else { Err("nothing heard of the projector".to_owned()) }
                }
            })
    }

    /// The announced position of the views, which answers to commands wait for.
    #[must_use]
    pub const fn heard(&self) -> &ViewsPosition {
        &self.position
    }

    async fn ping(&self) -> Result<(), ReadError> {
        let database = self.database.clone();
        self.reads.whole(async move { Ok(database.ping().await?) }).await
    }

    /// The documents.
    #[must_use]
    pub fn documents<T: Send + Sync>(&self) -> Collection<T> {
        self.database.database().collection(&V::collection())
    }

    /// Runs an operation on the documents within its time limit, even if the caller is dropped.
    ///
    /// # Errors
    /// Those of the operation, and [`ReadError::Unavailable`] after the time limit.
    pub async fn whole<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.reads.whole(operation).await
    }

    /// A page of documents.
    ///
    /// # Errors
    /// [`ReadError`], as for [`Reads::page`].
    pub async fn page<T>(&self, find: Find) -> Result<Vec<T>, ReadError>
    where
        T: serde::de::DeserializeOwned + Send + Sync + 'static,
    {
        self.reads.page(self.documents(), find).await
    }

    /// The number of documents in a list.
    ///
    /// # Errors
    /// [`ReadError`]: it is unknown.
    pub async fn total(&self, count: Count) -> Result<Total, ReadError> {
        self.reads.total(self.database.database().clone(), V::collection(), count).await
    }

    /// A position that everything read after this call reflects. Call it before the read.
    ///
    /// # Errors
    /// [`ReadError`]: neither the projector nor the database has one.
    pub async fn position(&self) -> Result<Position, ReadError> {
        self.reads.position(|| self.checkpoint()).await
    }

    /// Waits until the views have a position, for at most `limit`.
    ///
    /// # Errors
    /// [`ReadError`]: nothing was heard, and the database does not answer.
    pub async fn wait_for(&self, position: Position, limit: Duration) -> Result<bool, ReadError> {
        self.reads.wait_for(position, limit, || self.checkpoint()).await
    }

    async fn checkpoint(&self) -> Result<Position, ReadError> {
        let database = self.database.clone();
        self.reads.whole(async move { Ok(database.position(&V::collection()).await?) }).await
    }

    /// Waits until no operation is running.
    pub async fn finished(&self) {
        self.reads.finished().await;
    }
}
