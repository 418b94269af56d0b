//! What belongs to one request, wherever it leads: its id and its W3C trace context.

mod context;
mod scope;

pub use context::TraceContext;
pub use scope::{Scope, carried, current};
