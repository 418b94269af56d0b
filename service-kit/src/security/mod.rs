//! The security record: who tried to get in, from where, and what came of it.
//!
//! A record is written beside the request and never in its way. [`SecurityRecorder::record`] puts it into a bounded
//! queue and returns; one task stores what is queued in the stream `SECURITY`. A stream that is away or full costs
//! records, which are counted, and never a login.
//!
//! What an anonymous client can cause is bounded before it reaches the queue: see [`coalesce`].
//!
//! A record holds ids, an address of the network, the name of a client and a keyed hash where the user is not known.
//! It is filed under the user whose address and device it holds, so that an erasure finds it by its subject.
//!
//! Not for what operators do with `roster`: that is in the stream `OPERATIONS`.

pub mod coalesce;
mod observe;
mod record;
mod recorder;

pub use observe::{Observed, observe};
pub use record::{Kind, Outcome, SecurityEvent, SecurityRecord};
pub use recorder::{SecurityRecorder, SecurityStreamError};

use events::UserId;
use uuid::Uuid;

/// The stream.
pub const SECURITY_STREAM: &str = "SECURITY";
/// What it takes in: records of users, and of nobody in particular.
pub const SECURITY_STREAM_SUBJECTS: [&str; 2] = ["security.user.*.*", "security.anonymous.*"];
/// The key of the hashes of addresses.
pub const SECURITY_KEY_PURPOSE: &str = "security record v1";

/// Every record that is filed under a user.
#[must_use]
pub fn records_of(user: UserId) -> String {
    format!("security.user.{user}.*")
}

/// Where a record goes: a subject of its own, so that its guard is that nothing is there.
fn subject(user: Option<UserId>, id: Uuid) -> String {
    match user {
        Some(user) => format!("security.user.{user}.{id}"),
        None => format!("security.anonymous.{id}"),
    }
}
