//! What the application needs from the world, in its own words. Adapters fill these in.

use std::time::Duration;

use async_trait::async_trait;
use events::{EmailAddress, Event, Position, Revision, UserId, UserState};
use service_kit::event_log::Guard;

use crate::domain::{Admins, Password};

/// Something with the guard that a later write on it needs.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// What is there.
    pub value: T,
    /// Guard of the next write.
    pub guard: Guard,
    /// Position of the last message, 0 when there is none.
    pub position: Position,
}

/// The log could not be read; nothing is decided.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Try again.
    #[error("the event log does not answer")]
    Unavailable(#[source] service_kit::event_log::ReadError),
    /// A message that is there cannot be understood.
    #[error("a message on {subject} cannot be read: {reason}")]
    Damaged {
        /// Where.
        subject: String,
        /// Why.
        reason: String,
    },
}

/// A password hash as a PHC string. Not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// What a request with an idempotency key is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Keyed hash of caller and key, in hex.
    pub key: String,
    /// Keyed hash of method, path and body without secrets, in hex.
    pub fingerprint: String,
}

/// What an idempotency key led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Fingerprint of the request.
    pub fingerprint: String,
    /// The user it was about.
    pub user: UserId,
    /// Position of its last event.
    pub position: Position,
    /// Revision after it.
    pub revision: Revision,
}

/// A change of the claim on an address.
#[derive(Debug, Clone)]
pub enum ClaimChange {
    /// The user has it from now on.
    Hold(EmailAddress, Guard),
    /// It is free again.
    Release(EmailAddress, Guard),
}

/// A change of the credential.
#[derive(Debug, Clone)]
pub enum CredentialChange {
    /// This one from now on.
    Set(PasswordHash, Guard),
    /// None any more.
    Remove(Guard),
}

/// Everything one command changes: stored whole or not at all.
#[derive(Debug, Clone)]
pub struct Change {
    /// The user.
    pub user: UserId,
    /// Guard on the user's events.
    pub guard: Guard,
    /// At least one.
    pub events: Vec<Event>,
    /// With it, when the address is taken or given up.
    pub claim: Option<ClaimChange>,
    /// With it, when the password changes.
    pub credential: Option<CredentialChange>,
    /// With it, when the set of administrators changes.
    pub admins: Option<(Admins, Guard)>,
    /// With it, when the caller gave a key.
    pub key: Option<IdempotencyKey>,
}

/// What came of an append, for a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// Stored; position of the last event.
    Stored(Position),
    /// Something changed since it was read: decide again.
    Conflict,
    /// Nobody can say.
    Unknown,
    /// Nothing was stored; try again later.
    Unavailable,
    /// Nothing was stored: the log is at its limit.
    Full,
    /// Nothing was stored: a fault of configuration or of Roster.
    Refused(String),
}

/// The log of users.
#[async_trait]
pub trait UserLog: Send + Sync {
    /// The state of a user.
    async fn load(&self, user: UserId) -> Result<Loaded<UserState>, LogError>;
    /// Who holds an address.
    async fn claim(&self, email: &EmailAddress) -> Result<Loaded<Option<UserId>>, LogError>;
    /// The credential of a user.
    async fn credential(&self, user: UserId) -> Result<Loaded<Option<PasswordHash>>, LogError>;
    /// Who is an administrator.
    async fn admins(&self) -> Result<Loaded<Admins>, LogError>;
    /// What a key led to.
    async fn recorded(&self, key: &IdempotencyKey) -> Result<Option<Recorded>, LogError>;
    /// The event at a position; `None` when it was erased.
    async fn event_at(&self, position: Position) -> Result<Option<Event>, LogError>;
    /// Stores a change.
    async fn append(&self, change: &Change) -> Appended;
    /// Replaces a credential alone, as after a login with older parameters. No event tells of it.
    async fn rehash(&self, user: UserId, hash: &PasswordHash, guard: Guard) -> Appended;
    /// Keyed hashes for an idempotency key.
    fn idempotency_key(&self, caller: &str, key: &str, request: &[&[u8]]) -> IdempotencyKey;
}

/// Hashing was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Too many are waiting.
    #[error("too many passwords wait to be hashed")]
    Overloaded,
    /// The library or the system failed.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

/// What a comparison of a password with a hash told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Whether it is the password.
    pub matches: bool,
    /// Whether the hash was made with weaker parameters than today's.
    pub outdated: bool,
}

/// Password hashing, bounded, away from the async threads.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// Hashes a new password.
    async fn hash(&self, password: Password) -> Result<PasswordHash, HashError>;
    /// Compares; with `None` it takes the same time and never matches.
    async fn verify(
        &self,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verified, HashError>;
}

/// How far the views are.
#[async_trait]
pub trait Views: Send + Sync {
    /// Waits until the views have a position; `false` when they do not in time or the projector is down.
    async fn have(&self, position: Position, limit: Duration) -> bool;
}
