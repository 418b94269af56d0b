//! The log as commands see it: what is read with the guard of the next write, and what came of a write.

use events::Position;

use crate::event_log::{EventLog, Guard, Outcome, ReadError, Stored, Top};

/// Something with the guard that a later write on it needs.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// What is there.
    pub value: T,
    /// Guard of the next write.
    pub guard: Guard,
    /// Position of the last message, 0 when there is none.
    pub position: Position,
}

impl<T> Loaded<T> {
    /// Where nothing was written yet.
    pub const fn empty(value: T) -> Self {
        Self { value, guard: Guard::absent(), position: Position(0) }
    }
}

/// The log could not be read; nothing is decided.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Try again.
    #[error("the event log does not answer")]
    Unavailable(#[source] ReadError),
    /// A message that is there cannot be understood.
    #[error("a message on {subject} cannot be read: {reason}")]
    Damaged {
        /// Where.
        subject: String,
        /// Why.
        reason: String,
    },
}

/// What came of an append, for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Stored; position of the last event.
    Stored(Position),
    /// Something changed since it was read: decide again.
    Conflict,
    /// Nobody can say.
    Unknown,
    /// Nothing was stored; try again later.
    Unavailable,
    /// Nothing was stored: the log is at its limit.
    Full,
    /// Nothing was stored: a fault of configuration or of the service.
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
    /// What the last message on a literal subject says; `empty` when there is none.
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

    /// What the last message on a literal subject says; `None` when there is none.
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

    /// What the message at a position says; `None` when it was erased.
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
