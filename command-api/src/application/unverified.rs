//! Removing an account whose address nobody has proven and that nobody uses.

use events::{LinkPurpose, Timestamp, User, UserId, UserState};
use service_kit::commands::{Failure, LogError};
use service_kit::http::Precondition;

use super::{CommandError, Request, Users};
use crate::domain::is_abandoned;

/// From when on a sign of life keeps an unverified account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnusedSince {
    /// Changes of the account, logins and refreshes from here on are a use of it.
    pub used: Timestamp,
    /// A link that was ordered from here on may still be good.
    pub link_ordered: Timestamp,
}

/// What became of an account that was to be removed if nobody uses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is deleted now.
    Removed,
    /// It would have been deleted.
    Removable,
    /// It was left as it is: it is verified, used, waits for a link to be followed, or cannot be read; or something
    /// happened to it meanwhile.
    Kept,
}

impl Users {
    /// Deletes an account that registered itself, if its address is not verified and nobody has used it. The deletion
    /// holds for the revision that was looked at: a verification that comes first keeps the account, and one that comes
    /// later finds nobody.
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

    /// Whether somebody has used a session of the account, or may still follow a link to its address.
    async fn is_in_use(&self, user: &User, since: UnusedSince) -> Result<bool, CommandError> {
        for purpose in LinkPurpose::ALL {
            let link = self.log().link(purpose, user.id).await?.value;
            if link.is_some_and(|it| it.serial.is_some() && it.ordered_at >= since.link_ordered) {
                return Ok(true);
            }
        }
        for session in self.parts.sessions.of_user(user.id).await? {
            match self.parts.sessions.load(user.id, session).await {
                Ok(loaded)
                    if loaded.value.as_ref().is_none_or(|it| it.refreshed_at < since.used) => {}
                // Nobody knows what one says that cannot be read.
                Ok(_) | Err(LogError::Damaged { .. }) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}
