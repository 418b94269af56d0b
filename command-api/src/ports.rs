//! What the application needs from outside, as traits. Adapters implement them.

pub mod throttle;

use std::net::{IpAddr, Ipv6Addr};

use async_trait::async_trait;
use events::{
    Cutoff, EmailAddress, EmailClaim, Lineage, LineageRecord, LinkPurpose, LinkRecord, Position,
    Reservation, RevocationCause, Session, SessionEvent, SessionId, UndoneChanges, UserFact,
    UserId, UserRevocation, UserState,
};
use serde::{Deserialize, Serialize};
use service_kit::commands::{
    Appended, Change, CommandLog, Failure, FurtherWrites, IdempotencyKey, Loaded, LogError,
};
use service_kit::event_log::Guard;
use service_kit::mail_jobs::Mail;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::domain::{Admins, Candidate, Password, Violation};

/// A password hash as a PHC string. It is never printed, and is zeroed when dropped.
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
    /// The user holds it from now on.
    Hold(EmailAddress, Guard),
    /// The user for whom it is reserved holds it again. The reservation stays for when they give it up.
    TakeBack(EmailAddress, Reservation, Guard),
    /// Nobody holds it any more; with a reservation, nobody else can take it for a while.
    Release(EmailAddress, Option<Reservation>, Guard),
}

/// A change of the credential.
#[derive(Debug, Clone)]
pub enum CredentialChange {
    /// Replaced by this hash.
    Set(PasswordHash, Guard),
    /// Removed.
    Remove(Guard),
}

/// Everything that one command on a user changes.
pub type UserChange = Change<UserFact, UserWrites>;

/// The guarded writes of a command on a user that are not events of the user.
#[derive(Debug, Default)]
pub struct UserWrites {
    /// Addresses that are taken or given up.
    pub claims: Vec<ClaimChange>,
    /// If the password changes.
    pub credential: Option<CredentialChange>,
    /// If the set of administrators changes.
    pub admins: Option<(Admins, Guard)>,
    /// If access ends.
    pub revocation: Option<(UserRevocation, Guard)>,
    /// The cause of the revocation, if no event of the change states it.
    pub revoked_by: Option<RevocationCause>,
    /// If a link from a mail is used up.
    pub link: Option<UsedLink>,
    /// If a change of address is undone.
    pub undone: Option<(UndoneChanges, Guard)>,
}

impl FurtherWrites for UserWrites {
    fn is_empty(&self) -> bool {
        let Self { claims, credential, admins, revocation, revoked_by: _, link, undone } = self;
        claims.is_empty()
            && credential.is_none()
            && admins.is_none()
            && revocation.is_none()
            && link.is_none()
            && undone.is_none()
    }

    fn are_shown(&self) -> bool {
        self.revocation.is_some()
    }
}

/// A link that a change uses up.
#[derive(Debug, Clone, Copy)]
pub struct UsedLink {
    /// Its purpose.
    pub purpose: LinkPurpose,
    /// The record of its purpose when the link was checked.
    pub record: LinkRecord,
    /// Guard of that record.
    pub guard: Guard,
}

/// Whether a change can be refused while the log has no headroom: it neither ends access nor voids a link.
pub fn can_wait(change: &UserChange) -> bool {
    change.further.revocation.is_none() && !change.events.is_empty()
}

/// How the password hash of a line compares with that of an existing user. It is never taken over: the user may have
/// changed the password since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HashGiven {
    /// The line has none, or the user has the same one.
    Same,
    /// The user has another one, and keeps it.
    Kept,
    /// The user has none and still has none: nobody can log in.
    Missing,
}

/// The result of an import for one valid line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportOutcome {
    /// A user was created.
    Created(UserId),
    /// Nothing: the user exists with the same values.
    Unchanged(UserId, HashGiven),
    /// Nothing: another user holds the address.
    Taken,
}

/// The answer to an import, kept for a repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptImport {
    /// In the order of the lines.
    pub outcomes: Vec<ImportOutcome>,
    /// The position at which views show all of it.
    pub shown_at: Position,
}

/// The log of users.
#[async_trait]
pub trait UserLog: CommandLog<UserFact, UserWrites> {
    /// Whether there is room for changes that can wait. Without it they are refused as [`Appended::Full`]: check it
    /// before costly work.
    fn has_headroom(&self) -> bool;
    /// The state of a user.
    async fn load(&self, user: UserId) -> Result<Loaded<UserState>, LogError>;
    /// What is known of a user if an event cannot be read: enough for a deletion, and for nothing else.
    async fn salvage(&self, user: UserId) -> Result<Loaded<UserState>, LogError>;
    /// The claim on an address.
    async fn claim(&self, email: &EmailAddress) -> Result<Loaded<Option<EmailClaim>>, LogError>;
    /// The credential of a user.
    async fn credential(&self, user: UserId) -> Result<Loaded<Option<PasswordHash>>, LogError>;
    /// Who is an administrator.
    async fn admins(&self) -> Result<Loaded<Admins>, LogError>;
    /// The user's last revocation.
    async fn cutoff(&self, user: UserId) -> Result<Loaded<Cutoff>, LogError>;
    /// The record of the links of a purpose.
    async fn link(
        &self,
        purpose: LinkPurpose,
        user: UserId,
    ) -> Result<Loaded<Option<LinkRecord>>, LogError>;
    /// Which changes of address were undone.
    async fn undone(&self, user: UserId) -> Result<Loaded<UndoneChanges>, LogError>;
    /// Records a key whose effect is in no event of a user.
    async fn record(&self, key: &IdempotencyKey) -> Appended;
    /// The recorded answer of an import.
    async fn recorded_import(&self, key: &IdempotencyKey) -> Result<Option<KeptImport>, Failure>;
    /// Records the answer of an import.
    async fn record_import(&self, key: &IdempotencyKey, kept: &KeptImport) -> Appended;
    /// Stores changes of several users, each of one event: all of them or none.
    async fn append_all(&self, changes: &[UserChange]) -> Appended;
    /// Replaces a credential by another hash of the same password, as after a login with older parameters. There is no
    /// event, and links that are bound to the password stay valid.
    async fn rehash(
        &self,
        user: UserId,
        hash: &PasswordHash,
        replaced: &Loaded<Option<PasswordHash>>,
    ) -> Appended;
    /// Seals a credential with the new key while the application key is rotated. A failure is harmless: the next login
    /// tries again, and a sweep does before the old key is removed.
    async fn reseal(&self, user: UserId);
    /// Opens a sealed credential that was read from a copy of the log.
    fn open_credential(&self, user: UserId, sealed: &[u8]) -> Result<Option<PasswordHash>, String>;
    /// The keyed hash of an address, as in the subject of its claim.
    fn claim_key(&self, email: &EmailAddress) -> String;
}

/// Which history the log of users is in.
pub trait LogLineage: Send + Sync {
    /// The current one; `None` while it has no name.
    fn current(&self) -> Option<LineageRecord>;
    /// Reports a position that this history is known to have reached, so that the log is checked for it.
    fn knows_of(&self, lineage: Lineage, position: Position);
}

/// The log of sessions.
#[async_trait]
pub trait SessionLog: Send + Sync {
    /// Whether there is room for events that can wait: all except those that end a session.
    fn has_headroom(&self) -> bool;
    /// The state of a session of a user.
    async fn load(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<Loaded<Option<Session>>, LogError>;
    /// The sessions of a user that are not erased yet, newest first.
    async fn of_user(&self, user: UserId) -> Result<Vec<SessionId>, LogError>;
    /// Stores an event; for an end, its revocation in the same batch.
    async fn append(&self, event: &SessionEvent, guard: Guard) -> Appended;
    /// Stores the ends of several sessions that have not ended before: all of them or none.
    async fn append_ends(&self, ends: &[(SessionEvent, Guard)]) -> Appended;
}

/// The queue of mail jobs.
#[async_trait]
pub trait MailQueue: Send + Sync {
    /// Whether there is room for mails that can wait.
    fn has_headroom(&self) -> bool;
    /// Enqueues a mail, which is sent later, and more than once if necessary.
    async fn enqueue(&self, mail: Mail) -> Appended;
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

/// The client whose passwords are hashed. Clients take turns, and none can occupy the whole queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HashClient {
    /// A client in this network: an IPv4 address, or the /48 of an IPv6 address, which belongs to one site.
    Network(IpAddr),
    /// A user who is logged in.
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

/// The result of comparing a password with a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Whether it is the password.
    pub matches: bool,
    /// Whether the hash has another algorithm or other parameters than new ones, and should be replaced while the
    /// password is known.
    pub outdated: bool,
}

/// Slow work on passwords, bounded, on threads of its own.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// Estimates whether a new password is easy to guess.
    async fn rate(
        &self,
        client: HashClient,
        candidate: Candidate,
    ) -> Result<Result<Password, Violation>, HashError>;
    /// Hashes a new password.
    async fn hash(&self, client: HashClient, password: Password)
    -> Result<PasswordHash, HashError>;
    /// Compares; without a hash it takes the same time and never matches.
    async fn verify(
        &self,
        client: HashClient,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verified, HashError>;
    /// Checks that a hash made by another system can be stored and verified.
    fn check_foreign(&self, hash: &PasswordHash) -> Result<(), Violation>;
}
