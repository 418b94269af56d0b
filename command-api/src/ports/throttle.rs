//! Limits on attempts and requests.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use events::{EmailAddress, SessionId, Timestamp, UserId};
use service_kit::http::RateLimit;

pub use crate::domain::Verdict;

/// What wrong passwords and tokens are counted against.
#[derive(Debug, Clone, Copy)]
pub enum AttemptKey<'a> {
    /// The account with this address, whether or not it exists: nothing distinguishes the two.
    Account(&'a EmailAddress),
    /// A logged-in user who has to repeat the password. Counted apart from logins, so that nobody can lock an owner out
    /// from outside, and by session, so that nobody in one session can lock the owner out of another. The count ends
    /// with the session.
    Caller(UserId, SessionId),
    /// The client at this address; for IPv6 its /64, which belongs to one customer, and with larger allowances the
    /// networks that contain it.
    Address(IpAddr),
}

/// What is counted without a verdict on a secret.
#[derive(Debug, Clone, Copy)]
pub enum RateKey {
    /// A mail that this user requests. The reactor counts the mails of an address: a count here, where anybody may
    /// request one, would let strangers use up the owner's allowance.
    MailAskedBy(UserId),
    /// A registration from this address, accepted or not.
    RegistrationFrom(IpAddr),
    /// A request for a reset or for another mail from this address.
    ResetRequestFrom(IpAddr),
    /// A new password by a link from this address, accepted or not.
    PasswordSetFrom(IpAddr),
    /// A permitted action of a user.
    By(UserId, UserAction),
}

/// A permitted action with a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserAction {
    /// A change of the own account.
    Write,
    /// A refresh of tokens.
    Refresh,
    /// A login with the right password.
    Login,
    /// A repeated right password of a logged-in user.
    PasswordCheck,
}

/// The account that something is counted against.
#[derive(Debug, Clone, Copy)]
pub enum AccountRef<'a> {
    /// A user.
    User(UserId),
    /// An address, whether or not it has an account.
    Email(&'a EmailAddress),
}

impl<'a> AttemptKey<'a> {
    /// The account that it counts against; `None` for a client address.
    pub const fn account(&self) -> Option<AccountRef<'a>> {
        match self {
            Self::Account(email) => Some(AccountRef::Email(email)),
            Self::Caller(user, _) => Some(AccountRef::User(*user)),
            Self::Address(_) => None,
        }
    }
}

impl RateKey {
    /// The user that it counts against; `None` for a client address.
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::MailAskedBy(user) | Self::By(user, _) => Some(user),
            Self::RegistrationFrom(_) | Self::ResetRequestFrom(_) | Self::PasswordSetFrom(_) => {
                None
            }
        }
    }
}

/// The slots of a running attempt, returned with [`Throttle::finish`]. A lost one expires after some seconds without
/// counting.
#[derive(Debug)]
#[must_use = "an attempt that never finishes keeps its slot for some seconds"]
pub struct Ticket {
    /// Names the attempt in each record.
    pub(crate) id: u64,
    /// The subjects of the records, with what they are for.
    pub(crate) slots: Vec<Slot>,
}

/// One slot of a ticket: a reservation in one record.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) subject: String,
    pub(crate) kind: SlotKind,
}

/// What a slot counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// An account, or a caller.
    Account,
    /// The smallest network of a client.
    Network,
    /// A wider network that contains it, with so many times the allowance. Running attempts are not reserved here: the
    /// slots of the smaller network bound them.
    WiderNetwork(u32),
}

impl SlotKind {
    /// The multiple of the allowance.
    pub(crate) const fn factor(self) -> u32 {
        match self {
            Self::Account | Self::Network => 1,
            Self::WiderNetwork(factor) => factor,
        }
    }
}

/// Whether an attempt may start.
#[derive(Debug)]
pub enum Admission {
    /// It may.
    Go(Ticket),
    /// Not now.
    Refused(Refusal),
}

/// A limit that was reached. It is the same for accounts that exist and that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the limit.
    pub policy: &'static str,
    /// How many it allows within the window.
    pub quota: u32,
    /// The window.
    pub window: Duration,
    /// Time until the next one is accepted.
    pub retry_after: Duration,
}

impl From<Refusal> for RateLimit {
    fn from(refusal: Refusal) -> Self {
        let Refusal { policy, quota, window, retry_after } = refusal;
        Self { policy, quota, window, retry_after }
    }
}

/// Nothing can be checked or counted, so no attempt may start: answer `unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the throttle does not answer: {0}")]
pub struct ThrottleError(pub String);

/// Limits on attempts, the same over all processes.
///
/// Every call writes. Like an append it must run to its end, so call it from a task that outlives the connection of the
/// client.
#[async_trait]
pub trait Throttle: Send + Sync {
    /// Reserves a slot for each key before a secret is compared, or none at all. Waits a moment if only running attempts
    /// are in the way.
    async fn begin(
        &self,
        keys: &[AttemptKey<'_>],
        now: Timestamp,
    ) -> Result<Admission, ThrottleError>;
    /// Reports the verdict. The client gets its answer only afterwards: an answer that was not counted would be a free
    /// guess, so on an error both a right and a wrong password answer `unavailable`.
    async fn finish(
        &self,
        ticket: Ticket,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), ThrottleError>;
    /// Forgets the failed attempts of a user, as after a completed reset: those of the account, and the repeated
    /// passwords.
    async fn clear(&self, account: &EmailAddress, user: UserId) -> Result<(), ThrottleError>;
    /// Counts one request; returns the limit if it is reached.
    async fn allow(
        &self,
        key: RateKey,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, ThrottleError>;
}
