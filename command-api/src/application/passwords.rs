//! Passwords: changed by who knows the old one, or chosen anew by who has the link from a mail.

use std::net::IpAddr;

use events::{Actor, Cutoff, EmailAddress, Status, User, UserId, UserState};
use service_kit::ambient;
use service_kit::commands::Loaded;
use service_kit::links::{Binding, Link, LinkKind, Links};
use service_kit::mail_jobs::Mail;
use service_kit::security::{Kind, Outcome, SecurityEvent};
use service_kit::tokens::Caller;

use super::idempotency::Effect;
use super::users::{decided, done, stored_address};
use super::{ATTEMPTS_MAX, CommandError, Done, Request, Users, settled};
use crate::domain::{Command, Password, Rejection};
use crate::ports::throttle::{Counted, Deed, Watched};
use crate::ports::{self, CredentialChange, HashClient, PasswordHash, UsedLink};

/// A link that is good, and what has to be there still when it is used.
pub(super) struct Followed {
    pub link: Link,
    pub user: User,
    pub state: Loaded<UserState>,
    pub credential: Loaded<Option<PasswordHash>>,
    pub cutoff: Loaded<Cutoff>,
    pub used: UsedLink,
}

impl Followed {
    /// Whether somebody could be inside with a password that nobody has shown to be the owner's.
    pub(super) const fn asks_password(&self) -> bool {
        !self.user.email_verified && self.credential.value.is_some()
    }
}

/// Whose link a token is.
#[derive(Debug, Clone)]
pub struct LinkOwner {
    /// The user.
    pub user: User,
    /// Whether verifying the address takes the password too, or a new one.
    pub asks_password: bool,
}

impl Users {
    /// Replaces the caller's password. The caller's session goes on, every other one ends.
    pub async fn change_password(
        &self,
        caller: Caller,
        current: Option<Password>,
        new: String,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let user = caller.user;
            let client = HashClient::User(user);
            let mut hash: Option<PasswordHash> = None;
            for _ in 0..ATTEMPTS_MAX {
                if let Some(done) = users.earlier(request.key.as_ref()).await? {
                    // The password before is gone; the one that the request has set proves it.
                    let watched = [Watched::Caller(user, caller.session)];
                    let new = Password::given(&new).ok_or(CommandError::InvalidCredentials)?;
                    return users
                        .attempt(&watched, users.same_password(client, done, Some(new)))
                        .await;
                }
                let credential = users.check_password(&caller, current.clone()).await?;
                let loaded = users.log().load(user).await?;
                Self::hold(&request, &loaded.value)?;
                let UserState::Present(state) = &loaded.value else {
                    return Err(Rejection::NoSuchUser.into());
                };
                let new = users.validate_password(client, &new, state).await?;
                // The present one was right just now, so equal passwords have equal texts.
                if current.as_ref().is_some_and(|current| current.as_bytes() == new.as_bytes()) {
                    return Err(same_password());
                }
                let hash = match &hash {
                    Some(hash) => hash.clone(),
                    None => hash.insert(users.parts.hasher.hash(client, new).await?).clone(),
                };
                let cutoff = users.log().cutoff(user).await?;
                let command = Command::ChangePassword { by_link: false };
                let (events, state) = decided(user, &loaded.value, &command, &request.origin())?;
                let mut change = ports::Change::of(user, loaded.guard);
                change.credential = Some(CredentialChange::Set(hash, credential.guard));
                change.revocation = Some((cutoff.value.all_but(caller.session), cutoff.guard));
                change.events = events;
                change.key.clone_from(&request.key);
                if let Some(position) = settled(users.log().append(&change).await)? {
                    return done(&state, position);
                }
            }
            Err(CommandError::overloaded())
        })
        .await
    }

    /// That whoever repeats a change of password knows the password that it set.
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

    /// That the caller knows the password; the credential it was compared with.
    pub(super) async fn check_password(
        &self,
        caller: &Caller,
        password: Option<Password>,
    ) -> Result<Loaded<Option<PasswordHash>>, CommandError> {
        let Some(password) = password else { return Err(CommandError::WrongPassword) };
        let user = caller.user;
        let watched = [Watched::Caller(user, caller.session)];
        let proving = self.attempt(&watched, async {
            let credential = self.log().credential(user).await?;
            if self
                .parts
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
        self.count(Counted::By(user, Deed::PasswordCheck)).await?;
        Ok(credential)
    }

    /// Asks for a link to a new password. Whether anybody has the address, and how many mails it got, is for the
    /// mailer to find out: here every address costs the same.
    pub async fn request_password_reset(
        &self,
        email: EmailAddress,
        from: IpAddr,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            users.count(Counted::ResetRequestFrom(from)).await?;
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

    /// Asks for a link to a first or new password of another user.
    pub async fn send_password_link(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let state = users.reachable(request.actor, user).await?.value;
            let effect = async {
                Self::hold(&request, &state)?;
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

    /// Sets the password by a link from a mail. Every session ends; none begins.
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

    /// The same by a link of any of these kinds. Whoever follows it has the mailbox: the address is verified.
    pub(super) async fn set_password_by_link(
        &self,
        token: String,
        kinds: &'static [LinkKind],
        new: String,
        from: IpAddr,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let client = HashClient::network(from);
            let mut hash: Option<PasswordHash> = None;
            for _ in 0..ATTEMPTS_MAX {
                if let Some(done) = users.earlier(request.key.as_ref()).await? {
                    return users.prove_answer(client, done, Password::given(&new)).await;
                }
                let followed = users.follow_link(&token, kinds).await?;
                Self::hold(&request, &followed.state.value)?;
                let new = users.validate_password(client, &new, &followed.user).await?;
                if let Some(present) = followed.credential.value.clone()
                    && users.parts.hasher.verify(client, new.clone(), Some(present)).await?.matches
                {
                    return Err(same_password());
                }
                let hash = match &hash {
                    Some(hash) => hash.clone(),
                    None => hash.insert(users.parts.hasher.hash(client, new).await?).clone(),
                };
                let user = followed.user.id;
                let cutoff = followed.cutoff;
                let command = Command::ChangePassword { by_link: true };
                let request = Request { actor: Actor::User(user), ..request.clone() };
                let (events, state) =
                    decided(user, &followed.state.value, &command, &request.origin())?;
                let mut change = ports::Change::of(user, followed.state.guard);
                change.credential = Some(CredentialChange::Set(hash, followed.credential.guard));
                change.link = Some(followed.used);
                change.revocation = Some((cutoff.value.all(), cutoff.guard));
                change.events = events;
                change.key.clone_from(&request.key);
                if let Some(position) = settled(users.log().append(&change).await)? {
                    // Whoever has the mailbox is the owner, whatever others have tried meanwhile.
                    let email = stored_address(&followed.user)?;
                    if let Err(error) = users.parts.throttle.clear(&email, user).await {
                        tracing::warn!(%error, "failed logins are still counted after a reset");
                    }
                    return done(&state, position);
                }
            }
            Err(CommandError::overloaded())
        })
        .await
    }

    /// A repeated request with a password proves itself by it before anything is answered: a reset by the one that
    /// it has set. The answer tells whether it is right, so it counts as a login does.
    pub(super) async fn prove_answer(
        &self,
        client: HashClient,
        done: Done,
        password: Option<Password>,
    ) -> Result<Done, CommandError> {
        let user = done.user.clone().ok_or(Rejection::NoSuchUser)?;
        let password = password.ok_or(CommandError::InvalidCredentials)?;
        let email = stored_address(&user)?;
        let watched = [Watched::Account(&email)];
        self.attempt(&watched, self.same_password(client, done, Some(password))).await
    }

    /// Whose link a token is, if it is good: what the page behind it shows.
    pub async fn link_owner(
        &self,
        token: String,
        kind: LinkKind,
    ) -> Result<LinkOwner, CommandError> {
        self.run_detached(|users| async move {
            if kind == LinkKind::UndoEmail {
                let back = users.follow_way_back(&token).await?;
                // Not to be offered when it cannot be done.
                users.free_for(&back.user, &back.address).await?;
                // The address that the mail went to: its reader need not learn the present one.
                let user = User { email: back.address.as_given().to_owned(), ..back.user };
                return Ok(LinkOwner { user, asks_password: false });
            }
            let followed = users.follow_link(&token, &[kind]).await?;
            let asks_password = kind == LinkKind::VerifyEmail && followed.asks_password();
            Ok(LinkOwner { user: followed.user, asks_password })
        })
        .await
    }

    /// Checks a link against everything that may have changed since it was sent.
    pub(super) async fn follow_link(
        &self,
        token: &str,
        kinds: &[LinkKind],
    ) -> Result<Followed, CommandError> {
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
        let link = self.parts.links.verify(unverified, &binding, ambient::now());
        let (Some(link), Some(known)) = (link, record.value) else { return Err(refused()) };
        if known.serial != Some(link.serial) {
            return Err(refused());
        }
        // Whoever ends a session calls off what was asked for in it. The link that calls it off stays good.
        if link.kind == LinkKind::ConfirmEmail
            && let Some(session) = known.session
            && self.has_ended(id, session).await?
        {
            return Err(refused());
        }
        let used = UsedLink { purpose, record: known, guard: record.guard };
        let user = user.clone();
        Ok(Followed { link, user, state, credential, cutoff, used })
    }
}

/// The present password is no new one: changing nothing would end sessions and send a notice, as often as anybody likes.
fn same_password() -> CommandError {
    let why = "is the password that the account has already".to_owned();
    Rejection::Invalid("new_password", "same-password", why).into()
}
