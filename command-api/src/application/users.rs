//! Register, change, delete.

use events::{Actor, CommandId, Event, Position, Revision, Snapshot, UserId, UserState};
use service_kit::ambient;
use service_kit::event_log::Guard;

use super::{ATTEMPTS_MAX, CommandError, Done, Request, Users, settled};
use crate::domain::{
    Admins, Change as ChangeUser, Command, Origin, Password, Register, Rejection, decide, record,
};
use crate::ports::{self, ClaimChange, CredentialChange, Loaded, PasswordHash};

impl Users {
    /// Makes a user with a claim on its address and a credential, all in one batch.
    pub async fn register(
        &self,
        register: Register,
        password: Password,
        request: Request,
    ) -> Result<Done, CommandError> {
        let users = self.clone();
        self.to_the_end(async move { users.register_now(&register, password, &request).await })
            .await
    }

    /// Applies a merge patch to a user, as an administrator.
    pub async fn change(
        &self,
        user: UserId,
        change: ChangeUser,
        request: Request,
    ) -> Result<Done, CommandError> {
        let users = self.clone();
        let command = Command::Change(change);
        self.to_the_end(async move { users.administer(user, &command, &request).await }).await
    }

    /// Deletes a user for ever, as an administrator. Again is as good as once.
    pub async fn delete(
        &self,
        user: UserId,
        expected: Option<Vec<Revision>>,
        request: Request,
    ) -> Result<Done, CommandError> {
        let users = self.clone();
        let command = Command::Delete(expected);
        self.to_the_end(async move { users.administer(user, &command, &request).await }).await
    }

    /// Whether any active administrator exists.
    pub async fn has_administrator(&self) -> Result<bool, CommandError> {
        Ok(!self.log.admins().await?.value.0.is_empty())
    }

    async fn register_now(
        &self,
        register: &Register,
        password: Password,
        request: &Request,
    ) -> Result<Done, CommandError> {
        let _running = self.in_flight.start(request.key.as_ref())?;
        let user = UserId::from_uuid(ambient::new_uuid());
        let origin = origin(request);
        let mut hash: Option<PasswordHash> = None;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.earlier(request.key.as_ref()).await? {
                return self.same_password(done, password).await;
            }
            let claim = self.log.claim(&register.email).await?;
            if claim.value.is_some() {
                return Err(CommandError::EmailTaken);
            }
            // Hashed once, and not at all for an address that is taken.
            let hash = match &hash {
                Some(hash) => hash.clone(),
                None => hash.insert(self.hasher.hash(password.clone()).await?).clone(),
            };
            let command = Command::Register(register.clone());
            let (events, state) = decided(user, &UserState::Absent, &command, &origin)?;
            let change = ports::Change {
                user,
                guard: Guard::absent(),
                claim: Some(ClaimChange::Hold(register.email.clone(), claim.guard)),
                credential: Some(CredentialChange::Set(hash, Guard::absent())),
                admins: self.admins_after(user, &UserState::Absent, &state).await?,
                key: request.key.clone(),
                events,
            };
            if let Some(position) = settled(self.log.append(&change).await)? {
                return done(&state, position);
            }
        }
        Err(CommandError::Overloaded)
    }

    /// A repeated registration proves itself by its password, which no fingerprint keeps.
    async fn same_password(&self, done: Done, password: Password) -> Result<Done, CommandError> {
        let Some(user) = &done.user else { return Err(Rejection::NoSuchUser.into()) };
        let credential = self.log.credential(user.id).await?;
        if self.hasher.verify(password, credential.value).await?.matches {
            Ok(done)
        } else {
            Err(CommandError::InvalidCredentials)
        }
    }

    async fn administer(
        &self,
        user: UserId,
        command: &Command,
        request: &Request,
    ) -> Result<Done, CommandError> {
        let _running = self.in_flight.start(request.key.as_ref())?;
        self.check_administrator(request.actor).await?;
        let origin = origin(request);
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.earlier(request.key.as_ref()).await? {
                return Ok(done);
            }
            let loaded = self.log.load(user).await?;
            let (events, state) = decided(user, &loaded.value, command, &origin)?;
            if events.is_empty() {
                return done(&state, loaded.position);
            }
            let change = self.change_of(user, loaded, &state, events, request).await?;
            if let Some(position) = settled(self.log.append(&change).await)? {
                return done(&state, position);
            }
        }
        Err(CommandError::Overloaded)
    }

    /// Everything that has to change together with the events of a command.
    async fn change_of(
        &self,
        user: UserId,
        before: Loaded<UserState>,
        after: &UserState,
        events: Vec<Event>,
        request: &Request,
    ) -> Result<ports::Change, CommandError> {
        let (mut claim, mut credential) = (None, None);
        if let (UserState::Present(old), UserState::Deleted(_)) = (&before.value, after) {
            let email = events::EmailAddress::parse(&old.email)
                .map_err(|e| CommandError::Internal(format!("stored address: {e}")))?;
            let held = self.log.claim(&email).await?;
            if held.value == Some(user) {
                claim = Some(ClaimChange::Release(email, held.guard));
            }
            let stored = self.log.credential(user).await?;
            credential = Some(CredentialChange::Remove(stored.guard));
        }
        Ok(ports::Change {
            user,
            guard: before.guard,
            admins: self.admins_after(user, &before.value, after).await?,
            key: request.key.clone(),
            events,
            claim,
            credential,
        })
    }

    /// The record of administrators, when this change touches it.
    async fn admins_after(
        &self,
        user: UserId,
        before: &UserState,
        after: &UserState,
    ) -> Result<Option<(Admins, Guard)>, CommandError> {
        if Admins::counts(before) == Admins::counts(after) {
            return Ok(None);
        }
        let admins = self.log.admins().await?;
        Ok(Some((admins.value.after(user, after)?, admins.guard)))
    }

    /// A token may be older than the last change of its owner: what may change users is asked of the log.
    async fn check_administrator(&self, actor: Actor) -> Result<(), CommandError> {
        match actor {
            Actor::System => Ok(()),
            Actor::Anonymous => Err(CommandError::Forbidden),
            Actor::User(id) => {
                let actor = self.log.load(id).await?;
                if Admins::counts(&actor.value) { Ok(()) } else { Err(CommandError::Forbidden) }
            }
        }
    }
}

fn origin(request: &Request) -> Origin {
    Origin {
        actor: request.actor,
        command_id: CommandId::from_uuid(ambient::new_uuid()),
        time: ambient::now(),
        correlation_id: request.correlation_id.clone(),
        traceparent: request.traceparent.clone(),
    }
}

fn decided(
    user: UserId,
    state: &UserState,
    command: &Command,
    origin: &Origin,
) -> Result<(Vec<Event>, UserState), CommandError> {
    let facts = decide(state, command)?;
    record(user, state, facts, origin, ambient::new_uuid)
        .map_err(|error| CommandError::Internal(error.to_string()))
}

fn done(state: &UserState, position: Position) -> Result<Done, CommandError> {
    let user = match state.snapshot() {
        Some(Snapshot::Present(user)) => Some(user),
        Some(Snapshot::Deleted(_)) => None,
        None => return Err(Rejection::NoSuchUser.into()),
    };
    Ok(Done { user, revision: state.revision(), position })
}
