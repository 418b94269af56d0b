//! Messages that came together, on their way into the views.

use events::{DecodeError, Position, Timestamp};
use service_kit::event_log::Followed;

use crate::causes::Causes;
use crate::fold::Fold;
use crate::run::RunError;

/// Messages that came together, and why nothing comes behind them, if so.
pub(crate) struct Chunk {
    pub(crate) messages: Vec<Followed>,
    pub(crate) failure: Option<RunError>,
}

/// Messages that came together, folded.
pub(crate) struct Batch<F> {
    pub(crate) fold: F,
    /// How many they were.
    pub(crate) events: u64,
    /// How many there are behind them.
    pub(crate) pending: u64,
    /// Position of the last, applied or passed over.
    pub(crate) end: Option<Position>,
    /// When the last of them was stored.
    pub(crate) stored_at: Option<Timestamp>,
    pub(crate) causes: Causes,
    /// Aggregates that are parked from this batch on.
    pub(crate) parked: Vec<String>,
    /// Parked aggregates that came to their end.
    pub(crate) ended: Vec<String>,
    /// Why nothing behind it is applied, if so.
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

    /// Comes past a message.
    pub(crate) fn passes(&mut self, message: &Followed) {
        self.events += 1;
        self.pending = message.pending;
        self.end = Some(message.position);
        self.stored_at = Some(message.stored_at);
    }
}
