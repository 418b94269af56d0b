//! Batches of messages on their way into the views.

use events::{DecodeError, Position, Timestamp};
use service_kit::event_log::{FollowError, Followed};

use crate::causes::Causes;
use crate::fold::Fold;
use crate::run::RunError;

/// Messages that arrived together, and why nothing arrives after them, if anything failed.
pub(crate) struct Chunk {
    pub(crate) messages: Vec<Followed>,
    pub(crate) failure: Option<RunError>,
}

/// The messages of a chunk before a failure, which are processed before it is reported.
pub(crate) fn until_failure(
    chunk: Vec<Result<Followed, FollowError>>,
) -> (Vec<Followed>, Option<FollowError>) {
    let mut messages = Vec::with_capacity(chunk.len());
    for next in chunk {
        match next {
            Ok(message) => messages.push(message),
            Err(failure) => return (messages, Some(failure)),
        }
    }
    (messages, None)
}

/// Messages that arrived together, folded.
pub(crate) struct Batch<F> {
    pub(crate) fold: F,
    /// Their number.
    pub(crate) events: u64,
    /// The number of messages after them.
    pub(crate) pending: u64,
    /// Position of the last one, applied or skipped because it is parked.
    pub(crate) end: Option<Position>,
    /// When the last of them was stored.
    pub(crate) stored_at: Option<Timestamp>,
    pub(crate) causes: Causes,
    /// Aggregates that are parked from this batch on.
    pub(crate) parked: Vec<String>,
    /// Parked aggregates that reached their end.
    pub(crate) ended: Vec<String>,
    /// Why nothing after it is applied, if anything failed.
    pub(crate) failure: Option<RunError>,
}

impl<F: Fold> Batch<F> {
    pub(crate) fn of(causes: Causes) -> Self {
        Self {
            fold: F::default(),
            events: 0,
            pending: 0,
            end: None,
            stored_at: None,
            causes,
            parked: Vec::new(),
            ended: Vec::new(),
            failure: None,
        }
    }

    pub(crate) fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        self.fold.add(message)?;
        self.causes.add(message);
        self.passes(message);
        Ok(())
    }

    /// Passes a message.
    pub(crate) fn passes(&mut self, message: &Followed) {
        self.events += 1;
        self.pending = message.pending;
        self.end = Some(message.position);
        self.stored_at = Some(message.stored_at);
    }
}
