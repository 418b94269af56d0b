//! Reading views with limits: a handler waits for no operation longer than its limit, and no operation is cancelled
//! half-way.

use std::time::Duration;

use events::Position;
use futures::TryStreamExt;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::options::Hint;
use mongodb::{Collection, Database};
use serde::de::DeserializeOwned;
use service_kit::http::page::Total;
use service_kit::problem::{Code, Problem};
use service_kit::trace::carried;
use service_kit::views_position::{ViewsPosition, Waited};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::database_error::describe;
use crate::run::RunError;

/// The database's code for a query that reached its time limit.
const WORKED_TOO_LONG: i32 = 50;
/// Pause between two reads of the checkpoint while nothing is heard from the projector.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(100);

/// The views could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// The query needs more work than the database may spend on it.
    #[error("the query is too much work")]
    TooBroad,
    /// The database rejects the query, or returns what cannot be decoded.
    #[error("the views cannot be read: {0}")]
    Damaged(String),
}

impl From<Error> for ReadError {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the driver's list is open, and long")]
    fn from(error: Error) -> Self {
        match error.kind.as_ref() {
            ErrorKind::InvalidArgument { .. }
            | ErrorKind::Bson(_)
            | ErrorKind::BsonDeserialization(_)
            | ErrorKind::InvalidResponse { .. } => Self::Damaged(describe(&error)),
            // A database that is down, steps down or shuts down: all of these are temporary.
            _ => Self::Unavailable(describe(&error)),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Unavailable(why) => Self::new(Code::Unavailable).because(why),
            ReadError::TooBroad => Self::new(Code::QueryTooBroad).detail(
                "this takes too long: ask for less, or for one filter in the default order",
            ),
            ReadError::Damaged(why) => Self::new(Code::Internal).because(why),
        }
    }
}

/// Limits of reads.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// One operation on the database, apart from its work.
    pub operation_timeout: Duration,
    /// Work of the database on one page of a list, and as much on its total.
    pub list_work: Duration,
    /// The largest total that is counted.
    pub total_max: u64,
}

/// A query for a page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Find {
    /// Which documents.
    pub filter: Document,
    /// In which order.
    pub sort: Document,
    /// At most how many.
    pub limit: usize,
    /// The index that serves it in this order; `None` leaves the choice to the database.
    pub index: Option<&'static str>,
}

/// A query for the size of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// Which documents.
    pub filter: Document,
    /// The index that serves it; `None` leaves the choice to the database.
    pub index: Option<&'static str>,
}

/// Reads with limits, and waits for positions. Cheap to clone.
#[derive(Clone)]
pub struct Reads {
    position: ViewsPosition,
    limits: ReadLimits,
    operations: TaskTracker,
}

impl Reads {
    /// Follows the position of views.
    #[must_use]
    pub fn new(position: ViewsPosition, limits: ReadLimits) -> Self {
        Self { position, limits, operations: TaskTracker::new() }
    }

    /// Runs an operation of the driver in a task of its own. A handler is dropped when its client disconnects, and an
    /// operation that is dropped half-way stalls the driver's connection pool for seconds.
    ///
    /// # Errors
    /// Those of the operation, and [`ReadError::Unavailable`] after the time limit.
    pub async fn whole<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.whole_within(self.limits.operation_timeout, operation).await
    }

    /// As [`Reads::whole`], with another limit. Where the database has a time limit of its own, this one is longer, so
    /// that the database's error is seen.
    async fn whole_within<T: Send + 'static>(
        &self,
        limit: Duration,
        operation: impl Future<Output = Result<T, ReadError>> + Send + 'static,
    ) -> Result<T, ReadError> {
        let late = || ReadError::Unavailable(RunError::DatabaseTimeout.to_string());
        let running = self.operations.spawn(timeout(limit, carried(operation)));
        match running.await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(late()),
            Err(error) => Err(ReadError::Damaged(error.to_string())),
        }
    }

    /// Waits until no operation is running.
    pub async fn finished(&self) {
        self.operations.close();
        self.operations.wait().await;
    }

    /// A page of documents.
    ///
    /// # Errors
    /// [`ReadError::TooBroad`] for a list without an index of its own. With one, a slow query is not the fault of the
    /// request.
    pub async fn page<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        collection: Collection<T>,
        find: Find,
    ) -> Result<Vec<T>, ReadError> {
        let ReadLimits { list_work: work, operation_timeout, .. } = self.limits;
        let reading = async move { page(&collection, find, work).await };
        self.whole_within(operation_timeout + work, reading).await
    }

    /// The number of documents in a list.
    ///
    /// # Errors
    /// [`ReadError`]: it is unknown.
    pub async fn total(
        &self,
        database: Database,
        collection: String,
        count: Count,
    ) -> Result<Total, ReadError> {
        let ReadLimits { list_work: work, total_max, operation_timeout } = self.limits;
        let counting = async move { counted(&database, &collection, count, work, total_max).await };
        self.whole_within(operation_timeout + work, counting).await
    }

    /// A position that everything read after this call reflects. `checkpoint` is read while nothing has been heard from
    /// the projector.
    ///
    /// # Errors
    /// Those of `checkpoint`.
    pub async fn position<PositionRead>(
        &self,
        checkpoint: impl FnOnce() -> PositionRead,
    ) -> Result<Position, ReadError>
    where
        PositionRead: Future<Output = Result<Position, ReadError>>,
    {
        match self.position.current() {
            Some(position) => Ok(position),
            None => checkpoint().await,
        }
    }

    /// Waits until the views have a position, for at most `limit`. `checkpoint` is read if nothing is heard.
    ///
    /// # Errors
    /// Those of `checkpoint`.
    pub async fn wait_for<PositionRead>(
        &self,
        position: Position,
        limit: Duration,
        checkpoint: impl Fn() -> PositionRead,
    ) -> Result<bool, ReadError>
    where
        PositionRead: Future<Output = Result<Position, ReadError>>,
    {
        let began = Instant::now();
        let reached = self.wait_until(position, began + limit, checkpoint).await?;
        let waited = match reached {
            true => Waited::Reached,
            false if self.position.is_alive() => Waited::TimedOut,
            false => Waited::ProjectorDown,
        };
        self.position.count(waited, began.elapsed());
        Ok(reached)
    }

    async fn wait_until<PositionRead>(
        &self,
        position: Position,
        deadline: Instant,
        checkpoint: impl Fn() -> PositionRead,
    ) -> Result<bool, ReadError>
    where
        PositionRead: Future<Output = Result<Position, ReadError>>,
    {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.position.wait_for(position, left).await {
                Waited::Reached => return Ok(true),
                // Silence does not mean that the views lack it: the checkpoint decides.
                Waited::TimedOut | Waited::ProjectorDown => {
                    if checkpoint().await? >= position {
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
}

/// Reads a page, with a limit on the database's work.
///
/// # Errors
/// [`ReadError::TooBroad`] if the limit is reached and no index was named.
pub async fn page<T: DeserializeOwned + Send + Sync>(
    collection: &Collection<T>,
    find: Find,
    work: Duration,
) -> Result<Vec<T>, ReadError> {
    let limit = u32::try_from(find.limit).unwrap_or(u32::MAX);
    let mut query = collection
        .find(find.filter)
        .sort(find.sort)
        .limit(limit.into())
        // A page is one batch of the database.
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

/// Counts the documents of a list, with a limit on the database's work. The driver's method counts document by
/// document; the command counts the keys of an index.
///
/// # Errors
/// [`ReadError`]: the number is unknown.
pub async fn counted(
    database: &Database,
    collection: &str,
    count: Count,
    work: Duration,
    total_max: u64,
) -> Result<Total, ReadError> {
    let mut command = doc! {
        "count": collection,
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

fn worked_too_long(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(refused) if refused.code == WORKED_TOO_LONG)
}
