//! The shared code of all services: the event-log client, configuration, telemetry, health checks, HTTP, access tokens,
//! and the position of the views.
//!
//! Not for decisions about users: they are in `command-api`.

pub mod access;
pub mod ambient;
pub mod checking_keys;
pub mod commands;
pub mod config;
pub mod contract_files;
pub mod event_log;
pub mod health;
pub mod http;
pub mod key_ring;
pub mod keys;
pub mod links;
pub mod logging;
pub mod lookup_keys;
pub mod mail_jobs;
pub mod metrics;
pub mod nats;
pub mod openapi;
pub mod preflight;
pub mod problem;
pub mod reactions;
#[cfg(feature = "remote-keys")]
pub mod remote_keys;
pub mod revocations;
pub mod running;
pub mod sealing;
pub mod security;
pub mod signing_keys;
pub mod telemetry;
pub mod tokens;
pub mod trace;
pub mod user_read;
pub mod verification;
pub mod views_position;
