//! The event-log client and the position of the views on a real nats-server, and keys over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; a test owns its tasks"
)]

mod erasure;
mod event_log;
mod follow;
mod foreign;
mod provision;
mod remote_keys;
mod revocations;
mod sequel;
mod service;
mod serving;
mod snapshot;
mod support;
mod tls;
mod views_position;
mod work;
