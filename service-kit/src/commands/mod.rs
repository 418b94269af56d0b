//! Commands: everything around a decision.
//!
//! A [`CommandRunner`] loads from the log, decides, appends, and starts again when somebody else was faster; it answers
//! a repeated request from the record of its idempotency key. A service whose commands change one aggregate each
//! implements [`Aggregate`] and uses [`Commands`]. A service that guards more than the aggregate (Roster's users: claims,
//! credentials, revocations) passes [`FurtherWrites`] with its [`Change`].

mod aggregate;
mod change;
mod idempotency;
mod log;
mod runner;

use std::time::Duration;

use events::{Actor, CommandId, Origin, Position};
use tokio_util::task::TaskTracker;

pub use aggregate::{Aggregate, Commands, Refused};
pub use change::{Change, FurtherWrites, first_event};
pub use idempotency::{IdempotencyKey, IdempotencyKeys, InFlight, KeyRecord, Recorded, Running};
pub use log::{Appended, Loaded, LogError};
pub use runner::{ATTEMPTS_MAX, CommandLog, CommandRunner, Done, Executed, earlier, until_settled};

use crate::ambient;
use crate::http::{Failed, Precondition};
use crate::problem::{Code, Problem};
use crate::trace::{Scope, carried};

/// How long the outcome of a key is kept.
pub const IDEMPOTENCY_RECORD_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// `Retry-After` of a command that was refused because the log is full, in seconds: an operator has to make room.
const LOG_FULL_RETRY_AFTER_S: u64 = 60;

/// Who sends a command, and how its request is identified.
#[derive(Debug, Clone)]
pub struct Request {
    /// Who sends it.
    pub actor: Actor,
    /// The request id.
    pub correlation_id: Option<String>,
    /// The event that it is a reaction to.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// Identifies a repetition.
    pub key: Option<IdempotencyKey>,
    /// What the client requires of the revision.
    pub precondition: Precondition,
}

impl Request {
    /// An anonymous one, within an HTTP request or none.
    #[must_use]
    pub fn of(scope: Option<Scope>) -> Self {
        let (correlation_id, context) = scope.map(|s| (s.request_id, s.context)).unzip();
        let traceparent = context.flatten().map(|context| context.to_string());
        let actor = Actor::Anonymous;
        let precondition = Precondition::default();
        Self { actor, correlation_id, causation_id: None, traceparent, key: None, precondition }
    }

    /// The same, sent by another actor.
    #[must_use]
    pub fn by(&self, actor: Actor) -> Self {
        Self { actor, ..self.clone() }
    }

    /// One of the system itself, outside any HTTP request.
    #[must_use]
    pub fn of_the_system() -> Self {
        Self { actor: Actor::System, ..Self::of(None) }
    }

    /// The origin of the events of a command that is decided now.
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

/// Why a command that no rule rejects was not carried out, or that its outcome is unknown.
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
    /// A record in the log that the decision needs cannot be read; nothing was done.
    #[error("unreadable: {0}")]
    Unreadable(String),
    /// It may have been carried out.
    #[error("the outcome is unknown")]
    OutcomeUnknown,
    /// A bug or a broken configuration of the service.
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

/// The position of what was stored; `None` for a conflict, which the caller handles.
///
/// # Errors
/// [`Failure`] for every other outcome.
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

/// Runs a command to its end even if its connection is closed: a client that disconnects must not leave an append
/// half-way. Shutdown waits for `tasks`.
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
