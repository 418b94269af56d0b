//! Register, change, delete.

use std::net::IpAddr;

use events::{
    Actor, EmailAddress, EmailClaim, Origin, ROLE_ADMIN, Reservation, Snapshot, Status, User,
    UserId, UserState,
};
use service_kit::ambient;
use service_kit::commands::{Executed, Failure, Loaded, LogError};
use service_kit::event_log::Guard;
use service_kit::mail_jobs::Mail;
use service_kit::tokens::Caller;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::authority::Authority;
use super::sessions::Proved;
use super::{CommandError, Done, Granted, Request, Users};
use crate::domain::{
    Admins, Change, Command, Device, Password, Register, Rejection, decide, revocation,
};
use crate::ports::throttle::{AttemptKey, RateKey, UserAction};
use crate::ports::{ClaimChange, CredentialChange, HashClient, PasswordHash, UserChange};

/// The result of a registration.
enum Registered {
    /// This request created the user.
    Now(Done),
    /// An earlier request with the same key created the user. A repetition has to prove the password before it gets an
    /// answer.
    Earlier(Done),
}

impl Users {
    /// Creates a user with a claim on the address and a credential, all in one batch.
    pub async fn register(
        &self,
        register: Register,
        password: Password,
        from: IpAddr,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let client = HashClient::network(from);
            match users.register_now(client, &register, Some(password.clone()), &request).await? {
                Registered::Now(done) => Ok(done),
                Registered::Earlier(done) => {
                    let email = &register.email;
                    users.prove_registration(done, email, password, from).await
                }
            }
        })
        .await
    }

    /// Creates a user and starts a session. A repetition is treated as a login: the present state of the user decides.
    pub async fn register_with_session(
        &self,
        register: Register,
        password: Password,
        device: Device,
        request: Request,
    ) -> Result<(Done, Granted), CommandError> {
        self.run_detached(|users| async move {
            let client = HashClient::network(device.ip);
            let lineage = users.lineage();
            let registered =
                users.register_now(client, &register, Some(password.clone()), &request).await?;
            let (done, proved) = match registered {
                Registered::Now(done) => {
                    let user = done.after.user().cloned().ok_or(Rejection::NoSuchUser)?;
                    (done, Proved::by_registration(lineage, user))
                }
                Registered::Earlier(done) => {
                    let proved = users.attempt_login(&register.email, password, device.ip).await?;
                    // The address may belong to somebody else by now.
                    if proved.user().map(|user| user.id) != done.after.user().map(|user| user.id) {
                        return Err(CommandError::InvalidCredentials);
                    }
                    (done, proved)
                }
            };
            let granted = users.start_session(proved, &device).await?;
            Ok((done, granted))
        })
        .await
    }

    /// Whether a registration hides that an address has an account.
    pub fn conceals_existing(&self) -> bool {
        self.deps.enumeration.conceal_existing
    }

    /// Whether users may log in before their address is verified.
    pub fn login_unverified(&self) -> bool {
        self.deps.session_rules.login_unverified
    }

    /// Creates a user, or notifies the owner of the address by mail of the attempt, with the same answer after the same
    /// time.
    pub async fn register_concealed(
        &self,
        register: Register,
        password: Password,
        from: IpAddr,
        request: Request,
    ) -> Result<(), CommandError> {
        let began = Instant::now();
        let answer = self
            .run_detached(|users| async move {
                let client = HashClient::network(from);
                match users.register_now(client, &register, Some(password), &request).await {
                    // A repetition gets the same answer whether its password is right or wrong, so none is compared: the
                    // count of wrong ones, or the time of the comparison, would reveal that the address was free.
                    Ok(Registered::Now(_) | Registered::Earlier(_)) => Ok(()),
                    // A key that was used before would also reveal that its registration succeeded.
                    Err(
                        CommandError::EmailTaken
                        | CommandError::KeyOfDeleted
                        | CommandError::Failed(Failure::KeyReused),
                    ) => users.notify_owner(&register.email).await,
                    Err(error) => Err(error),
                }
            })
            .await;
        self.deps.enumeration.pad_to_step(began).await;
        answer
    }

    async fn notify_owner(&self, email: &EmailAddress) -> Result<(), CommandError> {
        // The reactor limits how often the owner is notified.
        match self.mail(Mail::AddressTaken { claim: self.log().claim_key(email) }).await {
            // A free address needs no room for a mail, so this one gets the same answer without.
            Err(CommandError::Failed(Failure::LogFull)) => Ok(()),
            enqueued => enqueued,
        }
    }

    /// Creates a user for somebody else. Without a password the user is mailed a link to choose one.
    pub async fn create(
        &self,
        register: Register,
        password: Option<Password>,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let authority = users.authority(request.actor).await?;
            let command = Command::Register(register.clone());
            if !authority.allows(&command, &UserState::Absent, &users.deps.access) {
                return Err(CommandError::Forbidden);
            }
            let client = hash_client(request.actor);
            match users.register_now(client, &register, password.clone(), &request).await? {
                Registered::Now(done) => Ok(done),
                Registered::Earlier(done) => users.same_password(client, done, password).await,
            }
        })
        .await
    }

    /// Changes another user.
    pub async fn change(
        &self,
        user: UserId,
        change: Change,
        request: Request,
    ) -> Result<Done, CommandError> {
        let command = Command::Change(change);
        self.run_detached(|users| async move {
            let authority = users.authority(request.actor).await?;
            users.carry_out(user, &command, authority, &request).await
        })
        .await
    }

    /// Applies a merge patch of name and free data to the caller.
    pub async fn change_self(
        &self,
        user: UserId,
        change: Change,
        request: Request,
    ) -> Result<Done, CommandError> {
        let command = Command::Change(change);
        self.run_detached(|users| async move {
            users.count(RateKey::By(user, UserAction::Write)).await?;
            users.carry_out(user, &command, Authority::Own, &request).await
        })
        .await
    }

    /// Deletes another user for ever. Idempotent.
    pub async fn delete(&self, user: UserId, request: Request) -> Result<Done, CommandError> {
        let command = Command::Delete;
        self.run_detached(|users| async move {
            let authority = users.authority(request.actor).await?;
            users.carry_out(user, &command, authority, &request).await
        })
        .await
    }

    /// Deletes the caller for ever, who has to prove the password.
    pub async fn delete_self(
        &self,
        caller: Caller,
        password: Option<Password>,
        request: Request,
    ) -> Result<Done, CommandError> {
        let command = Command::Delete;
        self.run_detached(|users| async move {
            let user = caller.user;
            // A deleted user has no password to prove.
            if let Some(done) = users.earlier(request.key.as_ref()).await?
                && done.after.user().is_none()
            {
                return Ok(done);
            }
            users.check_password(&caller, password).await?;
            users.carry_out(user, &command, Authority::Own, &request).await
        })
        .await
    }

    /// The user who holds an address, with their state in the log.
    pub async fn holder(
        &self,
        email: &EmailAddress,
    ) -> Result<Option<(UserId, UserState)>, CommandError> {
        match self.log().claim(email).await?.value.and_then(|claim| claim.holder()) {
            Some(user) => Ok(Some((user, self.log().load(user).await?.value))),
            None => Ok(None),
        }
    }

    /// Whether there is any active administrator.
    pub async fn has_administrator(&self) -> Result<bool, CommandError> {
        Ok(!self.log().admins().await?.value.0.is_empty())
    }

    async fn register_now(
        &self,
        client: HashClient,
        register: &Register,
        password: Option<Password>,
        request: &Request,
    ) -> Result<Registered, CommandError> {
        let password = password.as_ref();
        self.require_room()?;
        let user = UserId::from_uuid(ambient::new_uuid());
        let origin = &request.origin();
        let hash = &OnceCell::new();
        let hashed = || self.hashed(client, password);
        // Concealed, every address costs a hash before anything is looked up: a full queue of hashes rejects all of
        // them alike.
        if self.conceals_existing() && request.actor == Actor::Anonymous {
            hash.get_or_try_init(hashed).await?;
        }
        let executed = self.execute(request, || async move {
            let claim = self.claim_on(&register.email).await?;
            if claim.value.is_some() {
                return Err(CommandError::EmailTaken);
            }
            // Hashed once, and not at all for an address that is taken.
            let hash = hash.get_or_try_init(hashed).await?.clone();
            let command = Command::Register(register.clone());
            let absent = Loaded::empty(UserState::Absent);
            let change = decided(user, absent, &command, origin)?;
            self.with_registration(change, &register.email, claim.guard, hash).await
        });
        match executed.await? {
            Executed::Now(done) => Ok(Registered::Now(done)),
            Executed::Earlier(done) => self.still_present(done).await.map(Registered::Earlier),
            Executed::Erased => Err(CommandError::KeyOfDeleted),
        }
    }

    /// Adds everything that has to change together with a registration.
    pub(super) async fn with_registration(
        &self,
        mut change: UserChange,
        email: &EmailAddress,
        claim: Guard,
        hash: Option<PasswordHash>,
    ) -> Result<UserChange, CommandError> {
        let after = state(change.after.as_ref());
        let further = &mut change.further;
        further.claims = vec![ClaimChange::Hold(email.clone(), claim)];
        further.credential = hash.map(|hash| CredentialChange::Set(hash, Guard::absent()));
        further.admins = self.admins_after(change.id, &UserState::Absent, &after).await?;
        Ok(change)
    }

    /// Refuses the key of a registration whose user was deleted: a deletion is final, and a delayed request must not
    /// create the user again.
    async fn still_present(&self, done: Done) -> Result<Done, CommandError> {
        match self.log().load(done.after.user_id()).await?.value {
            UserState::Present(_) => Ok(done),
            UserState::Absent | UserState::Deleted(_) => Err(CommandError::KeyOfDeleted),
        }
    }

    async fn hashed(
        &self,
        client: HashClient,
        password: Option<&Password>,
    ) -> Result<Option<PasswordHash>, CommandError> {
        let Some(password) = password else { return Ok(None) };
        Ok(Some(self.deps.hasher.hash(client, password.clone()).await?))
    }

    /// A repeated registration proves itself by its password, which is in no fingerprint. The answer reveals whether the
    /// password is right, so it counts as an attempt to log in.
    async fn prove_registration(
        &self,
        done: Done,
        email: &EmailAddress,
        password: Password,
        from: IpAddr,
    ) -> Result<Done, CommandError> {
        let keys = [AttemptKey::Address(from), AttemptKey::Account(email)];
        let client = HashClient::network(from);
        self.attempt(&keys, self.same_password(client, done, Some(password))).await
    }

    /// Checks that it is the user's password; a request without one passes.
    pub(super) async fn same_password(
        &self,
        client: HashClient,
        done: Done,
        password: Option<Password>,
    ) -> Result<Done, CommandError> {
        let Some(password) = password else { return Ok(done) };
        let Some(user) = done.after.user() else { return Err(Rejection::NoSuchUser.into()) };
        let credential = self.log().credential(user.id).await?;
        if self.deps.hasher.verify(client, password, credential.value).await?.matches {
            Ok(done)
        } else {
            Err(CommandError::InvalidCredentials)
        }
    }

    async fn carry_out(
        &self,
        user: UserId,
        command: &Command,
        authority: Authority,
        request: &Request,
    ) -> Result<Done, CommandError> {
        let origin = &request.origin();
        self.execute_or_earlier(request, || async move {
            let loaded = self.state_for(user, command).await?;
            // The guard makes this check atomic with what is stored.
            if !authority.allows(command, &loaded.value, &self.deps.access) {
                return Err(CommandError::Forbidden);
            }
            Self::check_precondition(request, &loaded.value)?;
            self.with_consequences(decided(user, loaded, command, origin)?).await
        })
        .await
    }

    /// The state that a command is decided on. If an event cannot be read, a deletion is decided on what is known.
    async fn state_for(
        &self,
        user: UserId,
        command: &Command,
    ) -> Result<Loaded<UserState>, CommandError> {
        let mut loaded = match (self.log().load(user).await, command) {
            (Err(LogError::Damaged { reason, .. }), Command::Delete) => {
                tracing::warn!(%user, reason, "deletes a user with an event that cannot be read");
                self.log().salvage(user).await?
            }
            (loaded, _) => return Ok(loaded?),
        };
        // The record of administrators is reliable, the salvaged event may not be.
        if let UserState::Present(salvaged) = &mut loaded.value
            && self.log().admins().await?.value.0.contains(&user)
        {
            salvaged.roles = vec![ROLE_ADMIN.to_owned()];
            salvaged.status = Status::Active;
        }
        Ok(loaded)
    }

    /// The only user who may take an address: its holder, or the user for whom it is reserved. Claim and event are stored
    /// in one batch, so a claim whose holder does not have the address is a remnant of an event that was dropped or
    /// cannot be read, and is void.
    pub(super) async fn claim_on(
        &self,
        email: &EmailAddress,
    ) -> Result<Loaded<Option<UserId>>, CommandError> {
        let Loaded { value, guard, position } = self.log().claim(email).await?;
        let value = match value {
            None => None,
            Some(claim @ EmailClaim { user_id, .. }) => {
                let is_theirs = if claim.holder().is_some() {
                    let may_have = self.may_have(user_id, email).await?;
                    if !may_have {
                        tracing::warn!(holder = %user_id, "ignores the claim on an address that its holder does not have");
                    }
                    may_have
                } else if let Some(reserved) = claim.reservation(ambient::now()) {
                    self.is_reserved(user_id, reserved).await?
                } else {
                    false
                };
                is_theirs.then_some(user_id)
            }
        };
        Ok(Loaded { value, guard, position })
    }

    /// Whether a user can still undo the change that reserves an address: not after a deletion, or once it was undone.
    async fn is_reserved(&self, user: UserId, reserved: Reservation) -> Result<bool, CommandError> {
        match self.log().load(user).await {
            Ok(Loaded { value: UserState::Present(_), .. }) => {
                Ok(!self.log().undone(user).await?.value.covers(reserved.change))
            }
            Ok(_) => Ok(false),
            // Unreadable: the claim may be theirs.
            Err(LogError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    async fn may_have(&self, user: UserId, email: &EmailAddress) -> Result<bool, CommandError> {
        match self.log().load(user).await {
            Ok(Loaded { value: UserState::Present(user), .. }) => {
                let stored = EmailAddress::parse(&user.email);
                Ok(stored.is_ok_and(|stored| stored.canonical() == email.canonical()))
            }
            Ok(_) => Ok(false),
            // Unreadable: the claim may be theirs.
            Err(LogError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds everything that has to change together with the events of a command.
    async fn with_consequences(&self, mut change: UserChange) -> Result<UserChange, CommandError> {
        if change.events.is_empty() {
            return Ok(change);
        }
        let user = change.id;
        let (before, after) = (state(change.before.value.as_ref()), state(change.after.as_ref()));
        if let (UserState::Present(old), UserState::Deleted(_)) = (&before, &after) {
            change.further.claims.extend(self.release(old, None).await?);
            let stored = self.log().credential(user).await?;
            change.further.credential = Some(CredentialChange::Remove(stored.guard));
        }
        let cutoff = self.log().cutoff(user).await?;
        change.further.revocation =
            revocation(&before, &after, &cutoff.value).map(|revocation| (revocation, cutoff.guard));
        change.further.admins = self.admins_after(user, &before, &after).await?;
        Ok(change)
    }

    /// Releases a user's address.
    pub(super) async fn release(
        &self,
        user: &User,
        reserved: Option<Reservation>,
    ) -> Result<Option<ClaimChange>, CommandError> {
        // An invalid address (of an event that cannot be read) has no claim.
        let Ok(email) = EmailAddress::parse(&user.email) else { return Ok(None) };
        let held = self.log().claim(&email).await?;
        let theirs = held.value.filter(|claim| claim.holder() == Some(user.id));
        Ok(theirs.map(|claim| ClaimChange::Release(email, reserved.or(claim.reserved), held.guard)))
    }

    /// The record of administrators after a change, if the change affects it.
    pub(super) async fn admins_after(
        &self,
        user: UserId,
        before: &UserState,
        after: &UserState,
    ) -> Result<Option<(Admins, Guard)>, CommandError> {
        if Admins::counts(before) == Admins::counts(after) {
            return Ok(None);
        }
        let admins = self.log().admins().await?;
        let holders = admins.value.after(user, after)?;
        if Admins::counts(before)
            && self.has_way_in(user).await?
            && !self.any_way_in(&holders).await?
        {
            return Err(Rejection::LastAdmin.into());
        }
        Ok(Some((holders, admins.guard)))
    }

    /// Whether a user can log in. An administrator without a password cannot replace the last one who has one.
    async fn has_way_in(&self, user: UserId) -> Result<bool, CommandError> {
        Ok(self.log().credential(user).await?.value.is_some())
    }

    async fn any_way_in(&self, admins: &Admins) -> Result<bool, CommandError> {
        for admin in &admins.0 {
            if self.has_way_in(*admin).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What the caller may do to others. An access token may be older than its owner's last change, so permissions to
    /// change users are read from the log.
    pub(super) async fn authority(&self, actor: Actor) -> Result<Authority, CommandError> {
        match actor {
            Actor::System => Ok(Authority::Administrator),
            Actor::Anonymous => Err(CommandError::Forbidden),
            Actor::User(id) => {
                let actor = self.log().load(id).await?;
                Authority::of(&actor.value, &self.deps.access).ok_or(CommandError::Forbidden)
            }
        }
    }

    /// Another user whom the caller may modify.
    pub(super) async fn modifiable(
        &self,
        actor: Actor,
        user: UserId,
    ) -> Result<Loaded<UserState>, CommandError> {
        let authority = self.authority(actor).await?;
        let loaded = self.log().load(user).await?;
        if authority.may_modify(&loaded.value, &self.deps.access) {
            Ok(loaded)
        } else {
            Err(CommandError::Forbidden)
        }
    }
}

/// The client on whose behalf a password is hashed that an administrator sets for another user.
pub(super) const fn hash_client(actor: Actor) -> HashClient {
    match actor {
        Actor::User(user) => HashClient::User(user),
        Actor::System | Actor::Anonymous => HashClient::Operator,
    }
}

/// The address of a user in its canonical form.
pub(super) fn stored_address(user: &User) -> Result<EmailAddress, CommandError> {
    EmailAddress::parse(&user.email)
        .map_err(|error| CommandError::internal(format!("stored address: {error}")))
}

/// The change that a command makes of a user's state.
pub(super) fn decided(
    user: UserId,
    before: Loaded<UserState>,
    command: &Command,
    origin: &Origin,
) -> Result<UserChange, CommandError> {
    let facts = decide(&before.value, command)?;
    let before = before.map(|state| state.snapshot());
    Ok(UserChange::decided(user, before, facts, origin)?)
}

fn state(snapshot: Option<&Snapshot>) -> UserState {
    snapshot.cloned().map_or(UserState::Absent, UserState::from)
}
