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
    extras("logout", &[Code::InvalidRefreshToken, Code::OutcomeUnknown], &[Prefer], IN_SESSIONS),
    extras("logout_all", &[Code::OutcomeUnknown], &[Prefer], REFLECTED),
    extras("end_session", &[Code::NotFound, Code::OutcomeUnknown], &[Prefer], IN_SESSIONS),
    extras("password_reset_request", &[Code::TooManyRequests, Code::OutcomeUnknown], &[], NOTHING),
    extras(
        "password_reset_confirm",
        &[
            Code::InvalidToken,
            Code::InvalidCredentials,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        WRITE,
        REFLECTED,
    ),
    extras(
        "change_password",
        &[
            Code::InvalidCredentials,
            Code::WrongPassword,
            Code::NotFound,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        WRITE,
        REFLECTED,
    ),
    extras(
        "verify_email_request",
        &[Code::NotFound, Code::TooManyRequests, Code::LogFull, Code::OutcomeUnknown],
        &[],
        NOTHING,
    ),
    extras(
        "verify_email_confirm",
        &[
            Code::InvalidToken,
            Code::InvalidCredentials,
            Code::PasswordRequired,
            Code::WrongPassword,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        WRITE,
        REFLECTED,
    ),
    extras(
        "change_email",
        &[
            Code::WrongPassword,
            Code::EmailNotVerified,
            Code::NotFound,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::LogFull,
            Code::OutcomeUnknown,
        ],
        &[],
        NOTHING,
    ),
    extras(
        "change_email_confirm",
        &[Code::InvalidToken, Code::EmailTaken, REUSED, Code::LogFull, Code::OutcomeUnknown],
        WRITE,
        REFLECTED,
    ),
    extras("change_email_abort", &[Code::InvalidToken, Code::OutcomeUnknown], &[], NOTHING),
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
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        WRITE,
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
    extras("import_users", &[Code::Forbidden, Code::BodyTooLarge], &[Prefer], REFLECTED),
    extras("change_user", CHANGE, GUARDED, A_USER),
    extras("replace_user", CHANGE, GUARDED, A_USER),
    extras("disable_user", CHANGE, GUARDED, A_USER),
    extras("enable_user", CHANGE, GUARDED, A_USER),
    extras("delete_user", CHANGE, GUARDED, REFLECTED),
    extras(
        "logout_user",
        &[Code::Forbidden, Code::NotFound, Code::OutcomeUnknown],
        &[Prefer],
        A_USER,
    ),
    extras(
        "reset_password_of_user",
        &[Code::Forbidden, Code::NotFound, Code::OutcomeUnknown],
        &[],
        NOTHING,
    ),
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
