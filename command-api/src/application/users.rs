//! Register, change, delete.

use std::net::IpAddr;

use events::{
    Actor, EmailAddress, EmailClaim, Event, Origin, Position, ROLE_ADMIN, Reservation, Snapshot,
    Status, User, UserId, UserState, record,
};
use service_kit::ambient;
use service_kit::commands::{Failure, Loaded, LogError};
use service_kit::event_log::Guard;
use service_kit::mail_jobs::Mail;
use service_kit::tokens::Caller;
use tokio::time::Instant;

use super::rights::Rights;
use super::sessions::Proved;
use super::{ATTEMPTS_MAX, CommandError, Done, Granted, Request, Users, settled};
use crate::domain::{
    Admins, Change as ChangeUser, Command, Device, Password, Register, Rejection, decide,
    revocation,
};
use crate::ports::throttle::{Counted, Deed, Watched};
use crate::ports::{self, ClaimChange, CredentialChange, HashClient, PasswordHash};

/// What came of a registration.
enum Registered {
    /// The user was made by this request.
    Now(Done),
    /// The key of the request had made it before. Whoever repeats it has to prove the password before anything is
    /// answered.
    Before(Done),
}

impl Users {
    /// Makes a user with a claim on its address and a credential, all in one batch.
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
                Registered::Before(done) => {
                    let email = &register.email;
                    users.prove_registration(done, email, password, from).await
                }
            }
        })
        .await
    }

    /// Makes a user and starts a session. A repetition goes the way of a login: the user of now decides.
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
                    let user = done.user.clone().ok_or(Rejection::NoSuchUser)?;
                    (done, Proved::by_registration(lineage, user))
                }
                Registered::Before(done) => {
                    let proved = users.attempt_login(&register.email, password, device.ip).await?;
                    // The address may be somebody else's by now.
                    if proved.user().map(|user| user.id) != done.user.as_ref().map(|user| user.id) {
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

    /// Whether a registration tells nobody that an address has an account.
    pub fn conceals_existing(&self) -> bool {
        self.parts.discretion.conceal_existing
    }

    /// Whether users may log in before they have shown the address to be theirs.
    pub fn login_unverified(&self) -> bool {
        self.parts.session_rules.login_unverified
    }

    /// Makes a user, or tells the owner of the address by mail that somebody has tried to: alike in answer
    /// and time.
    pub async fn register_concealed(
        &self,
        register: Register,
        password: Password,
        from: IpAddr,
        request: Request,
    ) -> Result<(), CommandError> {
        let began = Instant::now();
        let told = self
            .run_detached(|users| async move {
                let client = HashClient::network(from);
                match users.register_now(client, &register, Some(password), &request).await {
                    // A repetition is answered alike whether its password is right or not, so none is compared: a
                    // count of wrong ones, or the time of comparing, would tell that the address was free.
                    Ok(Registered::Now(_) | Registered::Before(_)) => Ok(()),
                    // That a key was used before also tells that its registration went through.
                    Err(
                        CommandError::EmailTaken
                        | CommandError::KeyOfDeleted
                        | CommandError::Failed(Failure::KeyReused),
                    ) => users.tell_owner(&register.email).await,
                    Err(error) => Err(error),
                }
            })
            .await;
        self.parts.discretion.pad_to_step(began).await;
        told
    }

    async fn tell_owner(&self, email: &EmailAddress) -> Result<(), CommandError> {
        // However often that happens, the owner is told so often and not more: the reactor counts.
        match self.mail(Mail::AddressTaken { claim: self.log().claim_key(email) }).await {
            // A free address needs no room for a mail, and the answer stays the same.
            Err(CommandError::Failed(Failure::LogFull)) => Ok(()),
            told => told,
        }
    }

    /// Makes a user for somebody else. Without a password the user is mailed a link to choose one.
    pub async fn create(
        &self,
        register: Register,
        password: Option<Password>,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let rights = users.rights(request.actor).await?;
            let command = Command::Register(register.clone());
            if !rights.allow(&command, &UserState::Absent, &users.parts.access) {
                return Err(CommandError::Forbidden);
            }
            let client = hash_client(request.actor);
            match users.register_now(client, &register, password.clone(), &request).await? {
                Registered::Now(done) => Ok(done),
                Registered::Before(done) => users.same_password(client, done, password).await,
            }
        })
        .await
    }

    /// Changes another user.
    pub async fn change(
        &self,
        user: UserId,
        change: ChangeUser,
        request: Request,
    ) -> Result<Done, CommandError> {
        let command = Command::Change(change);
        self.run_detached(|users| async move {
            let rights = users.rights(request.actor).await?;
            users.carry_out(user, &command, rights, &request).await
        })
        .await
    }

    /// Applies a merge patch of name and free data to the caller.
    pub async fn change_self(
        &self,
        user: UserId,
        change: ChangeUser,
        request: Request,
    ) -> Result<Done, CommandError> {
        let command = Command::Change(change);
        self.run_detached(|users| async move {
            users.count(Counted::By(user, Deed::Write)).await?;
            users.carry_out(user, &command, Rights::Own, &request).await
        })
        .await
    }

    /// Deletes another user for ever. Again is as good as once.
    pub async fn delete(&self, user: UserId, request: Request) -> Result<Done, CommandError> {
        let command = Command::Delete;
        self.run_detached(|users| async move {
            let rights = users.rights(request.actor).await?;
            users.carry_out(user, &command, rights, &request).await
        })
        .await
    }

    /// Deletes the caller for ever, who has to know the password.
    pub async fn delete_self(
        &self,
        caller: Caller,
        password: Option<Password>,
        request: Request,
    ) -> Result<Done, CommandError> {
        let command = Command::Delete;
        self.run_detached(|users| async move {
            let user = caller.user;
            // Whoever is gone has no password to prove any more.
            if let Some(done) = users.earlier(request.key.as_ref()).await?
                && done.user.is_none()
            {
                return Ok(done);
            }
            users.check_password(&caller, password).await?;
            users.carry_out(user, &command, Rights::Own, &request).await
        })
        .await
    }

    /// Who has an address, and what the log says of them.
    pub async fn holder(
        &self,
        email: &EmailAddress,
    ) -> Result<Option<(UserId, UserState)>, CommandError> {
        match self.log().claim(email).await?.value.and_then(|claim| claim.holder()) {
            Some(user) => Ok(Some((user, self.log().load(user).await?.value))),
            None => Ok(None),
        }
    }

    /// Whether any active administrator exists.
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
        self.require_room()?;
        let _running = self.in_flight.start(request.key.as_ref())?;
        let user = UserId::from_uuid(ambient::new_uuid());
        let origin = request.origin();
        let mut hash: Option<PasswordHash> = None;
        // Concealed, every address costs a hash before anything is looked up: a full queue of hashes refuses
        // all of them alike.
        if self.conceals_existing() && request.actor == Actor::Anonymous {
            hash = self.hashed(client, password.as_ref()).await?;
        }
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.earlier_registration(request.key.as_ref()).await? {
                return Ok(Registered::Before(done));
            }
            let claim = self.claim_on(&register.email).await?;
            if claim.value.is_some() {
                return Err(CommandError::EmailTaken);
            }
            // Hashed once, and not at all for an address that is taken.
            if hash.is_none() {
                hash = self.hashed(client, password.as_ref()).await?;
            }
            let command = Command::Register(register.clone());
            let (events, state) = decided(user, &UserState::Absent, &command, &origin)?;
            let mut change = ports::Change::of(user, Guard::absent());
            change.claims = vec![ClaimChange::Hold(register.email.clone(), claim.guard)];
            change.credential =
                hash.clone().map(|hash| CredentialChange::Set(hash, Guard::absent()));
            change.admins = self.admins_after(user, &UserState::Absent, &state).await?;
            change.key.clone_from(&request.key);
            change.events = events;
            if let Some(position) = settled(self.log().append(&change).await)? {
                return Ok(Registered::Now(done(&state, position)?));
            }
        }
        Err(CommandError::overloaded())
    }

    async fn hashed(
        &self,
        client: HashClient,
        password: Option<&Password>,
    ) -> Result<Option<PasswordHash>, CommandError> {
        let Some(password) = password else { return Ok(None) };
        Ok(Some(self.parts.hasher.hash(client, password.clone()).await?))
    }

    /// A repeated registration proves itself by its password, which no fingerprint keeps. It tells whether the
    /// password is right, so it counts as a login does.
    async fn prove_registration(
        &self,
        done: Done,
        email: &EmailAddress,
        password: Password,
        from: IpAddr,
    ) -> Result<Done, CommandError> {
        let watched = [Watched::Address(from), Watched::Account(email)];
        let client = HashClient::network(from);
        self.attempt(&watched, self.same_password(client, done, Some(password))).await
    }

    /// That it is the user's password; nothing for a request that brings none.
    pub(super) async fn same_password(
        &self,
        client: HashClient,
        done: Done,
        password: Option<Password>,
    ) -> Result<Done, CommandError> {
        let Some(password) = password else { return Ok(done) };
        let Some(user) = &done.user else { return Err(Rejection::NoSuchUser.into()) };
        let credential = self.log().credential(user.id).await?;
        if self.parts.hasher.verify(client, password, credential.value).await?.matches {
            Ok(done)
        } else {
            Err(CommandError::InvalidCredentials)
        }
    }

    async fn carry_out(
        &self,
        user: UserId,
        command: &Command,
        rights: Rights,
        request: &Request,
    ) -> Result<Done, CommandError> {
        let _running = self.in_flight.start(request.key.as_ref())?;
        let origin = request.origin();
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.earlier(request.key.as_ref()).await? {
                return Ok(done);
            }
            let loaded = self.state_for(user, command).await?;
            // The guard holds this together with what is stored.
            if !rights.allow(command, &loaded.value, &self.parts.access) {
                return Err(CommandError::Forbidden);
            }
            Self::hold(request, &loaded.value)?;
            let (events, state) = decided(user, &loaded.value, command, &origin)?;
            if events.is_empty() {
                if let Some(done) = self.unchanged(user, &loaded, request).await? {
                    return Ok(done);
                }
                continue;
            }
            let change = self.change_of(user, loaded, &state, events, request).await?;
            if let Some(position) = settled(self.log().append(&change).await)? {
                return done(&state, position);
            }
        }
        Err(CommandError::overloaded())
    }

    /// The answer of a command that found everything as wished, kept under its key. `None` when somebody used the
    /// key meanwhile.
    async fn unchanged(
        &self,
        user: UserId,
        loaded: &Loaded<UserState>,
        request: &Request,
    ) -> Result<Option<Done>, CommandError> {
        let answer = done(&loaded.value, loaded.position)?;
        let Some(key) = &request.key else { return Ok(Some(answer)) };
        let mut change = ports::Change::of(user, loaded.guard);
        change.key = Some(key.clone());
        change.unchanged = Some((answer.revision, answer.position));
        Ok(settled(self.log().append(&change).await)?.map(|_| answer))
    }

    /// The state that a command is decided on. A deletion is decided on what can be known when an event cannot be read.
    async fn state_for(
        &self,
        user: UserId,
        command: &Command,
    ) -> Result<Loaded<UserState>, CommandError> {
        let mut loaded = match (self.log().load(user).await, command) {
            (Err(LogError::Damaged { reason, .. }), Command::Delete) => {
                tracing::warn!(%user, reason, "deletes a user of whom an event cannot be read");
                self.log().salvage(user).await?
            }
            (loaded, _) => return Ok(loaded?),
        };
        // The record of administrators is right where the event may not be.
        if let UserState::Present(salvaged) = &mut loaded.value
            && self.log().admins().await?.value.0.contains(&user)
        {
            salvaged.roles = vec![ROLE_ADMIN.to_owned()];
            salvaged.status = Status::Active;
        }
        Ok(loaded)
    }

    /// Who alone may take an address: the user who has it, or for whom it is reserved. Claim and event are stored in
    /// one batch, so a claim whose holder does not have the address is left of an event that was dropped or could not
    /// be read, and holds nothing.
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
                        tracing::warn!(holder = %user_id, "takes a claim for free whose holder does not have the address");
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

    /// Whether a user can still undo the change that reserves an address: not once they are deleted, or it was undone.
    async fn is_reserved(&self, user: UserId, reserved: Reservation) -> Result<bool, CommandError> {
        match self.log().load(user).await {
            Ok(Loaded { value: UserState::Present(_), .. }) => {
                Ok(!self.log().undone(user).await?.value.covers(reserved.change))
            }
            Ok(_) => Ok(false),
            // Nobody knows what it says.
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
            // Nobody knows what it says.
            Err(LogError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error.into()),
        }
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
        let mut change = ports::Change::of(user, before.guard);
        if let (UserState::Present(old), UserState::Deleted(_)) = (&before.value, after) {
            change.claims.extend(self.release(old, None).await?);
            let stored = self.log().credential(user).await?;
            change.credential = Some(CredentialChange::Remove(stored.guard));
        }
        let cutoff = self.log().cutoff(user).await?;
        change.revocation = revocation(&before.value, after, &cutoff.value)
            .map(|revocation| (revocation, cutoff.guard));
        change.admins = self.admins_after(user, &before.value, after).await?;
        change.key.clone_from(&request.key);
        change.events = events;
        Ok(change)
    }

    /// Gives a user's address up.
    pub(super) async fn release(
        &self,
        user: &User,
        reserved: Option<Reservation>,
    ) -> Result<Option<ClaimChange>, CommandError> {
        // An address that is none (of an event that cannot be read) is not claimed.
        let Ok(email) = EmailAddress::parse(&user.email) else { return Ok(None) };
        let held = self.log().claim(&email).await?;
        let theirs = held.value.filter(|claim| claim.holder() == Some(user.id));
        Ok(theirs.map(|claim| ClaimChange::Release(email, reserved.or(claim.reserved), held.guard)))
    }

    /// The record of administrators, when this change touches it.
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

    /// Whether a user has a password to log in with. Who has none yet is no help to anybody.
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

    /// What the caller may do to others. A token may be older than the last change of its owner: what may
    /// change users is asked of the log.
    pub(super) async fn rights(&self, actor: Actor) -> Result<Rights, CommandError> {
        match actor {
            Actor::System => Ok(Rights::Administrator),
            Actor::Anonymous => Err(CommandError::Forbidden),
            Actor::User(id) => {
                let actor = self.log().load(id).await?;
                Rights::over_others(&actor.value, &self.parts.access).ok_or(CommandError::Forbidden)
            }
        }
    }

    /// Another user, whom the caller may touch.
    pub(super) async fn reachable(
        &self,
        actor: Actor,
        user: UserId,
    ) -> Result<Loaded<UserState>, CommandError> {
        let rights = self.rights(actor).await?;
        let loaded = self.log().load(user).await?;
        if rights.reach(&loaded.value, &self.parts.access) {
            Ok(loaded)
        } else {
            Err(CommandError::Forbidden)
        }
    }
}

/// For whom passwords are hashed that somebody gives others.
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

pub(super) fn decided(
    user: UserId,
    state: &UserState,
    command: &Command,
    origin: &Origin,
) -> Result<(Vec<Event>, UserState), CommandError> {
    let facts = decide(state, command)?;
    let (events, after) = record(user, state.snapshot(), facts, origin, ambient::new_uuid)
        .map_err(CommandError::internal)?;
    Ok((events, after.map_or(UserState::Absent, UserState::from)))
}

pub(super) fn done(state: &UserState, position: Position) -> Result<Done, CommandError> {
    let user = match state.snapshot() {
        Some(Snapshot::Present(user)) => Some(user),
        Some(Snapshot::Deleted(_)) => None,
        None => return Err(Rejection::NoSuchUser.into()),
    };
    Ok(Done { user, revision: state.revision(), position })
}
