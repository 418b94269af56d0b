//! The service as a whole: its own process beside Roster's, on real servers.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed, and does with the operator's rights what nobody else may"
)]

mod commands;
mod feed;
mod lists;
mod poison;
mod reacting;
mod support;
mod tokens;
