//! The reactor on a real nats-server, with its own credentials, and on a real socket that speaks SMTP.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do"
)]

mod caps;
mod erasing;
mod events_to_mails;
mod links;
mod smtp;
mod support;
