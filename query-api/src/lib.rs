//! The query side: answers from the views, and from nothing else.
//!
//! It never appends to the log. Every answer carries the position it reflects; a caller that has seen a
//! later one asks for it with `Roster-Position` or `min_position` and gets at least that, or is told
//! that it is not there yet.

pub mod app;
mod list;
mod live;
mod reader;
mod routes;

pub use app::{App, SERVICE, StartError};
pub use routes::openapi;
