//! Login: one answer and one duration for unknown, wrong and disabled.

use events::{EmailAddress, Position, Status, User, UserId, UserState};
use service_kit::ambient;

use super::{CommandError, Users};
use crate::domain::Password;

/// Who logged in.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// The user, as the log has it now.
    pub user: User,
    /// Position of the user's last event.
    pub position: Position,
}

impl Users {
    /// Checks e-mail and password against the log. `None` for a string that is nobody's address or a
    /// password that is longer than any.
    pub async fn login(
        &self,
        email: Option<EmailAddress>,
        password: Option<Password>,
    ) -> Result<LoggedIn, CommandError> {
        let users = self.clone();
        self.to_the_end(async move { users.login_now(email, password).await }).await
    }

    async fn login_now(
        &self,
        email: Option<EmailAddress>,
        password: Option<Password>,
    ) -> Result<LoggedIn, CommandError> {
        let (Some(email), Some(password)) = (email, password) else {
            return Err(CommandError::InvalidCredentials);
        };
        let holder = self.log.claim(&email).await?.value;
        // Nobody costs the same reads and the same hash as somebody.
        let id = holder.unwrap_or_else(|| UserId::from_uuid(ambient::new_uuid()));
        let state = self.log.load(id).await?;
        let credential = self.log.credential(id).await?;
        let verified = self.hasher.verify(password.clone(), credential.value).await?;
        let UserState::Present(user) = state.value else {
            return Err(CommandError::InvalidCredentials);
        };
        if !verified.matches || user.status != Status::Active || holder != Some(user.id) {
            return Err(CommandError::InvalidCredentials);
        }
        if verified.outdated {
            let hash = self.hasher.hash(password).await?;
            // Whoever lost this race will be upgraded at the next login.
            let _ = self.log.rehash(id, &hash, credential.guard).await;
        }
        Ok(LoggedIn { user, position: state.position })
    }
}
