//! The requests that caused the events of a batch: an event belongs to the trace of its request until the views have
//! it.

use std::time::Duration;

use events::{Cause, Position, Timestamp};
use service_kit::ambient;
use service_kit::event_log::Followed;
use service_kit::trace::{Recorded, TraceContext, Tracer};

/// An older event gets no span: nobody looks at its trace any more, and a rebuild would export one for every event that
/// was ever stored.
const TRACED_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// The causes of the events of one batch, as far as they are recorded.
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
    /// `recorded`: spans are exported. Reading each event twice would slow down a rebuild, so it is only done where the
    /// result is visible.
    pub(crate) fn wanted(recorded: bool) -> Self {
        let wanted = recorded || tracing::enabled!(tracing::Level::DEBUG);
        Self { wanted, known: Vec::new() }
    }

    /// Adds the next message.
    pub(crate) fn add(&mut self, message: &Followed) {
        if !self.wanted {
            return;
        }
        if let Some(cause) = Cause::of(&message.payload) {
            let (position, stored_at) = (message.position, message.stored_at);
            self.known.push(Known { position, stored_at, cause });
        }
    }

    /// Begins writing the events to the views.
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

/// The work of writing one batch.
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

    /// Writing failed; the batch will be read again.
    pub(crate) fn failed(self) {
        for (_, recorded) in self.events {
            recorded.failed();
        }
    }
}
