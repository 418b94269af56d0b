//! The real parts behind the ports.

mod hashing;
mod mail_desk;
mod recorded;
mod resealing;
mod sealing;
mod session_log;
mod throttle;
mod user_log;

pub use hashing::HashPool;
pub use mail_desk::NatsMailDesk;
pub use resealing::Resealer;
pub use sealing::CredentialSealer;
pub use session_log::NatsSessionLog;
pub use throttle::{Buckets, NatsThrottle};
pub use user_log::NatsUserLog;
