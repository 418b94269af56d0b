//! The projector: reads the event log in order and keeps the MongoDB views at its end.
//!
//! Where it stands is written in the database, beside the views (ADR 3). So losing the consumer, being
//! killed, restoring an older database and starting from nothing are one case: read the checkpoint, go
//! on behind it. Every write is guarded by the position, so that applying an event twice, or by two
//! projectors at once, changes nothing.
//!
//! The feed for other services ([`feed`]) is a projection too. Its place is a stream and not the database, so its
//! position lies in the stream, and it goes on while the database is away.
//!
//! It has no side effects: mail and erasure are not its affair. An event that it cannot read is parked with its
//! aggregate (ADR 20), and readiness says so; skipping it would make views that nobody decided.

mod app;
mod batch;
mod causes;
mod checker;
pub mod feed;
mod filling;
pub mod fold;
mod generations;
mod left;
mod lineage;
pub mod parked;
mod parking;
mod read;
mod retry;
mod run;
pub mod store;
mod supervise;

pub use app::{App, SERVICE, StartError};
pub use generations::View;
pub use left::{LeftDocument, LeftInViews, left, left_in_views};
pub use retry::{RetryWish, WishError};
