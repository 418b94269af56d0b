//! Streams and subjects: one literal subject per aggregate, never a wildcard where something is
//! written or compared (ADR 1).

use crate::{LinkPurpose, SessionId, UserId};

/// The stream that is the source of truth for users.
pub const USERS_STREAM: &str = "USERS";

/// The subjects [`USERS_STREAM`] takes in.
pub const USERS_STREAM_SUBJECTS: [&str; 7] =
    ["ev.user.*", "sec.user.*", "uq.email.*", "uq.role.*", "ik.*", "rv.user.*", "lk.*.*"];

/// The stream that is the source of truth for sessions. Old messages go once no session can be so old.
pub const SESSIONS_STREAM: &str = "SESSIONS";

/// The subjects [`SESSIONS_STREAM`] takes in.
pub const SESSIONS_STREAM_SUBJECTS: [&str; 3] = ["ev.session.*.*", "rv.session.*", "er.session.*"];

/// The stream of mails that are still to be sent, and of those that could not be.
pub const MAILS_STREAM: &str = "MAILS";

/// The subjects [`MAILS_STREAM`] takes in.
pub const MAILS_STREAM_SUBJECTS: [&str; 3] = ["mail.order.*", "mail.notice.*", "mail.parked.*"];

/// Mails that are still to be sent, except notices. Notices of before there was a queue for them are among these.
pub const MAIL_ORDERS_FILTER: &str = "mail.order.*";

/// Notices that are still to be sent.
pub const MAIL_NOTICES_FILTER: &str = "mail.notice.*";

/// Mails that could not be sent.
pub const PARKED_MAILS_FILTER: &str = "mail.parked.*";

/// Every event of every user and nothing else.
pub const USER_EVENTS_FILTER: &str = "ev.user.*";

/// Every credential and nothing else.
pub const CREDENTIALS_FILTER: &str = "sec.user.*";

/// What ends the access of users, and nothing else.
pub const USER_REVOCATIONS_FILTER: &str = "rv.user.*";

/// Every event of every session and nothing else.
pub const SESSION_EVENTS_FILTER: &str = "ev.session.*.*";

/// The ends of sessions, and nothing else.
pub const SESSION_REVOCATIONS_FILTER: &str = "rv.session.*";

/// Which history the log of users is in. Whoever follows the ends of sessions hears it.
pub const LINEAGE: &str = "rv.session.lineage";

/// Core subject on which the projector says how far the user views are. Never stored.
pub const USER_VIEWS_POSITION: &str = "roster.position.users";

/// The same for the session views.
pub const SESSION_VIEWS_POSITION: &str = "roster.position.sessions";

/// Core subject on which the operator wishes that the projector reads again what is parked. Never stored.
pub const PARKED_RETRY: &str = "roster.parked.retry";

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

/// What ended the access of one user last.
#[must_use]
pub fn user_revocation(user: UserId) -> String {
    format!("rv.user.{user}")
}

/// The one link for a purpose that is good.
#[must_use]
pub fn link(purpose: LinkPurpose, user: UserId) -> String {
    format!("lk.{}.{user}", purpose.as_str())
}

/// Which changes of address of a user were undone. The user has one such record, and any number of links.
#[must_use]
pub fn undone_email_changes(user: UserId) -> String {
    format!("lk.undo.{user}")
}

/// The facts of one session. The user stands in it so that all sessions of one can be found.
#[must_use]
pub fn session_events(user: UserId, session: SessionId) -> String {
    format!("ev.session.{user}.{session}")
}

/// The end of one session.
#[must_use]
pub fn session_revocation(session: SessionId) -> String {
    format!("rv.session.{session}")
}

/// The events of all sessions of one user; a filter.
#[must_use]
pub fn session_events_of(user: UserId) -> String {
    format!("ev.session.{user}.*")
}

/// The record that the sessions of a deleted user were erased.
#[must_use]
pub fn session_erasure(user: UserId) -> String {
    format!("er.session.{user}")
}

/// A mail that is to be sent. `id` is that of the order, which names the wish for one mail.
#[must_use]
pub fn mail_order(id: uuid::Uuid) -> String {
    format!("mail.order.{}", id.hyphenated())
}

/// A notice that is to be sent: a mail that nobody waits for. `id` is that of the order.
#[must_use]
pub fn mail_notice(id: uuid::Uuid) -> String {
    format!("mail.notice.{}", id.hyphenated())
}

/// A mail that could not be sent.
#[must_use]
pub fn parked_mail(id: uuid::Uuid) -> String {
    format!("mail.parked.{}", id.hyphenated())
}

/// What a message of the log is about: the id of the user, or those of user and session. Whatever is written
/// about it comes in one order.
#[must_use]
pub fn aggregate(subject: &str) -> &str {
    let of = ["ev.user.", "rv.user.", "ev.session."];
    of.iter().find_map(|root| subject.strip_prefix(root)).unwrap_or(subject)
}
