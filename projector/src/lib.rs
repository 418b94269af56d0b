//! The projector: it follows the event log in order and keeps the MongoDB views up to date.
//!
//! `view-kit` has the mechanics, which peer services use as well (ADR 21). This crate has the content of Roster's views
//! ([`fold`]), their generations (ADR 16), and the other followers of the log.
//!
//! The feed for peer services ([`feed`]) is a projection, too. It is stored in a stream instead of the database, so its
//! checkpoint is in the stream, and it goes on while the database is down.
//!
//! The projector has no side effects: mails and erasure are the reactor's job. An event that cannot be read is parked
//! with its aggregate (ADR 20), and readiness reports it; skipping it would lead to views that no event explains.

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
pub use residue::{ResidualDocument, ViewResidue, residue};
