//! Where the events of a batch come from: each is a part of the request behind it until the views have it.

use std::time::Duration;

use events::{Cause, Position, Timestamp};
use service_kit::ambient;
use service_kit::event_log::Followed;
use service_kit::trace::{Recorded, TraceContext, Tracer};

/// Age from which on an event leads to no span: nobody looks at its trace any more, and a rebuild would
/// send one for everything that ever happened.
const TRACED_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// The causes of the events of one batch, as far as anybody wants to know.
pub(crate) struct Causes {
    wanted: bool,
    known: Vec<Known>,
}

struct Known {
    position: Position,
    stored_at: Timestamp,
    cause: Cause,
}

impl Causes {
    /// `recorded`: there are spans. Reading each event twice would slow a rebuild down for nothing, so it
    /// is done only where it is seen.
    pub(crate) fn wanted(recorded: bool) -> Self {
        let wanted = recorded || tracing::enabled!(tracing::Level::DEBUG);
        Self { wanted, known: Vec::new() }
    }

    /// Takes in the next message.
    pub(crate) fn add(&mut self, message: &Followed) {
        if !self.wanted {
            return;
        }
        if let Some(cause) = Cause::of(&message.payload) {
            let (position, stored_at) = (message.position, message.stored_at);
            self.known.push(Known { position, stored_at, cause });
        }
    }

    /// The events are being written to the views.
    pub(crate) fn begin(self, tracer: &Tracer, stream: &'static str) -> Work {
        let now = ambient::now().as_datetime();
        let begun = self.known.into_iter().map(|known| {
            let age = (now - known.stored_at.as_datetime()).to_std().unwrap_or_default();
            let caused = known.cause.traceparent.as_deref().and_then(TraceContext::parse);
            let caused = caused.filter(|_| age < TRACED_AGE_MAX);
            let recorded = tracer.event(stream, &known.cause.kind, known.position, caused);
            (known, recorded)
        });
        Work { stream, events: begun.collect() }
    }
}

/// The work on the events of one batch.
pub(crate) struct Work {
    stream: &'static str,
    events: Vec<(Known, Recorded)>,
}

impl Work {
    /// The views have the events.
    pub(crate) fn done(self) {
        for (known, recorded) in self.events {
            let trace_id = recorded.context().map(TraceContext::trace_id);
            let (event, request_id) = (known.cause.kind, known.cause.correlation_id);
            let (stream, position) = (self.stream, known.position);
            tracing::debug!(
                stream, %position, event, request_id, trace_id, "the views have an event"
            );
        }
    }

    /// They do not, and the batch will come again.
    pub(crate) fn failed(self) {
        for (_, recorded) in self.events {
            recorded.failed();
        }
    }
}
