//! The subscriber client on a real server, with the credentials that a subscriber gets.

#![allow(clippy::disallowed_methods, reason = "the feed is written here as the test needs it")]

mod crashes;
mod duplicates;
mod order;
mod parking;
mod snapshots;
mod support;
