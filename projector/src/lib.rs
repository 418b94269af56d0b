//! The projector: reads the event log in order and keeps the MongoDB views at its end.
//!
//! Where it stands is written in the database, beside the views (ADR 3). So losing the consumer, being
//! killed, restoring an older database and starting from nothing are one case: read the checkpoint, go
//! on behind it. Every write is guarded by the position, so that applying an event twice, or by two
//! projectors at once, changes nothing.
//!
//! It has no side effects: mail and erasure are not its affair. An event it cannot read stops it, and
//! readiness says so; skipping would make views that nobody decided.

mod causes;
pub mod fold;
mod run;
pub mod store;

pub use run::{App, SERVICE, StartError};
