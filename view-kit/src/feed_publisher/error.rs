//! Why a publisher stops.

use events::{DecodeError, Position};
use service_kit::event_log::{FollowError, Outcome, ReadError};

/// Why a run ended; the next one starts from the end of the feed.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A log or the feed does not answer.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// A log cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// An event cannot be read, and no further aggregate may be parked.
    #[error(
        "the event at position {0} of {1} cannot be read: {2}. {reason}",
        reason = not_parked(*.3)
    )]
    Unreadable(Position, String, DecodeError, usize),
    /// A value cannot be JSON.
    #[error("an event cannot be written: {0}")]
    Encode(#[from] serde_json::Error),
    /// A message that is in a log is not delivered.
    #[error("an event that is in the log does not arrive")]
    Missing,
    /// The feed is at its limit.
    #[error(
        "the feed is full: raise feed.bytes_max (of a peer service: log.feed_bytes_max), and provision it again"
    )]
    Full,
    /// The server rejects the write.
    #[error("the feed rejects the write: {0:?}")]
    Refused(Outcome),
    /// Another program wrote the last message.
    #[error("the last message of the feed has no valid position or parking header")]
    NoPosition,
    /// A log or the feed was restored, or belongs to another system.
    #[error(
        "the feed is published through {0} of {1}, but the log ends at {2}: they do not belong together"
    )]
    LogBehindFeed(Position, String, Position),
    /// The feed was restored or removed while a publisher ran.
    #[error("the feed became shorter: it ended at {0} and now ends at {1}")]
    Shortened(Position, Position),
    /// Another publisher is running, and won every write.
    #[error("another writer won every time")]
    Overtaken,
}

fn not_parked(parked: usize) -> String {
    match parked {
        0 => "Nothing after it is published".to_owned(),
        some => format!(
            "It is not parked because {some} aggregates are already (projector.parked_max), and nothing after it is published"
        ),
    }
}
