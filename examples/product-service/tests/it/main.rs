//! The complete service: its own process next to Roster's, on real servers.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed expectation fails the test; tests use the operator's rights"
)]

mod commands;
mod feed;
mod lists;
mod parking;
mod reaction;
mod support;
mod tokens;
