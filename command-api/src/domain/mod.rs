//! What may happen to a user: pure decisions, no clock, no random numbers, no waiting.

mod admins;
mod fields;
mod session;
mod user;

pub use admins::Admins;
pub use fields::{FullName, Password, PasswordRules, Roles, metadata};
pub use session::{Device, Refresh, SessionRules, end};
pub use user::{Change, Command, Origin, Register, Rejection, decide, record, revocation};
