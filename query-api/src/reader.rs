//! Reading from the views.

use std::time::Duration;

use events::{Position, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Uuid, doc};
use service_kit::http::page::Total;
use view_kit::{Count, Find, ReadError, Reads};
use views::{
    HistoryDocument, HistoryEntry, LivingUser, SessionDocument, SessionView, UserView, ViewSet,
    Views, user_key, users_collection,
};

use crate::live::Live;

/// A user or its tombstone, with the position that the answer reflects.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A living user.
    Living(Box<LivingUser>, Position),
    /// A deleted user, with the position of the deletion.
    Tombstone(Position),
    /// The views have no user with this id.
    Nobody,
}

/// Reads views. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    views: Views,
    live: Live,
    reads: Reads,
    /// The same for the views of sessions, which have positions of their own.
    session_reads: Reads,
}

impl Reader {
    /// Reads from a database, following its position and its live generation.
    pub const fn new(views: Views, live: Live, reads: Reads, session_reads: Reads) -> Self {
        Self { views, live, reads, session_reads }
    }

    /// Waits until no operation is running.
    pub async fn finished(&self) {
        self.reads.finished().await;
        self.session_reads.finished().await;
    }

    /// Checks that the database answers and the live generation is known.
    pub async fn ping(&self) -> Result<(), ReadError> {
        // If the database is down, that is the reason to report, and not that the generation is unknown.
        let views = self.views.clone();
        self.reads.whole(async move { Ok(views.ping().await?) }).await?;
        ViewSet::ALL.into_iter().try_for_each(|set| self.live.number(set).map(drop))
    }

    /// A position that everything read after this call reflects.
    pub async fn position(&self) -> Result<Position, ReadError> {
        self.reads.position(|| self.checkpoint()).await
    }

    /// Waits until the views have a position, for at most `limit`.
    pub async fn wait_for(&self, position: Position, limit: Duration) -> Result<bool, ReadError> {
        self.reads.wait_for(position, limit, || self.checkpoint()).await
    }

    /// A position in the log of sessions that everything read of them after this call reflects.
    pub async fn session_position(&self) -> Result<Position, ReadError> {
        self.session_reads.position(|| self.session_checkpoint()).await
    }

    /// Waits until the views of sessions have a position, for at most `limit`.
    pub async fn wait_for_session(
        &self,
        position: Position,
        limit: Duration,
    ) -> Result<bool, ReadError> {
        self.session_reads.wait_for(position, limit, || self.session_checkpoint()).await
    }

    async fn session_checkpoint(&self) -> Result<Position, ReadError> {
        let views = self.views.clone();
        self.session_reads.whole(async move { Ok(views.sessions_position().await?) }).await
    }

    /// The position of every generation that this or a later read may be answered from.
    async fn checkpoint(&self) -> Result<Position, ReadError> {
        let views = self.views.clone();
        self.reads.whole(async move { Ok(views.users_position().await?) }).await
    }

    /// One user.
    pub async fn user(&self, id: UserId) -> Result<Found, ReadError> {
        let before = self.position().await?;
        let users = self.views.users(self.live.number(ViewSet::Users)?);
        let id = Uuid::from_bytes(*id.as_uuid().as_bytes());
        // A document without a position holds only data from sessions and revocations: the user's event is still to
        // come.
        let filter = doc! {"_id": id, "position": {"$gte": 0}};
        let found = self.reads.whole(async move { Ok(users.find_one(filter).await?) }).await?;
        let Some(document) = found else { return Ok(Found::Nobody) };
        let own = document.position();
        Ok(match document.view()? {
            UserView::Living(user) => Found::Living(user, before.max(own)),
            UserView::Tombstone(_) => Found::Tombstone(own),
        })
    }

    /// Living users of a list.
    ///
    /// # Errors
    /// As [`Reads::page`].
    pub async fn users(&self, find: Find) -> Result<Vec<LivingUser>, ReadError> {
        let users = self.views.users(self.live.number(ViewSet::Users)?);
        let documents = self.reads.page(users, find).await?;
        let mut found = Vec::with_capacity(documents.len());
        for document in documents {
            if let UserView::Living(user) = document.view()? {
                found.push(*user);
            }
        }
        Ok(found)
    }

    /// The number of users in a list.
    pub async fn total(&self, count: Count) -> Result<Total, ReadError> {
        let users = users_collection(self.live.number(ViewSet::Users)?);
        self.reads.total(self.views.database().clone(), users, count).await
    }

    /// Events of a user after a position, oldest first, at most `limit`.
    pub async fn history(
        &self,
        user: UserId,
        behind: Position,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, ReadError> {
        let history = self.views.history(self.live.number(ViewSet::Users)?);
        let behind = i64::try_from(behind.0).unwrap_or(i64::MAX);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let filter = doc! {"user_id": user_key(user), "_id": {"$gt": behind}};
        let documents: Vec<HistoryDocument> = self
            .reads
            .whole(async move {
                let found = history.find(filter).sort(doc! {"_id": 1}).limit(limit.into());
                Ok(found.batch_size(limit).await?.try_collect().await?)
            })
            .await?;
        Ok(documents.into_iter().map(HistoryDocument::view).collect::<Result<_, _>>()?)
    }

    /// The sessions of a user that have not ended, newest first, at most `limit`.
    pub async fn sessions(&self, user: UserId, limit: i64) -> Result<Vec<SessionView>, ReadError> {
        let sessions = self.views.sessions(self.live.number(ViewSet::Sessions)?);
        let filter = doc! {"user_id": user_key(user), "created_at": {"$exists": true}};
        let documents: Vec<SessionDocument> = self
            .session_reads
            .whole(async move {
                let found = sessions.find(filter).sort(doc! {"created_at": -1}).limit(limit);
                Ok(found.await?.try_collect().await?)
            })
            .await?;
        Ok(documents.into_iter().filter_map(SessionDocument::view).collect())
    }
}
