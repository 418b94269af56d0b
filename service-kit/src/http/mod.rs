//! HTTP as every service does it: bodies, middleware, the listener, and the headers of the contract.

mod body;
mod client_address;
mod command;
mod conditional;
mod connections;
mod contract;
mod cors;
pub mod cursor;
pub mod freshness;
mod layers;
pub mod page;
mod rate_limit;
mod serve;
mod socket;
mod strict_json;
mod typed_body;
mod unread;

pub use body::{BODY_BYTES_MAX, Form, Lines, NDJSON};
pub(crate) use body::{JSON, MERGE_PATCH};
pub use client_address::{ClientAddress, TrustedProxies};
pub use command::{CommandHeaders, located, reflects, tagged};
pub use conditional::{Failed, Precondition, etag, is_known, revisions};
pub use cors::Origins;
pub use layers::public;
pub use rate_limit::{RATE_LIMIT, RATE_LIMIT_POLICY, RateLimit};
pub use serve::{ServeError, Serving, bind, serve};
pub use typed_body::{Fault, Faults, JsonBody, Parsed, PatchBody, optional_body};

use http::HeaderName;

/// The position in the event log that an answer reflects.
pub const POSITION: HeaderName = HeaderName::from_static("roster-position");
/// The position in the log of sessions that an answer reflects.
pub const SESSION_POSITION: HeaderName = HeaderName::from_static("roster-session-position");
/// `true` when a command answers before the views have reached its position.
pub const PENDING: HeaderName = HeaderName::from_static("roster-pending");
/// Idempotency key: a repeated request has the same outcome.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// RFC 7240.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The id of a request, taken from the caller if it is valid.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
