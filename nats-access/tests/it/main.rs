//! The permissions and the keys, on a real server.
//!
//! A denied request looks like a timeout to its sender, and so does a broken one. Only the violation that the server
//! reports proves that a request was denied.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test helpers fail like tests, and try what no service may do"
)]

mod allowed;
mod denied;
mod services;
mod subscribers;
mod support;
mod trust;
