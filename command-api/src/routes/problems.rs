//! The one table from what a command can meet to what a client is told.

use service_kit::problem::{Code, FieldError, Problem};

use crate::application::CommandError;
use crate::domain::Rejection;

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Rejected(rejection) => rejected(rejection),
            CommandError::EmailTaken => Self::new(Code::EmailTaken),
            CommandError::InvalidCredentials => Self::new(Code::InvalidCredentials),
            CommandError::InvalidRefreshToken => Self::new(Code::InvalidRefreshToken),
            CommandError::InvalidLink => Self::new(Code::InvalidToken),
            CommandError::WrongPassword => Self::new(Code::WrongPassword),
            CommandError::Unverified => Self::new(Code::EmailNotVerified),
            CommandError::Forbidden => Self::new(Code::Forbidden),
            CommandError::KeyReused => Self::new(Code::IdempotencyKeyReused),
            CommandError::KeyInFlight => Self::new(Code::IdempotencyKeyInFlight),
            CommandError::TooMany(refusal) => Self::too_many_requests(refusal.into()),
            CommandError::Overloaded => {
                Self::new(Code::Overloaded).detail("nothing was done; try again")
            }
            CommandError::Unavailable(why) => {
                Self::new(Code::Unavailable).detail("nothing was done; try again").because(why)
            }
            CommandError::OutcomeUnknown => Self::new(Code::OutcomeUnknown).detail(
                "the command may have been done; repeat it with the same Idempotency-Key to learn",
            ),
            CommandError::Internal(why) => Self::new(Code::Internal).because(why),
        }
    }
}

fn rejected(rejection: Rejection) -> Problem {
    match rejection {
        // A new id that is taken: ids are drawn by us, so this is ours.
        Rejection::Exists => Problem::new(Code::Internal).because("a new user id was in use"),
        Rejection::NoSuchUser => Problem::new(Code::NotFound),
        Rejection::Stale => Problem::new(Code::StaleRevision),
        Rejection::LastAdmin => Problem::new(Code::LastAdmin),
        Rejection::Invalid(member, code, detail) => {
            Problem::validation(vec![FieldError { pointer: format!("/{member}"), code, detail }])
        }
    }
}
