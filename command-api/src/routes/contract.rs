//! The errors that a call has of its own, and the headers it looks at, for the OpenAPI document.

use service_kit::openapi::Extras;
use service_kit::openapi::RequestHeader::{self, IdempotencyKey, IfMatch, Prefer};
use service_kit::problem::Code;

const fn extras(
    operation: &'static str,
    errors: &'static [Code],
    headers: &'static [RequestHeader],
) -> Extras {
    Extras { operation, errors, headers }
}

const WRITE: &[RequestHeader] = &[IdempotencyKey, Prefer];
const GUARDED: &[RequestHeader] = &[IfMatch, IdempotencyKey, Prefer];
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
            Code::OutcomeUnknown,
        ],
        WRITE,
    ),
    extras(
        "login",
        &[Code::InvalidCredentials, Code::TooManyRequests, Code::Overloaded, Code::OutcomeUnknown],
        &[Prefer],
    ),
    extras("refresh", &[Code::InvalidRefreshToken, Code::OutcomeUnknown], &[Prefer]),
    extras("logout", &[Code::InvalidRefreshToken, Code::OutcomeUnknown], &[Prefer]),
    extras("logout_all", &[Code::OutcomeUnknown], &[Prefer]),
    extras("end_session", &[Code::NotFound, Code::OutcomeUnknown], &[Prefer]),
    extras("password_reset_request", &[Code::TooManyRequests, Code::OutcomeUnknown], &[]),
    extras(
        "password_reset_confirm",
        &[Code::InvalidToken, REUSED, Code::Overloaded, Code::OutcomeUnknown],
        WRITE,
    ),
    extras(
        "change_password",
        &[
            Code::WrongPassword,
            Code::NotFound,
            REUSED,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        WRITE,
    ),
    extras(
        "verify_email_request",
        &[Code::NotFound, Code::TooManyRequests, Code::OutcomeUnknown],
        &[],
    ),
    extras("verify_email_confirm", &[Code::InvalidToken, REUSED, Code::OutcomeUnknown], WRITE),
    extras(
        "change_email",
        &[
            Code::WrongPassword,
            Code::EmailNotVerified,
            Code::NotFound,
            Code::TooManyRequests,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        &[],
    ),
    extras(
        "change_email_confirm",
        &[Code::InvalidToken, Code::EmailTaken, REUSED, Code::OutcomeUnknown],
        WRITE,
    ),
    extras("change_email_abort", &[Code::InvalidToken, Code::OutcomeUnknown], &[]),
    extras(
        "change_me",
        &[Code::NotFound, Code::StaleRevision, IN_FLIGHT, REUSED, Code::OutcomeUnknown],
        GUARDED,
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
    ),
    extras(
        "create_user",
        &[
            Code::Forbidden,
            Code::EmailTaken,
            IN_FLIGHT,
            REUSED,
            Code::Overloaded,
            Code::OutcomeUnknown,
        ],
        WRITE,
    ),
    extras("import_users", &[Code::Forbidden, Code::BodyTooLarge], &[Prefer]),
    extras("change_user", CHANGE, GUARDED),
    extras("replace_user", CHANGE, GUARDED),
    extras("disable_user", CHANGE, GUARDED),
    extras("enable_user", CHANGE, GUARDED),
    extras("delete_user", CHANGE, GUARDED),
    extras("logout_user", &[Code::Forbidden, Code::NotFound, Code::OutcomeUnknown], &[Prefer]),
    extras("reset_password_of_user", &[Code::Forbidden, Code::NotFound, Code::OutcomeUnknown], &[]),
];

const CHANGE: &[Code] = &[
    Code::Forbidden,
    Code::NotFound,
    Code::LastAdmin,
    IN_FLIGHT,
    Code::StaleRevision,
    REUSED,
    Code::OutcomeUnknown,
];
