//! How often something may be tried.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use events::{EmailAddress, SessionId, Timestamp, UserId};
use service_kit::http::RateLimit;

pub use crate::domain::Verdict;

/// What wrong passwords and tokens are counted for.
#[derive(Debug, Clone, Copy)]
pub enum Watched<'a> {
    /// The account with this address, whether there is one or not: the two are told apart nowhere.
    Account(&'a EmailAddress),
    /// What somebody who is logged in has to repeat. Counted apart from logins, so that nobody can close
    /// this way to an owner from outside, and by session, so that nobody with one of them can close it to the
    /// owner in another one. What is counted ends with the session.
    Caller(UserId, SessionId),
    /// Whoever comes from this address; of IPv6 from its /64, which is one customer's, and with larger
    /// allowances from what that is a part of.
    Address(IpAddr),
}

/// What is counted without a verdict.
#[derive(Debug, Clone, Copy)]
pub enum Counted {
    /// A mail that this user asks for. How many an address gets is counted by the reactor: a count here, where
    /// anybody may ask, would let strangers use up what its owner needs.
    MailAskedBy(UserId),
    /// A registration from this address, refused or not.
    RegistrationFrom(IpAddr),
    /// A request for a reset or for another mail from this address.
    ResetRequestFrom(IpAddr),
    /// A new password by a link from this address, refused or not.
    PasswordSetFrom(IpAddr),
    /// Something that a user does rightly, and not too often.
    By(UserId, Deed),
}

/// What a user may do so often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// A change of the own account.
    Write,
    /// A refresh of tokens.
    Refresh,
    /// A login with the right password.
    Login,
    /// The right password once more, by who is logged in.
    PasswordCheck,
}

/// Of whom something is counted.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    /// Of a user.
    User(UserId),
    /// Of an address, whether anybody has it or not.
    Email(&'a EmailAddress),
}

impl<'a> Watched<'a> {
    /// Of whom it counts; `None` for a client.
    pub const fn whom(&self) -> Option<Whose<'a>> {
        match self {
            Self::Account(email) => Some(Whose::Email(email)),
            Self::Caller(user, _) => Some(Whose::User(*user)),
            Self::Address(_) => None,
        }
    }
}

impl Counted {
    /// Of which user it counts; `None` for a client.
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::MailAskedBy(user) | Self::By(user, _) => Some(user),
            Self::RegistrationFrom(_) | Self::ResetRequestFrom(_) | Self::PasswordSetFrom(_) => {
                None
            }
        }
    }
}

/// The places of an attempt under way. To be given back with [`Throttle::finish`]; one that is lost is
/// given up after some seconds, without counting.
#[derive(Debug)]
#[must_use = "an attempt that never finishes keeps its place for some seconds"]
pub struct Ticket {
    /// Names the attempt in each record.
    pub(crate) id: u64,
    /// The subjects of the records, with what they are for.
    pub(crate) places: Vec<Place>,
}

/// One place of a ticket.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) subject: String,
    pub(crate) kind: PlaceKind,
}

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    /// An account, or a caller.
    Account,
    /// The smallest network of a client.
    Network,
    /// A larger one that it is in, with as many times the allowance. Places under way are not kept here: those of
    /// the smaller network bound them.
    Around(u32),
}

impl PlaceKind {
    /// How many times the allowance it has.
    pub(crate) const fn factor(self) -> u32 {
        match self {
            Self::Account | Self::Network => 1,
            Self::Around(factor) => factor,
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

/// A limit that was run into. It says the same for accounts that exist and that do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the limit.
    pub policy: &'static str,
    /// How many it allows.
    pub quota: u32,
    /// Within which time.
    pub window: Duration,
    /// When the next one is let in.
    pub retry_after: Duration,
}

impl From<Refusal> for RateLimit {
    fn from(refusal: Refusal) -> Self {
        let Refusal { policy, quota, window, retry_after } = refusal;
        Self { policy, quota, window, retry_after }
    }
}

/// Nothing could be found out or counted, so nothing may be tried: answer `unavailable`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the throttle does not answer: {0}")]
pub struct ThrottleError(pub String);

/// Limits on attempts, the same over all processes.
///
/// Every call writes; like an append it must run to its end, so call it from a task that does not end
/// with the connection of the client.
#[async_trait]
pub trait Throttle: Send + Sync {
    /// Asks for a place before a secret is compared, at each of what is watched or at none. Waits a
    /// moment when only attempts under way are in the way.
    async fn begin(
        &self,
        watched: &[Watched<'_>],
        now: Timestamp,
    ) -> Result<Admission, ThrottleError>;
    /// Tells what the attempt led to. Only then the client may be told: an answer that was not counted
    /// would be a free guess, so on an error both a right and a wrong password answer `unavailable`.
    async fn finish(
        &self,
        ticket: Ticket,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), ThrottleError>;
    /// Forgets what stands against the passwords of a user, as after a completed reset: the failures of the
    /// account, and how often the password was repeated.
    async fn clear(&self, account: &EmailAddress, user: UserId) -> Result<(), ThrottleError>;
    /// Counts one of a kind; the limit when there were enough.
    async fn allow(
        &self,
        counted: Counted,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, ThrottleError>;
}
