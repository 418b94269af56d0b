//! The table from command errors to problems.

use service_kit::problem::{Code, FieldError, Problem};

use crate::application::CommandError;
use crate::domain::Rejection;

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Rejected(rejection) => rejected(rejection),
            CommandError::EmailTaken => Self::new(Code::EmailTaken),
            CommandError::KeyOfDeleted => Self::new(Code::IdempotencyKeyReused).detail(
                "the user that was made under this key is deleted; register again with a new key",
            ),
            CommandError::InvalidCredentials => Self::new(Code::InvalidCredentials),
            CommandError::InvalidRefreshToken => Self::new(Code::InvalidRefreshToken),
            CommandError::InvalidLink => Self::new(Code::InvalidToken),
            CommandError::WrongPassword => Self::new(Code::WrongPassword),
            CommandError::PasswordRequired => Self::new(Code::PasswordRequired).detail(
                "send `password` with it, or `new_password` if you did not register or forgot it",
            ),
            CommandError::Unverified => Self::new(Code::EmailNotVerified),
            CommandError::Forbidden => Self::new(Code::Forbidden),
            CommandError::TooMany(refusal) => Self::too_many_requests(refusal.into()),
            CommandError::Failed(failure) => failure.into(),
        }
    }
}

fn rejected(rejection: Rejection) -> Problem {
    match rejection {
        // Ids are drawn by Roster, so a taken one is our bug.
        Rejection::Exists => Problem::new(Code::Internal).because("a new user id was in use"),
        Rejection::NoSuchUser => Problem::new(Code::NotFound),
        Rejection::LastAdmin => Problem::new(Code::LastAdmin),
        Rejection::Invalid(member, code, detail) => {
            Problem::validation(vec![FieldError { pointer: format!("/{member}"), code, detail }])
        }
    }
}
