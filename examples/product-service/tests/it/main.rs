//! The service as a whole: its own process beside Roster's, on real servers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod commands;
mod feed;
mod lists;
mod reacting;
mod support;
mod tokens;
