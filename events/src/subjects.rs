//! Streams and subjects: one literal subject per aggregate, and never a wildcard where something is written or compared
//! (ADR 1).

use crate::{LinkPurpose, SessionId, UserId};

/// The stream that is the source of truth for users.
pub const USERS_STREAM: &str = "USERS";

/// The subjects of [`USERS_STREAM`].
pub const USERS_STREAM_SUBJECTS: [&str; 7] =
    ["ev.user.*", "sec.user.*", "uq.email.*", "uq.role.*", "ik.*", "rv.user.*", "lk.*.*"];

/// The stream that is the source of truth for sessions. Messages expire once no session can be that old.
pub const SESSIONS_STREAM: &str = "SESSIONS";

/// The subjects of [`SESSIONS_STREAM`].
pub const SESSIONS_STREAM_SUBJECTS: [&str; 3] = ["ev.session.*.*", "rv.session.*", "er.session.*"];

/// The stream of mail jobs and of parked mails.
pub const MAILS_STREAM: &str = "MAILS";

/// The subjects of [`MAILS_STREAM`].
pub const MAILS_STREAM_SUBJECTS: [&str; 3] = ["mail.order.*", "mail.notice.*", "mail.parked.*"];

/// Mail jobs, except those of notices. Notices from before they had their own queue are among these.
pub const MAIL_ORDERS_FILTER: &str = "mail.order.*";

/// Mail jobs of notices.
pub const MAIL_NOTICES_FILTER: &str = "mail.notice.*";

/// Parked mails.
pub const PARKED_MAILS_FILTER: &str = "mail.parked.*";

/// Every event of every user and nothing else.
pub const USER_EVENTS_FILTER: &str = "ev.user.*";

/// Every credential and nothing else.
pub const CREDENTIALS_FILTER: &str = "sec.user.*";

/// Revocations of users, and nothing else.
pub const USER_REVOCATIONS_FILTER: &str = "rv.user.*";

/// Every event of every session and nothing else.
pub const SESSION_EVENTS_FILTER: &str = "ev.session.*.*";

/// Revocations of sessions, and nothing else.
pub const SESSION_REVOCATIONS_FILTER: &str = "rv.session.*";

/// The history that the log of users is in. Followers of session revocations receive it, too.
pub const LINEAGE: &str = "rv.session.lineage";

/// Core subject on which the projector announces the position of the user views. Never stored.
pub const USER_VIEWS_POSITION: &str = "roster.position.users";

/// The same for the session views.
pub const SESSION_VIEWS_POSITION: &str = "roster.position.sessions";

/// Core subject of requests to read parked aggregates again. Never stored.
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

/// The claim on an e-mail address. `key` is the keyed hash of its canonical form in hex, so that subjects contain no
/// personal data.
#[must_use]
pub fn email_claim(key: &str) -> String {
    format!("uq.email.{key}")
}

/// The holders of a role that must always have one.
#[must_use]
pub fn role_holders(role: &str) -> String {
    format!("uq.role.{role}")
}

/// The outcome of a command under its `Idempotency-Key`. `key` is a keyed hash in hex.
#[must_use]
pub fn idempotency_record(key: &str) -> String {
    format!("ik.{key}")
}

/// The last revocation of one user.
#[must_use]
pub fn user_revocation(user: UserId) -> String {
    format!("rv.user.{user}")
}

/// The valid link for a purpose.
#[must_use]
pub fn link(purpose: LinkPurpose, user: UserId) -> String {
    format!("lk.{}.{user}", purpose.as_str())
}

/// The undone changes of address of a user. A user has one such record, and any number of links.
#[must_use]
pub fn undone_email_changes(user: UserId) -> String {
    format!("lk.undo.{user}")
}

/// The facts of one session. The user is part of the subject, so that all sessions of a user can be found.
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

/// A mail job. `id` is the id of the job, which names the request for one mail.
#[must_use]
pub fn mail_order(id: uuid::Uuid) -> String {
    format!("mail.order.{}", id.hyphenated())
}

/// The mail job of a notice, which nobody waits for. `id` is the id of the job.
#[must_use]
pub fn mail_notice(id: uuid::Uuid) -> String {
    format!("mail.notice.{}", id.hyphenated())
}

/// A parked mail.
#[must_use]
pub fn parked_mail(id: uuid::Uuid) -> String {
    format!("mail.parked.{}", id.hyphenated())
}

/// The aggregate that a message of the log is about: the id of the user, or those of user and session. All messages
/// about it arrive in order.
#[must_use]
pub fn aggregate(subject: &str) -> &str {
    let of = ["ev.user.", "rv.user.", "ev.session."];
    of.iter().find_map(|root| subject.strip_prefix(root)).unwrap_or(subject)
}
