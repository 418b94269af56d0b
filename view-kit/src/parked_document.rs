//! The stored form of a parked aggregate.

use events::{Position, Timestamp};
use mongodb::bson::DateTime;
use serde::{Deserialize, Serialize};

/// Collection with one document per parked aggregate.
pub const PARKED: &str = "parked";

/// An aggregate with a message that cannot be read: that message and those after it wait in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedDocument {
    /// Checkpoint and aggregate.
    #[serde(rename = "_id")]
    pub id: String,
    /// The checkpoint of the views that lack it.
    pub checkpoint: String,
    /// The stream that the messages are in.
    pub stream: String,
    /// The aggregate, as [`events::subjects::aggregate`] names it.
    pub aggregate: String,
    /// Position of the message that cannot be read.
    pub position: i64,
    /// Position of the last message that waits. The aggregate is not released before it has been read up to here.
    pub through: i64,
    /// Why it cannot be read, without personal data.
    pub why: String,
    /// When it was parked.
    pub parked_at: DateTime,
}

impl ParkedDocument {
    /// Its key.
    #[must_use]
    pub fn key(checkpoint: &str, aggregate: &str) -> String {
        format!("{checkpoint}/{aggregate}")
    }

    /// Position of the message that cannot be read.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position(self.position.unsigned_abs())
    }

    /// Position of the last message that waits.
    #[must_use]
    pub const fn through(&self) -> Position {
        Position(self.through.unsigned_abs())
    }

    /// When it was parked.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        Timestamp::from_datetime(self.parked_at.to_chrono())
    }
}
