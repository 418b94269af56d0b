//! The errors that a call has of its own, and the headers it looks at, for the OpenAPI document.

use service_kit::openapi::AnswerHeader::{
    self, ETag, Location, Pending, Position, SessionPosition,
};
use service_kit::openapi::Extras;
use service_kit::openapi::RequestHeader::{self, IdempotencyKey, IfMatch, Prefer};
use service_kit::problem::Code;

const fn extras(
    operation: &'static str,
    errors: &'static [Code],
    headers: &'static [RequestHeader],
    tells: &'static [AnswerHeader],
) -> Extras {
    Extras { operation, errors, headers, tells }
}

const WRITE: &[RequestHeader] = &[IdempotencyKey, Prefer];
const GUARDED: &[RequestHeader] = &[IfMatch, IdempotencyKey, Prefer];
/// Of calls whose effect is a mail, which no view shows.
const KEYED: &[RequestHeader] = &[IdempotencyKey];
/// The same about a user who is known.
const MAILED: &[RequestHeader] = &[IfMatch, IdempotencyKey];
const REFLECTED: &[AnswerHeader] = &[Position, Pending];
const IN_SESSIONS: &[AnswerHeader] = &[SessionPosition, Pending];
const A_USER: &[AnswerHeader] = &[ETag, Position, Pending];
const A_NEW_USER: &[AnswerHeader] = &[ETag, Location, Position, Pending];
const NOTHING: &[AnswerHeader] = &[];
/// What every call with a key can meet.
const IN_FLIGHT: Code = Code::IdempotencyKeyInFlight;
const REUSED: Code = Code::IdempotencyKeyReused;

pub const EXTRAS: &[Extras] = &[
    extras(
        "register",
        &[
            Code::InvalidParameter,
            Code::InvalidCredentials,
            Code::EmailTaken,
            IN_FLIGHT,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        WRITE,
        A_NEW_USER,
    ),
    extras(
        "login",
        &[
            Code::InvalidCredentials,
            Code::EmailNotVerified,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        &[Prefer],
        IN_SESSIONS,
    ),
    extras(
        "refresh",
        &[Code::InvalidRefreshToken, Code::LogFull, Code::TooManyRequests, Code::OutcomeUnknown],
        &[Prefer],
        IN_SESSIONS,
    ),
    extras(
        "logout",
        &[Code::InvalidRefreshToken, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
        WRITE,
        IN_SESSIONS,
    ),
    extras(
        "logout_all",
        &[Code::NotFound, Code::StaleRevision, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
        GUARDED,
        REFLECTED,
    ),
    extras(
        "end_session",
        &[Code::NotFound, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
        WRITE,
        IN_SESSIONS,
    ),
    extras(
        "password_reset_request",
        &[IN_FLIGHT, REUSED, Code::TooManyRequests, Code::OutcomeUnknown],
        KEYED,
        NOTHING,
    ),
    extras(
        "password_reset_confirm",
        &[
            Code::InvalidToken,
            Code::InvalidCredentials,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        GUARDED,
        REFLECTED,
    ),
    extras(
        "change_password",
        &[
            Code::InvalidCredentials,
            Code::WrongPassword,
            Code::NotFound,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        GUARDED,
        REFLECTED,
    ),
    extras(
        "verify_email_request",
        &[
            Code::NotFound,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::TooManyRequests,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        MAILED,
        NOTHING,
    ),
    extras(
        "verify_email_confirm",
        &[
            Code::InvalidToken,
            Code::InvalidCredentials,
            Code::PasswordRequired,
            Code::WrongPassword,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        GUARDED,
        REFLECTED,
    ),
    extras(
        "change_email",
        &[
            Code::WrongPassword,
            Code::EmailNotVerified,
            Code::NotFound,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        MAILED,
        NOTHING,
    ),
    extras(
        "change_email_confirm",
        &[
            Code::InvalidToken,
            Code::EmailTaken,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        GUARDED,
        REFLECTED,
    ),
    extras(
        "change_email_abort",
        &[Code::InvalidToken, Code::StaleRevision, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
        MAILED,
        NOTHING,
    ),
    extras(
        "change_email_undo",
        &[Code::InvalidToken, Code::EmailTaken, REUSED, Code::OutcomeUnknown],
        WRITE,
        REFLECTED,
    ),
    extras(
        "change_me",
        &[
            Code::NotFound,
            Code::StaleRevision,
            IN_FLIGHT,
            REUSED,
            Code::LogFull,
            Code::TooManyRequests,
            Code::OutcomeUnknown,
        ],
        GUARDED,
        A_USER,
    ),
    extras(
        "delete_me",
        &[
            Code::WrongPassword,
            Code::NotFound,
            Code::LastAdmin,
            IN_FLIGHT,
            Code::StaleRevision,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        GUARDED,
        REFLECTED,
    ),
    extras(
        "create_user",
        &[
            Code::Forbidden,
            Code::EmailTaken,
            IN_FLIGHT,
            REUSED,
            Code::Overloaded,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        WRITE,
        A_NEW_USER,
    ),
    extras(
        "import_users",
        &[Code::Forbidden, IN_FLIGHT, REUSED, Code::BodyTooLarge],
        WRITE,
        REFLECTED,
    ),
    extras("change_user", CHANGE, GUARDED, A_USER),
    extras("replace_user", CHANGE, GUARDED, A_USER),
    extras("disable_user", CHANGE, GUARDED, A_USER),
    extras("enable_user", CHANGE, GUARDED, A_USER),
    extras("delete_user", CHANGE, GUARDED, REFLECTED),
    extras("logout_user", CHANGE, GUARDED, A_USER),
    extras("reset_password_of_user", CHANGE, MAILED, NOTHING),
];

const CHANGE: &[Code] = &[
    Code::Forbidden,
    Code::NotFound,
    Code::LastAdmin,
    IN_FLIGHT,
    Code::StaleRevision,
    REUSED,
    Code::LogFull,
    Code::OutcomeUnknown,
];
