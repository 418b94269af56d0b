//! Few but telling: real processes on real servers, asked over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; a test owns its tasks"
)]

mod access;
mod address_undo;
mod administrators;
mod application_key;
mod auditing;
mod backing_up;
mod backup_damage;
mod backup_encryption;
mod beside;
mod canary;
mod checking;
mod cluster;
mod concealing;
mod consumers;
mod contract;
mod core_dumps;
mod damage;
mod dev;
mod doctor;
mod edges;
mod erasing;
mod every_call;
mod failures;
mod feeding;
mod feeding_operator;
mod first_steps;
mod foreign;
mod gateway;
mod going_back;
mod hard_values;
mod headroom;
mod history;
mod idempotency;
mod importing;
mod input;
mod keys;
mod lists;
mod logging;
mod looking;
mod looking_at_events;
mod mails;
mod new_device;
mod operator;
mod parking;
mod queries;
mod readme;
mod rebuilding;
mod recovery;
mod registering;
mod remove_unverified;
mod replaying;
mod secured;
mod security_record;
mod sessions;
mod subscribing;
mod throttling;
mod tracing;
mod unverified;
mod users;
mod verifying;
mod verifying_tokens;
mod watching;
mod workload;
