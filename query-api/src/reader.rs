//! Reads from the views.

use std::time::Duration;

use events::{Position, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Uuid, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::Hint;
use mongodb::{Collection, Database};
use service_kit::trace::carried;
use service_kit::views_position::{ViewsPosition, Waited};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;
use views::{
    DamagedView, HistoryDocument, HistoryEntry, Kind, LivingUser, SessionDocument, SessionView,
    UserDocument, UserView, Views, user_key, users_collection,
};

use crate::list::{Count, Find};
use crate::live::Live;

/// The code of the database for a query that worked as long as it may.
const WORKED_TOO_LONG: i32 = 50;
/// Pause between two looks at the checkpoint when the projector is not heard of.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(100);

/// The views could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database does not answer.
    #[error("the database does not answer: {0}")]
    Unavailable(String),
    /// The query is more work than the database may do for it.
    #[error("the query is too much work")]
    TooBroad,
    /// The database refuses, or holds what we cannot read.
    #[error("the views cannot be read: {0}")]
    Damaged(String),
}

impl From<Error> for ReadError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver's list is open, and long")]
    fn from(error: Error) -> Self {
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

fn worked_too_long(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(refused) if refused.code == WORKED_TOO_LONG)
}

/// A user or its tombstone, with the position that the answer reflects.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// A living user.
    Living(Box<LivingUser>, Position),
    /// A deleted one, with the position of its deletion.
    Tombstone(Position),
    /// The views know nobody of this id.
    Nobody,
}

/// How many users a list has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// So many.
    Exactly(u64),
    /// More than are counted.
    MoreThan(u64),
    /// Counting them takes too long.
    TooMuchWork,
}

/// What is too much.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// One operation on the database, work aside.
    pub operation_timeout: Duration,
    /// Work of the database on one page of a list, and as much on its total.
    pub list_work: Duration,
    /// Largest total that is counted.
    pub total_max: u64,
}

/// Reads views. Cheap to clone.
#[derive(Clone)]
pub struct Reader {
    views: Views,
    live: Live,
    position: ViewsPosition,
    limits: Limits,
    operations: TaskTracker,
}

impl Reader {
    /// Reads from a database, following its position and the generation that is live.
    pub fn new(views: Views, live: Live, position: ViewsPosition, limits: Limits) -> Self {
        Self { views, live, position, limits, operations: TaskTracker::new() }
    }

    /// Runs an operation of the driver in a task of its own. A handler is dropped when its client hangs
    /// up, and an operation dropped half-way stalls the driver's connection pool for seconds.
    async fn whole<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.whole_within(self.limits.operation_timeout, operation).await
    }

    /// The same for an operation with another limit. Where the database has a limit of its own, this one
    /// is beyond it, so that its word is heard.
    async fn whole_within<T: Send + 'static>(
        &self,
        limit: Duration,
        operation: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let late = || ReadError::Unavailable("no answer in time".to_owned());
        let running = self.operations.spawn(timeout(limit, carried(operation)));
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

    /// Asks the database whether it is there, and whether it is known what to read of it.
    pub async fn ping(&self) -> Result<(), ReadError> {
        for kind in Kind::ALL {
            self.live.of(kind)?;
        }
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
        let began = Instant::now();
        let reached = self.wait_until(position, began + limit).await?;
        let waited = match reached {
            true => Waited::Reached,
            false if self.position.is_alive() => Waited::TimedOut,
            false => Waited::ProjectorDown,
        };
        self.position.count(waited, began.elapsed());
        Ok(reached)
    }

    async fn wait_until(&self, position: Position, deadline: Instant) -> Result<bool, ReadError> {
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

    /// What every generation has that this or a later read may be answered from.
    async fn checkpoint(&self) -> Result<Position, ReadError> {
        let views = self.views.clone();
        self.whole(async move { Ok(views.users_position().await?) }).await
    }

    /// One user.
    pub async fn user(&self, id: UserId) -> Result<Found, ReadError> {
        let before = self.position().await?;
        let users = self.views.users(self.live.of(Kind::Users)?);
        let id = Uuid::from_bytes(*id.as_uuid().as_bytes());
        // Without a position it is only what sessions and revocations said, and the user is to come.
        let filter = doc! {"_id": id, "position": {"$gte": 0}};
        let found = self.whole(async move { Ok(users.find_one(filter).await?) }).await?;
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
    /// [`ReadError::TooBroad`] for a list without an index of its own; where there is one, whatever takes
    /// so long is no fault of the list.
    pub async fn users(&self, find: Find) -> Result<Vec<LivingUser>, ReadError> {
        let users = self.views.users(self.live.of(Kind::Users)?);
        let work = self.limits.list_work;
        let limit = self.limits.operation_timeout + work;
        let documents =
            self.whole_within(limit, async move { page(&users, find, work).await }).await?;
        let mut found = Vec::with_capacity(documents.len());
        for document in documents {
            if let UserView::Living(user) = document.view()? {
                found.push(*user);
            }
        }
        Ok(found)
    }

    /// How many users a list has.
    pub async fn total(&self, count: Count) -> Result<Total, ReadError> {
        let database = self.views.database().clone();
        let users = users_collection(self.live.of(Kind::Users)?);
        let Limits { list_work: work, total_max, operation_timeout } = self.limits;
        let counting = async move { counted(&database, &users, count, work, total_max).await };
        self.whole_within(operation_timeout + work, counting).await
    }

    /// Events of a user behind a position, oldest first, at most `limit`.
    pub async fn history(
        &self,
        user: UserId,
        behind: Position,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, ReadError> {
        let history = self.views.history(self.live.of(Kind::Users)?);
        let behind = i64::try_from(behind.0).unwrap_or(i64::MAX);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let filter = doc! {"user_id": user_key(user), "_id": {"$gt": behind}};
        let documents: Vec<HistoryDocument> = self
            .whole(async move {
                let found = history.find(filter).sort(doc! {"_id": 1}).limit(limit.into());
                Ok(found.batch_size(limit).await?.try_collect().await?)
            })
            .await?;
        Ok(documents.into_iter().map(HistoryDocument::view).collect::<Result<_, _>>()?)
    }

    /// The sessions of a user that were not ended, newest first, at most `limit`.
    pub async fn sessions(&self, user: UserId, limit: i64) -> Result<Vec<SessionView>, ReadError> {
        let sessions = self.views.sessions(self.live.of(Kind::Sessions)?);
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

/// Reads a page, with at most so much work of the database.
pub async fn page(
    users: &Collection<UserDocument>,
    find: Find,
    work: Duration,
) -> Result<Vec<UserDocument>, ReadError> {
    let limit = u32::try_from(find.limit).unwrap_or(u32::MAX);
    let mut query = users
        .find(find.filter)
        .sort(find.sort)
        .limit(limit.into())
        // A page is one answer of the database.
        .batch_size(limit)
        .max_time(work);
    let chosen_by_us = find.index.is_some();
    if let Some(index) = find.index {
        query = query.hint(Hint::Name(index.to_owned()));
    }
    match query.await {
        Ok(found) => Ok(found.try_collect().await?),
        Err(error) if worked_too_long(&error) && !chosen_by_us => Err(ReadError::TooBroad),
        Err(error) => Err(error.into()),
    }
}

/// Counts the users of a list, with at most so much work of the database. The driver's method counts
/// document by document; the command counts the keys of an index.
pub async fn counted(
    database: &Database,
    users: &str,
    count: Count,
    work: Duration,
    total_max: u64,
) -> Result<Total, ReadError> {
    let mut command = doc! {
        "count": users,
        "query": count.filter,
        "limit": i64::try_from(total_max).unwrap_or(i64::MAX).saturating_add(1),
        "maxTimeMS": i64::try_from(work.as_millis()).unwrap_or(i64::MAX),
    };
    if let Some(index) = count.index {
        command.insert("hint", index);
    }
    let answer = match database.run_command(command).await {
        Err(error) if worked_too_long(&error) => return Ok(Total::TooMuchWork),
        answer => answer?,
    };
    let number = answer.get_i32("n").map(i64::from).or_else(|_| answer.get_i64("n"));
    let number = number.map_err(|error| ReadError::Damaged(error.to_string()))?.unsigned_abs();
    Ok(if number > total_max { Total::MoreThan(total_max) } else { Total::Exactly(number) })
}
