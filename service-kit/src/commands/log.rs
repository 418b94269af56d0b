//! The log as commands use it: reads that carry the guard of the next write, and outcomes of writes.

use events::Position;

use crate::event_log::{EventLog, Guard, Outcome, ReadError, Stored, Top};

/// A value read from the log, with the guard for the next write on its subject.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The value.
    pub value: T,
    /// Guard of the next write.
    pub guard: Guard,
    /// Position of the last message, 0 when there is none.
    pub position: Position,
}

impl<T> Loaded<T> {
    /// For a subject without a message.
    pub const fn empty(value: T) -> Self {
        Self { value, guard: Guard::absent(), position: Position(0) }
    }

    /// The same with another value.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Loaded<U> {
        let Self { value, guard, position } = self;
        Loaded { value: map(value), guard, position }
    }
}

/// The log could not be read; nothing is decided.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Try again.
    #[error("the event log does not answer")]
    Unavailable(#[source] ReadError),
    /// A message cannot be read.
    #[error("a message on {subject} cannot be read: {reason}")]
    Damaged {
        /// Its subject.
        subject: String,
        /// Why.
        reason: String,
    },
}

/// The outcome of an append, for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Stored; position of the last event.
    Stored(Position),
    /// Something changed since it was read: decide again.
    Conflict,
    /// It may have been stored.
    Unknown,
    /// Nothing was stored; try again later.
    Unavailable,
    /// Nothing was stored: the log is at its limit.
    Full,
    /// Nothing was stored: a bug or a broken configuration.
    Refused(String),
}

impl From<Outcome> for Appended {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored(position) => Self::Stored(position),
            // A duplicate whose first copy could not be found: event ids are drawn anew for each decision,
            // so deciding again is right.
            Outcome::Conflict | Outcome::Duplicate => Self::Conflict,
            Outcome::Unknown => Self::Unknown,
            Outcome::Unavailable => Self::Unavailable,
            Outcome::Full => Self::Full,
            Outcome::Refused(code, text) => Self::Refused(format!("{text} ({code})")),
        }
    }
}

impl EventLog {
    /// The last message on a literal subject, read; `empty` if there is none.
    ///
    /// # Errors
    /// [`LogError`]: decide nothing.
    pub async fn loaded_or<T>(
        &self,
        subject: &str,
        empty: T,
        read: impl FnOnce(&Stored) -> Result<T, String>,
    ) -> Result<Loaded<T>, LogError> {
        let Top { last, guard } = self.top(subject).await.map_err(LogError::Unavailable)?;
        let Some(stored) = last else { return Ok(Loaded { guard, ..Loaded::empty(empty) }) };
        let value = read(&stored)
            .map_err(|reason| LogError::Damaged { subject: subject.to_owned(), reason })?;
        Ok(Loaded { value, guard, position: stored.position })
    }

    /// The last message on a literal subject, read; `None` if there is none.
    ///
    /// # Errors
    /// [`LogError`]: decide nothing.
    pub async fn loaded<T>(
        &self,
        subject: &str,
        read: impl FnOnce(&Stored) -> Result<T, String>,
    ) -> Result<Option<Loaded<T>>, LogError> {
        let some = self.loaded_or(subject, None, |stored| read(stored).map(Some)).await?;
        let Loaded { value, guard, position } = some;
        Ok(value.map(|value| Loaded { value, guard, position }))
    }

    /// The message at a position, read; `None` if it was erased.
    ///
    /// # Errors
    /// [`LogError`]: decide nothing.
    pub async fn loaded_at<T>(
        &self,
        position: Position,
        read: impl FnOnce(&Stored) -> Result<T, String>,
    ) -> Result<Option<T>, LogError> {
        let stored = self.at(position).await.map_err(LogError::Unavailable)?;
        let damaged =
            |reason| LogError::Damaged { subject: format!("position {position}"), reason };
        stored.map(|stored| read(&stored).map_err(damaged)).transpose()
    }
}
