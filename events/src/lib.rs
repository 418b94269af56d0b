//! The contract of the event log: ids, envelope, event types, records, subjects and the canonical form of e-mail
//! addresses.
//!
//! Every program that writes to the log, reads it or rebuilds from it depends on this crate and on nothing else. It
//! knows no NATS client, no database and no HTTP, so a reader in another process or repository can use it without the
//! services. With the feature `client` it also has a subscriber of the feed.
//!
//! Every event carries the change **and** the public state of the user after it (ADR 1), so one read of the last
//! message loads an aggregate. [`UserState::evolve`] folds the changes alone. Both must lead to the same state, which a
//! property test verifies.

#[cfg(feature = "client")]
pub mod client;
mod email;
mod envelope;
mod evolve;
pub mod feed;
mod ids;
mod lineage;
mod records;
mod salvage;
mod service;
mod session;
pub mod subjects;
mod text;
mod time;
mod user;

pub use email::{EMAIL_BYTES_MAX, EmailAddress, InvalidEmail};
pub use envelope::{
    CONTENT_TYPE, Cause, DecodeError, EVENT_BYTES_MAX, EncodeError, Envelope, Event, Fact, SOURCE,
    SessionEvent,
};
pub use evolve::{Evolve, FoldError, Origin, Recorded, record};
pub use ids::{Actor, CommandId, InvalidId, Position, Revision, SessionId, UserId};
pub use lineage::{InvalidLineage, Lineage, LineageRecord, Milestone};
pub use records::{
    ClaimState, Cutoff, EmailClaim, LinkPurpose, LinkRecord, LinkStanding, Reservation,
    RevocationCause, RevocationReason, SessionErasure, SessionsKept, StoredRevocation,
    UndoneChanges, UserRevocation, credential_position,
};
pub use salvage::Salvage;
pub use service::{
    InvalidServiceName, SERVICE_NAME_CHARS_MAX, SERVICE_NAME_CHARS_MIN, ServiceNames,
};
pub use session::{EndReason, Ended, Session, SessionFact, SessionSeed, evolve_session};
pub use text::{case_folded, is_invisible, is_seen, search_folded, words};
pub use time::{InvalidTime, Timestamp};
pub use user::{
    DeletedUser, Metadata, ROLE_ADMIN, ROLE_OPERATOR, ROLE_USER, Snapshot, Status, User, UserFact,
    UserState, is_role,
};
