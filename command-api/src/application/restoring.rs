//! Replays revocations on a log that was restored from a backup, as the operator: access that ended after the backup
//! ends again. It can only revoke, with one exception: a later password change is replayed.

use events::{EndReason, LinkPurpose, ROLE_USER, Session, Status, UserId, UserState, record};
use service_kit::ambient;
use service_kit::commands::{settled, until_settled};
use service_kit::event_log::Guard;

use super::authority::Authority;
use super::users::decided;
use super::{CommandError, Request, Users};
use crate::domain::{self, Change, Command, Rejection, Roles};
use crate::ports::{CredentialChange, UsedLink, UserChange, UserWrites};

fn as_operator() -> Request {
    Request::of_the_system()
}

impl Users {
    /// Whether a user exists or existed.
    pub async fn is_known(&self, user: UserId) -> Result<bool, CommandError> {
        Ok(self.log().load(user).await?.value != UserState::Absent)
    }

    /// Disables a user if `disable`, and removes the roles that are not among those given.
    pub async fn take_rights(
        &self,
        user: UserId,
        disable: bool,
        roles: Option<&[String]>,
    ) -> Result<(), CommandError> {
        let UserState::Present(now) = self.log().load(user).await?.value else { return Ok(()) };
        let kept = roles.map(|kept| {
            let mut left = now.roles.clone();
            left.retain(|role| kept.contains(role));
            // Every user has at least one role.
            if left.is_empty() { vec![ROLE_USER.to_owned()] } else { left }
        });
        let roles = kept.map(Roles::parse).transpose();
        let roles = roles.map_err(|(_, why)| CommandError::internal(why))?;
        let status = disable.then_some(Status::Disabled);
        self.change(user, Change { roles, status, ..Change::default() }, as_operator()).await?;
        Ok(())
    }

    /// Sets the password that a user had after the backup, and ends the access that the older one gave.
    pub async fn replace_password(&self, user: UserId, sealed: &[u8]) -> Result<(), CommandError> {
        let opened = self.log().open_credential(user, sealed).map_err(CommandError::internal)?;
        let Some(hash) = opened else { return Ok(()) };
        let request = as_operator();
        let origin = request.origin();
        let command = Command::ChangePassword { by_link: false };
        let (hash, command, origin) = (&hash, &command, &origin);
        until_settled(|| async move {
            let loaded = self.log().load(user).await?;
            let mut change = match decided(user, loaded, command, origin) {
                Err(CommandError::Rejected(Rejection::NoSuchUser)) => return Ok(Some(())),
                decided => decided?,
            };
            let stored = self.log().credential(user).await?;
            if stored.value.as_ref() == Some(hash) {
                return Ok(Some(()));
            }
            let cutoff = self.log().cutoff(user).await?;
            change.further.credential = Some(CredentialChange::Set(hash.clone(), stored.guard));
            change.further.revocation = Some((cutoff.value.all(), cutoff.guard));
            Ok(settled(self.log().append(&change).await)?.map(drop))
        })
        .await
    }

    /// Deletes a user who was deleted after the backup.
    pub async fn delete_again(&self, user: UserId) -> Result<(), CommandError> {
        self.delete(user, as_operator()).await.map(drop)
    }

    /// Ends every session of a user and all their access tokens.
    pub async fn end_access(&self, user: UserId) -> Result<(), CommandError> {
        match self.end_sessions(&as_operator(), user, Authority::Administrator).await {
            Ok(_) | Err(CommandError::Rejected(Rejection::NoSuchUser)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends sessions that are alive in one batch, each with the guard of its last message.
    pub async fn end_together(&self, sessions: Vec<(Session, Guard)>) -> Result<(), CommandError> {
        let origin = as_operator().origin();
        let mut ends = Vec::with_capacity(sessions.len());
        for (session, guard) in sessions {
            let Some(fact) = domain::end(&session, EndReason::Revoked) else { continue };
            let id = (session.user_id, session.id);
            let recorded = record(id, Some(session), vec![fact], &origin, ambient::new_uuid);
            let (events, _) = recorded.map_err(CommandError::internal)?;
            ends.extend(events.into_iter().map(|event| (event, guard)));
        }
        if ends.is_empty() {
            return Ok(());
        }
        match settled(self.deps.sessions.append_ends(&ends).await)? {
            Some(_) => Ok(()),
            None => Err(CommandError::internal("another process writes to the log")),
        }
    }

    /// Voids the valid link of a purpose, if there is one.
    pub async fn void_link(
        &self,
        purpose: LinkPurpose,
        user: UserId,
    ) -> Result<bool, CommandError> {
        until_settled(|| async move {
            let link = self.log().link(purpose, user).await?;
            let Some(record) = link.value.filter(|record| record.serial.is_some()) else {
                return Ok(Some(false));
            };
            let used = UsedLink { purpose, record, guard: link.guard };
            let further = UserWrites { link: Some(used), ..UserWrites::default() };
            let change = UserChange::of_further(user, further);
            Ok(settled(self.log().append(&change).await)?.map(|_| true))
        })
        .await
    }
}
