//! Reads from the views.

use std::time::Duration;

use events::{DeletedUser, Position, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Document, Uuid, doc};
use service_kit::views_position::{ViewsPosition, Waited};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use views::{
    DamagedView, LivingUser, SessionDocument, SessionView, UserDocument, UserView, Views, user_key,
    users_checkpoint,
};

/// Pause between two looks at the checkpoint when the projector is not heard of.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(100);

/// The views could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// The database refuses, or holds what we cannot read.
    #[error("the views cannot be read: {0}")]
    Damaged(String),
}

impl From<mongodb::error::Error> for ReadError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver's list is open, and long")]
    fn from(error: mongodb::error::Error) -> Self {
        use mongodb::error::ErrorKind;
        match error.kind.as_ref() {
            ErrorKind::InvalidArgument { .. }
            | ErrorKind::BsonDeserialization(_)
            | ErrorKind::InvalidResponse { .. } => Self::Damaged(error.to_string()),
            // A database that is away, steps down or is shutting down: all of them pass.
            _ => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<DamagedView> for ReadError {
    fn from(error: DamagedView) -> Self {
        Self::Damaged(error.to_string())
    }
}

/// A user or its tombstone, with the position that the answer reflects.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A living user.
    Living(Box<LivingUser>, Position),
    /// A deleted one.
    Tombstone(DeletedUser),
    /// The views know nobody of this id.
    Nobody,
}

/// Reads views. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    views: Views,
    position: ViewsPosition,
    operation_timeout: Duration,
    operations: TaskTracker,
}

impl Reader {
    /// Reads from a database, following its position.
    pub fn new(views: Views, position: ViewsPosition, operation_timeout: Duration) -> Self {
        Self { views, position, operation_timeout, operations: TaskTracker::new() }
    }

    /// Runs an operation of the driver in a task of its own. A handler is dropped when its client hangs
    /// up, and an operation dropped half-way stalls the driver's connection pool for seconds.
    async fn whole<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let late = || ReadError::Unavailable("no answer in time".to_owned());
        let running = self.operations.spawn(timeout(self.operation_timeout, operation));
        match running.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(late()),
            Err(error) => Err(ReadError::Damaged(error.to_string())),
        }
    }

    /// Waits until no operation is under way.
    pub async fn finished(&self) {
        self.operations.close();
        self.operations.wait().await;
    }

    /// Asks the database whether it is there.
    pub async fn ping(&self) -> Result<(), ReadError> {
        let views = self.views.clone();
        self.whole(async move { Ok(views.ping().await?) }).await
    }

    /// A position that everything read after this reflects.
    pub async fn position(&self) -> Result<Position, ReadError> {
        match self.position.current() {
            Some(position) => Ok(position),
            None => self.checkpoint().await,
        }
    }

    /// Waits until the views have a position, at most `limit`.
    pub async fn wait_for(&self, position: Position, limit: Duration) -> Result<bool, ReadError> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.position.wait_for(position, left).await {
                Waited::Reached => return Ok(true),
                // Silence does not mean that the views lack it: their checkpoint tells.
                Waited::TimedOut | Waited::ProjectorDown => {
                    if self.checkpoint().await? >= position {
                        return Ok(true);
                    }
                }
            }
            if Instant::now() + CHECKPOINT_PAUSE >= deadline {
                return Ok(false);
            }
            sleep(CHECKPOINT_PAUSE).await;
        }
    }

    async fn checkpoint(&self) -> Result<Position, ReadError> {
        let views = self.views.clone();
        self.whole(async move { Ok(views.position(&users_checkpoint()).await?) }).await
    }

    /// One user.
    pub async fn user(&self, id: UserId) -> Result<Found, ReadError> {
        let before = self.position().await?;
        let users = self.views.users();
        let id = Uuid::from_bytes(*id.as_uuid().as_bytes());
        // Without a position it is only what sessions and revocations said, and the user is to come.
        let filter = doc! {"_id": id, "position": {"$gte": 0}};
        let found = self.whole(async move { Ok(users.find_one(filter).await?) }).await?;
        let Some(document) = found else { return Ok(Found::Nobody) };
        let position = before.max(document.position());
        Ok(match document.view()? {
            UserView::Living(user) => Found::Living(user, position),
            UserView::Tombstone(user) => Found::Tombstone(user),
        })
    }

    /// Living users by a filter in an order, at most `limit`.
    pub async fn users(
        &self,
        filter: Document,
        sort: Document,
        limit: usize,
    ) -> Result<Vec<LivingUser>, ReadError> {
        let users = self.views.users();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let documents: Vec<UserDocument> = self
            .whole(async move {
                Ok(users.find(filter).sort(sort).limit(limit).await?.try_collect().await?)
            })
            .await?;
        let mut found = Vec::with_capacity(documents.len());
        for document in documents {
            if let UserView::Living(user) = document.view()? {
                found.push(*user);
            }
        }
        Ok(found)
    }

    /// The sessions of a user that were not ended, newest first, at most `limit`.
    pub async fn sessions(&self, user: UserId, limit: i64) -> Result<Vec<SessionView>, ReadError> {
        let sessions = self.views.sessions();
        let filter = doc! {"user_id": user_key(user), "created_at": {"$exists": true}};
        let documents: Vec<SessionDocument> = self
            .whole(async move {
                let found = sessions.find(filter).sort(doc! {"created_at": -1}).limit(limit);
                Ok(found.await?.try_collect().await?)
            })
            .await?;
        Ok(documents.into_iter().filter_map(SessionDocument::view).collect())
    }
}
