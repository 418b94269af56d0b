//! The reactor on a real nats-server, with its own credentials, and with a real SMTP socket.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test helpers fail like tests"
)]

mod caps;
mod erasure;
mod events_to_mails;
mod links;
mod smtp;
mod support;
