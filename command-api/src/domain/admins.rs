//! The set of active administrators, which must not become empty.

use std::collections::BTreeSet;

use events::{ROLE_ADMIN, Status, UserId, UserState};

use super::Rejection;

/// The active administrators, in one small record of the log, so that two commands that each remove one of the last
/// two cannot both succeed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admins(pub BTreeSet<UserId>);

impl Admins {
    /// Whether a user counts: active and with the role.
    #[must_use]
    pub fn counts(state: &UserState) -> bool {
        match state {
            UserState::Present(user) => user.status == Status::Active && user.has_role(ROLE_ADMIN),
            UserState::Absent | UserState::Deleted(_) => false,
        }
    }

    /// The set after `user` went from one state to another.
    ///
    /// # Errors
    /// `Rejection::LastAdmin` if none would be left.
    pub fn after(mut self, user: UserId, now: &UserState) -> Result<Self, Rejection> {
        if Self::counts(now) {
            self.0.insert(user);
        } else {
            self.0.remove(&user);
            if self.0.is_empty() {
                return Err(Rejection::LastAdmin);
            }
        }
        Ok(self)
    }
}
