//! Removes unverified accounts that nobody uses.

use events::{LinkPurpose, Timestamp, User, UserId, UserState};
use service_kit::commands::{Failure, LogError};
use service_kit::http::Precondition;

use super::{CommandError, Request, Users};
use crate::domain::is_abandoned;

/// The times after which activity keeps an unverified account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedSince {
    /// Changes of the account, logins and refreshes from here on count as use.
    pub used: Timestamp,
    /// A link that was ordered from here on may still be valid.
    pub link_ordered: Timestamp,
}

/// The result for one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is deleted now.
    Removed,
    /// It would have been deleted.
    Removable,
    /// It was kept: it is verified, is used, has a valid link, cannot be read, or changed meanwhile.
    Kept,
}

impl Users {
    /// Deletes an account that registered itself, if its address is not verified and nobody has used it. The deletion is
    /// guarded by the revision that was checked: a verification that comes first keeps the account, and one that comes
    /// later finds no user.
    pub async fn remove_unverified(
        &self,
        user: UserId,
        since: UnusedSince,
        dry_run: bool,
        request: Request,
    ) -> Result<Removal, CommandError> {
        let loaded = match self.log().load(user).await {
            Ok(loaded) => loaded.value,
            Err(LogError::Damaged { .. }) => return Ok(Removal::Kept),
            Err(error) => return Err(error.into()),
        };
        let UserState::Present(state) = loaded else { return Ok(Removal::Kept) };
        if !is_abandoned(&state, since.used) || self.is_in_use(&state, since).await? {
            return Ok(Removal::Kept);
        }
        if dry_run {
            return Ok(Removal::Removable);
        }
        let request = Request { precondition: Precondition::at(state.revision), ..request };
        match self.delete(user, request).await {
            Ok(_) => Ok(Removal::Removed),
            Err(CommandError::Failed(Failure::Precondition(_))) => Ok(Removal::Kept),
            Err(error) => Err(error),
        }
    }

    /// Whether a session of the account was used, or a link to its address may still be valid.
    async fn is_in_use(&self, user: &User, since: UnusedSince) -> Result<bool, CommandError> {
        for purpose in LinkPurpose::ALL {
            let link = self.log().link(purpose, user.id).await?.value;
            if link.is_some_and(|it| it.serial.is_some() && it.ordered_at >= since.link_ordered) {
                return Ok(true);
            }
        }
        for session in self.deps.sessions.of_user(user.id).await? {
            match self.deps.sessions.load(user.id, session).await {
                Ok(loaded)
                    if loaded.value.as_ref().is_none_or(|it| it.refreshed_at < since.used) => {}
                // An unreadable session may have been used.
                Ok(_) | Err(LogError::Damaged { .. }) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}
