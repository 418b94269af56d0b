//! A service with one kind of view, on a real nats-server and a real mongod.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; a test owns its tasks"
)]

mod database_errors;
mod feed_publisher;
mod following;
mod layouts;
mod lineage;
mod parked;
mod parking;
mod reading;
mod support;
