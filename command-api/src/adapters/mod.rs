//! The adapters behind the ports.

mod hashing;
mod lineage;
mod mail_queue;
mod resealing;
mod sealing;
mod security_events;
mod session_log;
#[cfg(test)]
mod testing;
mod throttle;
mod user_log;

pub use hashing::HashPool;
pub use lineage::{HeardLineage, Keeper, LookError, NoLineage, Reached, begin_lineage};
pub use mail_queue::NatsMailQueue;
pub use resealing::Resealer;
pub use sealing::CredentialSealer;
pub use session_log::NatsSessionLog;
pub use throttle::{Buckets, NatsThrottle};
pub use user_log::NatsUserLog;
