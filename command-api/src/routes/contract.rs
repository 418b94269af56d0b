//! Headers and errors that many calls share, for the OpenAPI document. Those of one call are a constant next to its
//! handler.

use service_kit::openapi::AnswerHeader::{
    self, ETag, Location, Pending, Position, SessionPosition,
};
use service_kit::openapi::RequestHeader::{self, IdempotencyKey, IfMatch, Prefer};
use service_kit::problem::Code;

pub const WRITE: &[RequestHeader] = &[IdempotencyKey, Prefer];
pub const GUARDED: &[RequestHeader] = &[IfMatch, IdempotencyKey, Prefer];
/// Of calls whose effect is a mail, which no view shows.
pub const KEYED: &[RequestHeader] = &[IdempotencyKey];
/// The same about a user who is known.
pub const MAILED: &[RequestHeader] = &[IfMatch, IdempotencyKey];
pub const REFLECTED: &[AnswerHeader] = &[Position, Pending];
pub const IN_SESSIONS: &[AnswerHeader] = &[SessionPosition, Pending];
pub const A_USER: &[AnswerHeader] = &[ETag, Position, Pending];
pub const A_NEW_USER: &[AnswerHeader] = &[ETag, Location, Position, Pending];
pub const NOTHING: &[AnswerHeader] = &[];
/// Every call with an idempotency key can answer with these.
pub const IN_FLIGHT: Code = Code::IdempotencyKeyInFlight;
pub const REUSED: Code = Code::IdempotencyKeyReused;
