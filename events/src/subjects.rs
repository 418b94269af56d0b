//! Streams and subjects: one literal subject per aggregate, never a wildcard where something is
//! written or compared (ADR 1).

use crate::UserId;

/// The stream that is the source of truth for users.
pub const USERS_STREAM: &str = "USERS";

/// The subjects [`USERS_STREAM`] takes in.
pub const USERS_STREAM_SUBJECTS: [&str; 6] =
    ["ev.user.*", "sec.user.*", "uq.email.*", "uq.role.*", "ik.*", "rv.user.*"];

/// What a projector of users reads: every event of every user and nothing else.
pub const USER_EVENTS_FILTER: &str = "ev.user.*";

/// Core subject on which the projector says how far the user views are. Never stored.
pub const VIEWS_POSITION: &str = "roster.position.users";

/// The facts of one user.
#[must_use]
pub fn user_events(user: UserId) -> String {
    format!("ev.user.{user}")
}

/// The sealed credential of one user. Never part of an event.
#[must_use]
pub fn user_credential(user: UserId) -> String {
    format!("sec.user.{user}")
}

/// The claim on an e-mail address. `key` is the keyed hash of its canonical form in hex, so that no
/// personal data stands in a subject.
#[must_use]
pub fn email_claim(key: &str) -> String {
    format!("uq.email.{key}")
}

/// The holders of a role that must not run empty.
#[must_use]
pub fn role_holders(role: &str) -> String {
    format!("uq.role.{role}")
}

/// The record of what an `Idempotency-Key` led to. `key` is a keyed hash in hex.
#[must_use]
pub fn idempotency_record(key: &str) -> String {
    format!("ik.{key}")
}
