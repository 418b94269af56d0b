//! Passwords: changed by a user who knows the old one, or set by a link from a mail.

use std::net::IpAddr;

use events::{Actor, Cutoff, EmailAddress, Status, User, UserId, UserState};
use service_kit::ambient;
use service_kit::commands::{Executed, Loaded};
use service_kit::links::{Binding, Link, LinkKind, Links};
use service_kit::mail_jobs::Mail;
use service_kit::security::{Kind, Outcome, SecurityEvent};
use service_kit::tokens::Caller;
use tokio::sync::OnceCell;

use super::idempotency::Effect;
use super::users::{decided, stored_address};
use super::{CommandError, Done, Request, Users};
use crate::domain::{Command, Password, Rejection};
use crate::ports::throttle::{AttemptKey, RateKey, UserAction};
use crate::ports::{CredentialChange, HashClient, PasswordHash, UsedLink};

/// A valid link, with everything that must be unchanged when it is used.
pub(super) struct CheckedLink {
    pub link: Link,
    pub user: User,
    pub state: Loaded<UserState>,
    pub credential: Loaded<Option<PasswordHash>>,
    pub cutoff: Loaded<Cutoff>,
    pub used: UsedLink,
}

impl CheckedLink {
    /// Whether the account has a password that may not be the owner's: the address was never verified.
    pub(super) const fn asks_password(&self) -> bool {
        !self.user.email_verified && self.credential.value.is_some()
    }
}

/// The user of a link.
#[derive(Debug, Clone)]
pub struct LinkOwner {
    /// The user.
    pub user: User,
    /// Whether verifying the address also needs the password, or a new one.
    pub asks_password: bool,
}

impl Users {
    /// Replaces the caller's password. The caller's session continues, every other one ends.
    pub async fn change_password(
        &self,
        caller: Caller,
        current: Option<Password>,
        new: String,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let (users, user) = (&users, caller.user);
            let client = HashClient::User(user);
            let (caller, current, origin) = (&caller, &current, &request.origin());
            let (new, hash, request) = (&new, &OnceCell::new(), &request);
            let executed = users.execute(request, || async move {
                let credential = users.check_password(caller, current.clone()).await?;
                let loaded = users.log().load(user).await?;
                Self::check_precondition(request, &loaded.value)?;
                let UserState::Present(state) = &loaded.value else {
                    return Err(Rejection::NoSuchUser.into());
                };
                let new = users.validate_password(client, new, state).await?;
                // The present password was just compared, so equal passwords have equal texts.
                if current.as_ref().is_some_and(|current| current.as_bytes() == new.as_bytes()) {
                    return Err(same_password());
                }
                let hash = users.hashed_once(hash, client, new).await?;
                let cutoff = users.log().cutoff(user).await?;
                let command = Command::ChangePassword { by_link: false };
                let mut change = decided(user, loaded, &command, origin)?;
                let further = &mut change.further;
                further.credential = Some(CredentialChange::Set(hash, credential.guard));
                further.revocation = Some((cutoff.value.all_but(caller.session), cutoff.guard));
                Ok(change)
            });
            match executed.await? {
                Executed::Earlier(done) => {
                    // The old password is gone; the new one proves that it is the same caller.
                    let keys = [AttemptKey::Caller(user, caller.session)];
                    let new = Password::given(new).ok_or(CommandError::InvalidCredentials)?;
                    users.attempt(&keys, users.same_password(client, done, Some(new))).await
                }
                executed @ (Executed::Now(_) | Executed::Erased) => {
                    executed.done_or(|| Rejection::NoSuchUser.into())
                }
            }
        })
        .await
    }

    /// Hashes a password once, however often the command is decided.
    async fn hashed_once(
        &self,
        hash: &OnceCell<PasswordHash>,
        client: HashClient,
        new: Password,
    ) -> Result<PasswordHash, CommandError> {
        Ok(hash.get_or_try_init(|| self.deps.hasher.hash(client, new)).await?.clone())
    }

    /// Checks that a client that repeats a password change knows the password that it set.
    pub async fn prove(
        &self,
        caller: Caller,
        password: Option<Password>,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            match users.check_password(&caller, password).await {
                Err(CommandError::WrongPassword) => Err(CommandError::InvalidCredentials),
                checked => checked.map(drop),
            }
        })
        .await
    }

    /// Checks that the caller knows the password. Returns the credential that it was compared with.
    pub(super) async fn check_password(
        &self,
        caller: &Caller,
        password: Option<Password>,
    ) -> Result<Loaded<Option<PasswordHash>>, CommandError> {
        let Some(password) = password else { return Err(CommandError::WrongPassword) };
        let user = caller.user;
        let keys = [AttemptKey::Caller(user, caller.session)];
        let proving = self.attempt(&keys, async {
            let credential = self.log().credential(user).await?;
            if self
                .deps
                .hasher
                .verify(HashClient::User(user), password, credential.value.clone())
                .await?
                .matches
            {
                Ok(credential)
            } else {
                let wrong = SecurityEvent::new(Kind::PasswordCheck, Outcome::Refused);
                self.record(wrong.because("wrong-password").about(user));
                Err(CommandError::WrongPassword)
            }
        });
        let credential = proving.await?;
        self.count(RateKey::By(user, UserAction::PasswordCheck)).await?;
        Ok(credential)
    }

    /// Enqueues a mail with a link to a new password. The mailer checks whether a user has the address and how many mails
    /// it got: here every address costs the same.
    pub async fn request_password_reset(
        &self,
        email: EmailAddress,
        from: IpAddr,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            users.count(RateKey::ResetRequestFrom(from)).await?;
            let asked = SecurityEvent::new(Kind::PasswordResetRequested, Outcome::Succeeded);
            users.record(asked.with_address(email.clone()));
            let effect = async {
                let claim = users.log().claim_key(&email);
                users.mail(Mail::ResetPassword { claim }).await.map(Effect::Happened)
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }

    /// Enqueues a mail to another user with a link to a first or new password.
    pub async fn send_password_link(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let state = users.modifiable(request.actor, user).await?.value;
            let effect = async {
                Self::check_precondition(&request, &state)?;
                match state {
                    UserState::Present(_) => {
                        users.mail(Mail::SetPassword { user }).await.map(Effect::Happened)
                    }
                    UserState::Absent | UserState::Deleted(_) => Err(Rejection::NoSuchUser.into()),
                }
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }

    /// Sets the password by a link from a mail. Every session ends; none starts.
    pub async fn reset_password(
        &self,
        token: String,
        new: String,
        from: IpAddr,
        request: Request,
    ) -> Result<Done, CommandError> {
        let kinds = &[LinkKind::ResetPassword, LinkKind::SetPassword];
        self.set_password_by_link(token, kinds, new, from, request).await
    }

    /// The same by a link of any of these kinds. It proves access to the mailbox, so the address is verified.
    pub(super) async fn set_password_by_link(
        &self,
        token: String,
        kinds: &'static [LinkKind],
        new: String,
        from: IpAddr,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let (users, client) = (&users, HashClient::network(from));
            let (token, new, request) = (&token, &new, &request);
            let hash = &OnceCell::new();
            let executed = users.execute(request, || async move {
                let link = users.check_link(token, kinds).await?;
                Self::check_precondition(request, &link.state.value)?;
                let new = users.validate_password(client, new, &link.user).await?;
                if let Some(present) = link.credential.value.clone()
                    && users.deps.hasher.verify(client, new.clone(), Some(present)).await?.matches
                {
                    return Err(same_password());
                }
                let hash = users.hashed_once(hash, client, new).await?;
                let user = link.user.id;
                let command = Command::ChangePassword { by_link: true };
                let origin = request.by(Actor::User(user)).origin();
                let mut change = decided(user, link.state, &command, &origin)?;
                let further = &mut change.further;
                further.credential = Some(CredentialChange::Set(hash, link.credential.guard));
                further.link = Some(link.used);
                further.revocation = Some((link.cutoff.value.all(), link.cutoff.guard));
                Ok(change)
            });
            match executed.await? {
                Executed::Now(done) => {
                    // The mailbox proves ownership, whatever others have tried meanwhile.
                    if let Some(user) = done.after.user()
                        && let email = stored_address(user)?
                        && let Err(error) = users.deps.throttle.clear(&email, user.id).await
                    {
                        tracing::warn!(%error, "failed logins are still counted after a reset");
                    }
                    Ok(done)
                }
                Executed::Earlier(done) => {
                    users.prove_answer(client, done, Password::given(new)).await
                }
                Executed::Erased => Err(Rejection::NoSuchUser.into()),
            }
        })
        .await
    }

    /// A repeated request with a password proves itself by that password before it gets an answer; a reset by the one
    /// that it set. The answer reveals whether the password is right, so it counts as an attempt to log in.
    pub(super) async fn prove_answer(
        &self,
        client: HashClient,
        done: Done,
        password: Option<Password>,
    ) -> Result<Done, CommandError> {
        let user = done.after.user().cloned().ok_or(Rejection::NoSuchUser)?;
        let password = password.ok_or(CommandError::InvalidCredentials)?;
        let email = stored_address(&user)?;
        let keys = [AttemptKey::Account(&email)];
        self.attempt(&keys, self.same_password(client, done, Some(password))).await
    }

    /// The user of a valid link, for the page that it opens.
    pub async fn link_owner(
        &self,
        token: String,
        kind: LinkKind,
    ) -> Result<LinkOwner, CommandError> {
        self.run_detached(|users| async move {
            if kind == LinkKind::UndoEmail {
                let link = users.check_undo_link(&token).await?;
                // Not offered if it cannot be done.
                users.free_for(&link.user, &link.address).await?;
                // The address that the mail went to: its reader must not learn the present one.
                let user = User { email: link.address.as_given().to_owned(), ..link.user };
                return Ok(LinkOwner { user, asks_password: false });
            }
            let link = users.check_link(&token, &[kind]).await?;
            let asks_password = kind == LinkKind::VerifyEmail && link.asks_password();
            Ok(LinkOwner { user: link.user, asks_password })
        })
        .await
    }

    /// Checks a link against everything that may have changed since it was sent.
    pub(super) async fn check_link(
        &self,
        token: &str,
        kinds: &[LinkKind],
    ) -> Result<CheckedLink, CommandError> {
        let refused = || CommandError::InvalidLink;
        let unverified = Links::read(token).ok_or_else(refused)?;
        if !kinds.contains(&unverified.kind()) {
            return Err(refused());
        }
        let id = unverified.user();
        let purpose = unverified.kind().purpose().ok_or_else(refused)?;
        let record = self.log().link(purpose, id).await?;
        let state = self.log().load(id).await?;
        let credential = self.log().credential(id).await?;
        let cutoff = self.log().cutoff(id).await?;
        let UserState::Present(user) = &state.value else { return Err(refused()) };
        if user.status != Status::Active {
            return Err(refused());
        }
        let email = stored_address(user)?;
        let binding = Binding {
            email: email.canonical(),
            credential: credential.position,
            cutoff: cutoff.value,
        };
        let link = self.deps.links.verify(unverified, &binding, ambient::now());
        let (Some(link), Some(known)) = (link, record.value) else { return Err(refused()) };
        if known.serial != Some(link.serial) {
            return Err(refused());
        }
        // The end of a session cancels what was requested in it. The link that cancels it stays valid.
        if link.kind == LinkKind::ConfirmEmail
            && let Some(session) = known.session
            && self.has_ended(id, session).await?
        {
            return Err(refused());
        }
        let used = UsedLink { purpose, record: known, guard: record.guard };
        let user = user.clone();
        Ok(CheckedLink { link, user, state, credential, cutoff, used })
    }
}

/// Rejects the present password as a new one: a change of nothing would end sessions and send a notice at no cost.
fn same_password() -> CommandError {
    let why = "is the password that the account has already".to_owned();
    Rejection::Invalid("new_password", "same-password", why).into()
}
