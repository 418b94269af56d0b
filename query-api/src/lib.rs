//! The query side: answers from the views, and from nothing else.
//!
//! It never appends to the log. Every answer carries the position that it reflects. A caller that has seen a later
//! position sends it as `Roster-Position` or `min_position`, and gets an answer that reflects at least that, or an
//! error if the views are not there yet.

pub mod app;
mod list;
mod live;
mod reader;
mod routes;

pub use app::{App, SERVICE, StartError};
pub use routes::openapi;
