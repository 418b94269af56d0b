//! What is done to a log that was restored from a backup, as the operator: access that ended behind the backup
//! ends again. It only takes away.

use events::{EndReason, LinkPurpose, ROLE_USER, Session, Status, UserId, UserState, record};
use service_kit::ambient;
use service_kit::event_log::Guard;

use super::rights::Rights;
use super::users::decided;
use super::{ATTEMPTS_MAX, CommandError, Request, Users, settled};
use crate::domain::{self, Change, Command, Rejection, Roles};
use crate::ports::{self, CredentialChange, UsedLink};

fn as_operator() -> Request {
    Request::of_the_system()
}

impl Users {
    /// Whether there is a user, deleted or not.
    pub async fn is_known(&self, user: UserId) -> Result<bool, CommandError> {
        Ok(self.log().load(user).await?.value != UserState::Absent)
    }

    /// Disables a user, and takes the roles that are not among those given.
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
            // Nobody is without any role.
            if left.is_empty() { vec![ROLE_USER.to_owned()] } else { left }
        });
        let roles = kept.map(Roles::parse).transpose();
        let roles = roles.map_err(|(_, why)| CommandError::internal(why))?;
        let status = disable.then_some(Status::Disabled);
        self.change(user, Change { roles, status, ..Change::default() }, as_operator()).await?;
        Ok(())
    }

    /// Lets a user have the password that came after the one of the backup, and ends what the old one opened.
    pub async fn replace_password(&self, user: UserId, sealed: &[u8]) -> Result<(), CommandError> {
        let opened = self.log().open_credential(user, sealed).map_err(CommandError::internal)?;
        let Some(hash) = opened else { return Ok(()) };
        let request = as_operator();
        let origin = request.origin();
        let command = Command::ChangePassword { by_link: false };
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.log().load(user).await?;
            let (events, _) = match decided(user, &loaded.value, &command, &origin) {
                Err(CommandError::Rejected(Rejection::NoSuchUser)) => return Ok(()),
                decided => decided?,
            };
            let stored = self.log().credential(user).await?;
            if stored.value.as_ref() == Some(&hash) {
                return Ok(());
            }
            let cutoff = self.log().cutoff(user).await?;
            let mut change = ports::Change::of(user, loaded.guard);
            change.credential = Some(CredentialChange::Set(hash.clone(), stored.guard));
            change.revocation = Some((cutoff.value.all(), cutoff.guard));
            change.events = events;
            if settled(self.log().append(&change).await)?.is_some() {
                return Ok(());
            }
        }
        Err(CommandError::overloaded())
    }

    /// Deletes a user who was deleted behind the backup.
    pub async fn delete_again(&self, user: UserId) -> Result<(), CommandError> {
        self.delete(user, as_operator()).await.map(drop)
    }

    /// Ends every session of a user and all access that came of them.
    pub async fn end_access(&self, user: UserId) -> Result<(), CommandError> {
        match self.end_sessions(&as_operator(), user, Rights::Administrator).await {
            Ok(_) | Err(CommandError::Rejected(Rejection::NoSuchUser)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Ends sessions that are alive, all at once, each with the guard of its last message.
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
        match settled(self.parts.sessions.append_ends(&ends).await)? {
            Some(_) => Ok(()),
            None => Err(CommandError::internal("somebody else writes to the log".to_owned())),
        }
    }

    /// Voids the link of a purpose that is good, if there is one.
    pub async fn void_link(
        &self,
        purpose: LinkPurpose,
        user: UserId,
    ) -> Result<bool, CommandError> {
        for _ in 0..ATTEMPTS_MAX {
            let link = self.log().link(purpose, user).await?;
            let Some(record) = link.value.filter(|record| record.serial.is_some()) else {
                return Ok(false);
            };
            // The record stands alone: nothing of the user changes.
            let mut change = ports::Change::of(user, Guard::absent());
            change.link = Some(UsedLink { purpose, record, guard: link.guard });
            if settled(self.log().append(&change).await)?.is_some() {
                return Ok(true);
            }
        }
        Err(CommandError::overloaded())
    }
}
