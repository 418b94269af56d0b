//! The projector: reads the event log in order and keeps the MongoDB views at its end.
//!
//! How a view is kept there is in `view-kit`, which other services use as well (ADR 21). Here is what these views are
//! made of ([`fold`]), their generations (ADR 16), and what else follows the log.
//!
//! The feed for other services ([`feed`]) is a projection too. Its place is a stream and not the database, so its
//! position lies in the stream, and it goes on while the database is away.
//!
//! It has no side effects: mail and erasure are not its affair. An event that it cannot read is parked with its
//! aggregate (ADR 20), and readiness says so; skipping it would make views that nobody decided.

mod app;
mod checker;
pub mod feed;
mod filling;
pub mod fold;
mod generations;
mod read;
mod residue;
pub mod store;
mod target;

pub use app::{App, SERVICE, StartError};
pub use generations::View;
pub use residue::{ResidualDocument, ViewResidue, left};
