//! The permissions and the keys, on a real server.
//!
//! A denied request looks like a timeout to whoever sent it, and so does a broken one. What must
//! be denied is therefore only proven by the violation the server reports.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and try what no service may"
)]

mod allowed;
mod denied;
mod services;
mod subscribers;
mod support;
mod trust;
