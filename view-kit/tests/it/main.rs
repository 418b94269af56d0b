//! Views on a real mongod.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod parked;
mod support;
