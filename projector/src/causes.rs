//! Where the events of a batch come from: the request behind each is named when the views have it.

use events::{Cause, Position};
use service_kit::event_log::Followed;

/// The causes of the events of one batch, as far as anybody wants to know.
#[derive(Default)]
pub struct Causes(Vec<(Position, Cause)>);

impl Causes {
    /// Takes in the next message. Parsing each twice would slow a rebuild down for nothing, so it is done
    /// only where it is seen.
    pub fn add(&mut self, message: &Followed) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        if let Some(cause) = Cause::of(&message.payload) {
            self.0.push((message.position, cause));
        }
    }

    /// The views have them.
    pub fn applied(self, stream: &'static str) {
        for (position, cause) in self.0 {
            let (event, request_id) = (cause.kind, cause.correlation_id);
            tracing::debug!(stream, %position, event, request_id, "the views have an event");
        }
    }
}
