//! What the application needs from the world, in its own words. Adapters fill these in.

pub mod throttle;

use std::net::{IpAddr, Ipv6Addr};

use async_trait::async_trait;
use events::{
    Cutoff, EmailAddress, EmailClaim, Event, Lineage, LineageRecord, LinkPurpose, LinkRecord,
    Position, Reservation, Revision, RevocationCause, Session, SessionEvent, SessionId,
    UndoneChanges, UserId, UserRevocation, UserState,
};
use serde::{Deserialize, Serialize};
use service_kit::commands::{Appended, Failure, IdempotencyKey, Loaded, LogError, Recorded};
use service_kit::event_log::Guard;
use service_kit::mail_jobs::Mail;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::domain::{Admins, Broken, Candidate, Password};

/// A password hash as a PHC string. Not shown, and overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PasswordHash(pub String);

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// A change of the claim on an address.
#[derive(Debug, Clone)]
pub enum ClaimChange {
    /// The user has it from now on.
    Hold(EmailAddress, Guard),
    /// The user has it again, for whom it is reserved. The reservation is kept for when they give it up.
    TakeBack(EmailAddress, Reservation, Guard),
    /// Nobody has it any more; with a reservation, nobody else gets it for a while.
    Release(EmailAddress, Option<Reservation>, Guard),
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
    /// In order; none when only what stands beside the events changes.
    pub events: Vec<Event>,
    /// With it, when an address is taken or given up, or both.
    pub claims: Vec<ClaimChange>,
    /// With it, when the password changes.
    pub credential: Option<CredentialChange>,
    /// With it, when the set of administrators changes.
    pub admins: Option<(Admins, Guard)>,
    /// With it, when access ends.
    pub revocation: Option<(UserRevocation, Guard)>,
    /// What led to the revocation, where no event of the change says it.
    pub revoked_by: Option<RevocationCause>,
    /// With it, when a link of a mail is used up.
    pub link: Option<UsedLink>,
    /// With it, when a change of address is undone.
    pub undone: Option<(UndoneChanges, Guard)>,
    /// With it, when the caller gave a key.
    pub key: Option<IdempotencyKey>,
    /// What the key answers when there is no event: the revision and the position of the last one before.
    pub unchanged: Option<(Revision, Position)>,
}

/// A link that this change uses up.
#[derive(Debug, Clone, Copy)]
pub struct UsedLink {
    /// What it was for.
    pub purpose: LinkPurpose,
    /// The record of its purpose, as it was when the link was good.
    pub record: LinkRecord,
    /// Guard on that record.
    pub guard: Guard,
}

impl Change {
    /// Whether it can wait until there is room in the log: whatever neither ends access nor voids a link.
    #[must_use]
    pub const fn can_wait(&self) -> bool {
        self.revocation.is_none() && !self.events.is_empty()
    }

    /// A change of nothing yet.
    #[must_use]
    pub const fn of(user: UserId, guard: Guard) -> Self {
        Self {
            user,
            guard,
            events: Vec::new(),
            claims: Vec::new(),
            credential: None,
            admins: None,
            revocation: None,
            revoked_by: None,
            link: None,
            undone: None,
            key: None,
            unchanged: None,
        }
    }
}

/// How the password hash of a line stands to that of a user who was there already. It is never taken over: the user
/// may have another password since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashGiven {
    /// The line has none, or the user has just this one.
    Same,
    /// The user has another one, and keeps it.
    Kept,
    /// The user has none, and still has none: nobody can log in.
    Missing,
}

/// What an import made of one line that it could read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// A user.
    Created(UserId),
    /// Nothing: the user is there, just so.
    Unchanged(UserId, HashGiven),
    /// Nothing: another user has the address.
    Taken,
}

/// The answer to an import, to be given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptImport {
    /// In the order of the lines.
    pub outcomes: Vec<ImportOutcome>,
    /// The position that shows what was made.
    pub shown_at: Position,
}

/// The log of users.
#[async_trait]
pub trait UserLog: Send + Sync {
    /// Whether there is room for what can wait. Without it such changes are refused as
    /// [`Appended::Full`]: ask before costly work.
    fn has_headroom(&self) -> bool;
    /// The state of a user.
    async fn load(&self, user: UserId) -> Result<Loaded<UserState>, LogError>;
    /// What can be known of a user although an event cannot be read: enough for a deletion, and for nothing else.
    async fn salvage(&self, user: UserId) -> Result<Loaded<UserState>, LogError>;
    /// The claim on an address.
    async fn claim(&self, email: &EmailAddress) -> Result<Loaded<Option<EmailClaim>>, LogError>;
    /// The credential of a user.
    async fn credential(&self, user: UserId) -> Result<Loaded<Option<PasswordHash>>, LogError>;
    /// Who is an administrator.
    async fn admins(&self) -> Result<Loaded<Admins>, LogError>;
    /// What ended the user's access last.
    async fn cutoff(&self, user: UserId) -> Result<Loaded<Cutoff>, LogError>;
    /// Which link of a purpose is good.
    async fn link(
        &self,
        purpose: LinkPurpose,
        user: UserId,
    ) -> Result<Loaded<Option<LinkRecord>>, LogError>;
    /// Which changes of address were undone.
    async fn undone(&self, user: UserId) -> Result<Loaded<UndoneChanges>, LogError>;
    /// What a key led to.
    async fn recorded(&self, key: &IdempotencyKey) -> Result<Option<Recorded>, Failure>;
    /// Remembers that a key led to something of which no event of a user tells.
    async fn record(&self, key: &IdempotencyKey) -> Appended;
    /// What an import under a key led to, if it did.
    async fn recorded_import(&self, key: &IdempotencyKey) -> Result<Option<KeptImport>, Failure>;
    /// Remembers what an import under a key led to.
    async fn record_import(&self, key: &IdempotencyKey, kept: &KeptImport) -> Appended;
    /// The event at a position; `None` when it was erased.
    async fn event_at(&self, position: Position) -> Result<Option<Event>, LogError>;
    /// Stores a change.
    async fn append(&self, change: &Change) -> Appended;
    /// Stores changes of several users, each of one event: all of them or none.
    async fn append_all(&self, changes: &[Change]) -> Appended;
    /// Replaces a credential by another hash of the same password, as after a login with older parameters. No event
    /// tells of it, and links that are bound to the password stay good.
    async fn rehash(
        &self,
        user: UserId,
        hash: &PasswordHash,
        replaced: &Loaded<Option<PasswordHash>>,
    ) -> Appended;
    /// Seals a credential with the newer key, when a rotation of the application key is under way. Failing is no harm:
    /// there is another login, and a sweep before the older key goes.
    async fn reseal(&self, user: UserId);
    /// What a sealed credential of a user holds, as it was read from a copy of the log.
    fn open_credential(&self, user: UserId, sealed: &[u8]) -> Result<Option<PasswordHash>, String>;
    /// The keyed hash of an address, as the subject of its claim has it.
    fn claim_key(&self, email: &EmailAddress) -> String;
}

/// Which history the log of users is in.
pub trait LogLineage: Send + Sync {
    /// The one of now; `None` while nobody has named it.
    fn current(&self) -> Option<LineageRecord>;
    /// Something of this history knows that the log has had a position: whether it has it still will be looked at.
    fn knows_of(&self, lineage: Lineage, position: Position);
}

/// The log of sessions.
#[async_trait]
pub trait SessionLog: Send + Sync {
    /// Whether there is room for what can wait: whatever does not end a session.
    fn has_headroom(&self) -> bool;
    /// The state of a session of a user.
    async fn load(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<Loaded<Option<Session>>, LogError>;
    /// The sessions that a user has started and that are not erased yet, the newest first.
    async fn of_user(&self, user: UserId) -> Result<Vec<SessionId>, LogError>;
    /// Stores an event; with an end, everyone is told in the same batch.
    async fn append(&self, event: &SessionEvent, guard: Guard) -> Appended;
    /// Stores the ends of several sessions that never ended before: all of them or none.
    async fn append_ends(&self, ends: &[(SessionEvent, Guard)]) -> Appended;
}

/// Where mails are asked for.
#[async_trait]
pub trait MailQueue: Send + Sync {
    /// Whether there is room for mails that can wait.
    fn has_headroom(&self) -> bool;
    /// Asks for a mail, which is sent later and more than once if need be.
    async fn order(&self, mail: Mail) -> Appended;
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

/// For whom passwords are hashed. Clients take turns, and none can hold the whole queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashClient {
    /// Whoever comes from this network: an IPv4 address, or the /48 of an IPv6 address, which is one site's.
    Network(IpAddr),
    /// Somebody who is logged in.
    User(UserId),
    /// The operator.
    Operator,
}

impl HashClient {
    /// The client at an address.
    pub fn network(address: IpAddr) -> Self {
        Self::Network(match address.to_canonical() {
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// What a comparison of a password with a hash told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Whether it is the password.
    pub matches: bool,
    /// Whether the hash is of another kind or has other parameters than new ones: to be replaced while
    /// the password is at hand.
    pub outdated: bool,
}

/// Slow work on passwords, bounded, away from the async threads.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// Estimates whether a new password is easy to guess.
    async fn rate(
        &self,
        client: HashClient,
        candidate: Candidate,
    ) -> Result<Result<Password, Broken>, HashError>;
    /// Hashes a new password.
    async fn hash(&self, client: HashClient, password: Password)
    -> Result<PasswordHash, HashError>;
    /// Compares; with `None` it takes the same time and never matches.
    async fn verify(
        &self,
        client: HashClient,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verified, HashError>;
    /// Whether a hash that another system made can be stored and will verify.
    fn check_foreign(&self, hash: &PasswordHash) -> Result<(), Broken>;
}
