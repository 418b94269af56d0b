//! The real parts behind the ports.

mod hashing;
mod sealing;
mod user_log;
mod views;

pub use hashing::HashPool;
pub use sealing::CredentialSealer;
pub use user_log::NatsUserLog;
