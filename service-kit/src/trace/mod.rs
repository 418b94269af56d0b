//! What belongs to one request, wherever it leads: its id, its W3C trace context, and its spans.

mod context;
mod requester;
mod scope;
mod tracer;

pub use context::TraceContext;
pub use requester::{ClientDevice, Requester};
pub use scope::{Scope, carried, current};
pub use tracer::{Recorded, TraceError, Tracer};
