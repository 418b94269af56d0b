//! Checks that views and log belong together.
//!
//! Views follow the log by position, and a position is meaningful within one history only. A log that was restored from
//! a backup, or whose files were restored, assigns the positions after that point a second time. Views that went on
//! would permanently show events that never happened and lack some that did. Three things reveal it:
//!
//! - the lineage, which is noted on the stream when it is created and changes with `roster restore`;
//! - the end of the log, while it is before the position of the views;
//! - the time at which the message at the checkpoint was stored, once the log has grown past it. Restored files bring
//!   their lineage with them.
//!
//! A checkpoint from before lineages existed adopts the one that it finds. An erased message proves nothing.

use events::{Position, Timestamp};
use mongodb::bson::{DateTime, doc};
use service_kit::event_log::{EventLog, ReadError};

use crate::database::ViewDatabase;
use crate::store::StoreError;

/// Views and log do not belong together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the views do not belong to this log: {why}. The log is right: stop the projectors, then drop the database \
     {database} or set mongodb.database to a new name; the views are built from the log again"
)]
pub struct LineageMismatch {
    why: String,
    database: String,
}

/// The identity of a log, as far as it is known.
pub(crate) struct Lineage {
    name: Option<String>,
    end: Position,
}

/// The log as a checkpoint remembers it.
#[derive(Default)]
pub(crate) struct Known {
    lineage: Option<String>,
    /// The last message whose position it is, with its time.
    last: Option<(Position, DateTime)>,
}

impl Lineage {
    /// The lineage of a log.
    ///
    /// # Errors
    /// [`ReadError`], also if there is no stream.
    pub(crate) async fn of(log: &EventLog) -> Result<Self, ReadError> {
        let standing = log.standing().await?;
        let standing =
            standing.ok_or_else(|| ReadError::Refused("there is no stream".to_owned()))?;
        Ok(Self { name: standing.lineage, end: standing.end })
    }

    /// Position of the last message in the log.
    pub(crate) const fn end(&self) -> Position {
        self.end
    }

    /// Reads what a checkpoint remembers.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn known(
        database: &ViewDatabase,
        checkpoint: &str,
    ) -> Result<Known, StoreError> {
        let found = database.checkpoints().find_one(doc! {"_id": checkpoint}).await?;
        let Some(found) = found else { return Ok(Known::default()) };
        let last = found.get_document("last").ok().and_then(|last| {
            let position = Position(last.get_i64("position").ok()?.unsigned_abs());
            Some((position, *last.get_datetime("stored_at").ok()?))
        });
        let lineage = found.get_str("lineage").ok().map(str::to_owned);
        Ok(Known { lineage, last })
    }

    /// Compares the log with what the checkpoint remembers, for views with a position.
    ///
    /// # Errors
    /// [`ReadError`]: the result is unknown. With [`LineageMismatch`] inside: the views must not go on.
    pub(crate) async fn check(
        &self,
        log: &EventLog,
        position: Position,
        known: &Known,
        database: &str,
    ) -> Result<Result<(), LineageMismatch>, ReadError> {
        let parted = |why| Ok(Err(LineageMismatch { why, database: database.to_owned() }));
        if let (Some(views), Some(log)) = (&known.lineage, &self.name)
            && views != log
        {
            return parted(format!(
                "they were built from the log {views}, and this is {log}, made or restored since"
            ));
        }
        if self.end < position {
            return parted(format!("they have position {position}, and it ends at {}", self.end));
        }
        let Some((at, stored_at)) = known.last else { return Ok(Ok(())) };
        match log.at(at).await? {
            Some(found) if date(found.stored_at) != stored_at => parted(format!(
                "the message at position {at} is not the one that they were built from"
            )),
            Some(_) | None => Ok(Ok(())),
        }
    }

    /// Stores the lineage with the checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) async fn note(
        &self,
        database: &ViewDatabase,
        checkpoint: &str,
    ) -> Result<(), StoreError> {
        let Some(name) = &self.name else { return Ok(()) };
        let noted = doc! {"$set": {"lineage": name}};
        database.checkpoints().update_one(doc! {"_id": checkpoint}, noted).upsert(true).await?;
        Ok(())
    }
}

/// A time as the database stores it.
pub(crate) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_datetime().timestamp_millis())
}
