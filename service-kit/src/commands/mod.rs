//! Commands: what every service does around a decision.
//!
//! Load from the log, decide, record, append; again when somebody else was faster; and know what came of it. A
//! service whose commands change one aggregate each says what it is ([`Aggregate`]) and has the rest done by
//! [`Commands`]. One with more to guard (the users of Roster: claims, credentials, revocations) puts the parts
//! together itself.

mod aggregate;
mod idempotency;
mod log;

use std::time::Duration;

use events::{Actor, CommandId, Origin, Position};
use tokio_util::task::TaskTracker;

pub use aggregate::{Aggregate, Commands, Done, Refused};
pub use idempotency::{IdempotencyKey, IdempotencyKeys, InFlight, KeyRecord, Recorded, Running};
pub use log::{Appended, Loaded, LogError};

use crate::ambient;
use crate::http::{Failed, Precondition};
use crate::problem::{Code, Problem};
use crate::trace::{Scope, carried};

/// Attempts of one command before it gives way: each is lost to another command that succeeded.
pub const ATTEMPTS_MAX: usize = 100;
/// How long the outcome of a key is kept.
pub const IDEMPOTENCY_RECORD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// When a client may ask again that was refused because the log is full, in seconds: room does not come by itself.
const LOG_FULL_RETRY_AFTER_S: u64 = 60;

/// Who asks, and how the request is known.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who wants it.
    pub actor: Actor,
    /// The request id.
    pub correlation_id: Option<String>,
    /// The event that it is a reaction to.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What a repetition is known by.
    pub key: Option<IdempotencyKey>,
    /// What must hold of the thing it is about.
    pub precondition: Precondition,
}

impl Request {
    /// Nobody's, within a request over HTTP or none.
    #[must_use]
    pub fn of(scope: Option<Scope>) -> Self {
        let (correlation_id, context) = scope.map(|s| (s.request_id, s.context)).unzip();
        let traceparent = context.flatten().map(|context| context.to_string());
        let actor = Actor::Anonymous;
        let precondition = Precondition::default();
        Self { actor, correlation_id, causation_id: None, traceparent, key: None, precondition }
    }

    /// The system's own, within no request.
    #[must_use]
    pub fn of_the_system() -> Self {
        Self { actor: Actor::System, ..Self::of(None) }
    }

    /// Where the events of a command that is decided now come from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            actor: self.actor,
            command_id: CommandId::from_uuid(ambient::new_uuid()),
            time: ambient::now(),
            correlation_id: self.correlation_id.clone(),
            causation_id: self.causation_id.clone(),
            traceparent: self.traceparent.clone(),
        }
    }
}

/// Why a command that no rule refuses was not carried out, or why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The key belongs to another request.
    #[error("idempotency key reused")]
    KeyReused,
    /// The same request is still running.
    #[error("idempotency key in flight")]
    KeyInFlight,
    /// `If-Match` or `If-None-Match` does not hold.
    #[error("precondition failed: {0:?}")]
    Precondition(Failed),
    /// Too much to do; nothing was done.
    #[error("overloaded")]
    Overloaded,
    /// The log has no room for what can wait; nothing was done.
    #[error("the log is full")]
    LogFull,
    /// The log does not answer; nothing was done.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A record in the log that decides cannot be read; nothing was done.
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// Nobody can say.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// A fault of the service.
    #[error("internal: {0}")]
    Internal(String),
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Self {
        match &error {
            LogError::Unavailable(_) => Self::Unavailable(crate::problem::chain(&error)),
            LogError::Damaged { .. } => Self::Unreadable(error.to_string()),
        }
    }
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        Self::Precondition(failed)
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::KeyReused => Self::new(Code::IdempotencyKeyReused),
            Failure::KeyInFlight => Self::new(Code::IdempotencyKeyInFlight),
            Failure::Precondition(Failed::Changed) => Self::new(Code::StaleRevision),
            Failure::Precondition(Failed::Unwanted) => Self::new(Code::PreconditionFailed),
            Failure::Overloaded => {
                Self::new(Code::Overloaded).detail("nothing was done; try again")
            }
            Failure::LogFull => Self::new(Code::LogFull)
                .retry_after_s(LOG_FULL_RETRY_AFTER_S)
                .detail("nothing was done; the operator has to make room"),
            Failure::Unavailable(why) => {
                Self::new(Code::Unavailable).detail("nothing was done; try again").because(why)
            }
            Failure::Unreadable(why) => Self::new(Code::UnreadableRecord)
                .detail(
                    "nothing was done, and trying again does not help: an operator has to look at \
                     `roster parked list`",
                )
                .because(why),
            Failure::OutcomeUnknown => Self::new(Code::OutcomeUnknown).detail(
                "the command may have been done; repeat it with the same Idempotency-Key to learn",
            ),
            Failure::Internal(why) => Self::new(Code::Internal).because(why),
        }
    }
}

/// The part of an append's outcome that ends a command; a conflict (`None`) is the caller's to handle.
///
/// # Errors
/// [`Failure`] for whatever is no conflict.
pub fn settled(appended: Appended) -> Result<Option<Position>, Failure> {
    match appended {
        Appended::Stored(position) => Ok(Some(position)),
        Appended::Conflict => Ok(None),
        Appended::Unknown => Err(Failure::OutcomeUnknown),
        Appended::Unavailable => Err(Failure::Unavailable("the log does not answer".to_owned())),
        Appended::Full => Err(Failure::LogFull),
        Appended::Refused(why) => Err(Failure::Internal(why)),
    }
}

/// Runs a command to its end whatever becomes of the connection it came over: a client that hangs up must not
/// leave an append half-way. Whoever stops waits for `tasks`.
///
/// # Errors
/// Those of the command, and [`Failure::Internal`] when it panicked.
pub async fn run_detached<T, E>(
    tasks: &TaskTracker,
    command: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Failure> + Send + 'static,
{
    tasks
        .spawn(carried(command))
        .await
        .unwrap_or_else(|error| Err(Failure::Internal(format!("a command ended: {error}")).into()))
}
