//! The rules of users and sessions: pure decisions without a clock, random numbers or waiting.

mod admins;
mod fields;
mod password;
mod session;
mod throttle;
mod unverified;
mod user;

pub use admins::Admins;
pub use fields::{FullName, Roles, Violation, parse_metadata};
pub use password::{Candidate, Password, PasswordContext, PasswordRules};
pub use session::{Device, Refresh, SessionRules, end};
pub use throttle::{
    Attempts, Begin, DAY_MS, Exhausted, Policy, Quota, QuotaPolicy, Verdict, Window,
};
pub use unverified::{is_abandoned, is_self_registration};
pub use user::{Change, Command, NewMetadata, Register, Rejection, decide, revocation};
