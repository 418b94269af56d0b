//! Addresses: shown to be one's own, and changed.

use std::net::IpAddr;

use events::{
    Actor, Cutoff, EmailAddress, Position, Reservation, Revision, Status, UndoneChanges, User,
    UserId, UserRevocation, UserState,
};
use service_kit::ambient;
use service_kit::commands::Loaded;
use service_kit::event_log::Guard;
use service_kit::links::{Binding, LinkKind, Links, undone_revision};
use service_kit::mail_jobs::Mail;
use service_kit::tokens::Caller;

use super::idempotency::Effect;
use super::passwords::Followed;
use super::users::{decided, done, stored_address};
use super::{ATTEMPTS_MAX, CommandError, Done, Request, Users, settled};
use crate::domain::{Command, Password, Rejection};
use crate::ports::throttle::{Counted, Watched};
use crate::ports::{self, ClaimChange, CredentialChange, HashClient};

/// How whoever follows a verification link shows that the account is theirs, and not that of somebody who registered
/// with their address.
#[derive(Debug, Clone)]
pub enum AccountProof {
    /// By an access token that came with the request; of another user it shows nothing.
    Session(Caller),
    /// By the password; `None` for one that is longer than any.
    Password(Option<Password>),
    /// Not at all: with a new password, the account is theirs from now on.
    NewPassword(String),
    /// Not at all.
    Nothing,
}

/// A good link that undoes a change of address, and what has to be there still when it is used.
pub(super) struct WayBack {
    pub user: User,
    /// The address from before.
    pub address: EmailAddress,
    /// Revision of the change.
    change: Revision,
    state: Loaded<UserState>,
    undone: Loaded<UndoneChanges>,
}

impl Users {
    /// Asks for a link to verify the caller's address; nothing when it is verified.
    pub async fn request_verification(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let effect = async {
                let state = users.log().load(user).await?.value;
                Self::hold(&request, &state)?;
                match state {
                    UserState::Present(state) if state.email_verified => Ok(Effect::Nothing(())),
                    UserState::Present(_) => {
                        users.count(Counted::MailAskedBy(user)).await?;
                        users.mail(Mail::VerifyEmail { user }).await.map(Effect::Happened)
                    }
                    UserState::Absent | UserState::Deleted(_) => Err(Rejection::NoSuchUser.into()),
                }
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }

    /// Takes the address as verified. Whoever registered with an address that is not theirs must not stay inside when
    /// its owner confirms it: sessions from before end, and the password stays only if who follows the link shows
    /// that it is theirs.
    pub async fn verify_email(
        &self,
        token: String,
        proof: AccountProof,
        from: IpAddr,
        request: Request,
    ) -> Result<Done, CommandError> {
        let kinds = &[LinkKind::VerifyEmail];
        let caller = match &proof {
            AccountProof::NewPassword(new) => {
                return self.set_password_by_link(token, kinds, new.clone(), from, request).await;
            }
            AccountProof::Session(caller) => Some(caller.clone()),
            AccountProof::Password(_) | AccountProof::Nothing => None,
        };
        let client = HashClient::network(from);
        self.run_detached(|users| async move {
            for _ in 0..ATTEMPTS_MAX {
                if let Some(done) = users.earlier(request.key.as_ref()).await? {
                    return match proof {
                        AccountProof::Password(password) => {
                            users.prove_answer(client, done, password).await
                        }
                        AccountProof::Session(_)
                        | AccountProof::NewPassword(_)
                        | AccountProof::Nothing => Ok(done),
                    };
                }
                let followed = users.follow_link(&token, kinds).await?;
                if followed.asks_password() {
                    users.prove_account(client, &followed, &proof).await?;
                }
                Self::hold(&request, &followed.state.value)?;
                let user = followed.user.id;
                let request = Request { actor: Actor::User(user), ..request.clone() };
                let state = &followed.state;
                let (events, after) =
                    decided(user, &state.value, &Command::VerifyEmail, &request.origin())?;
                let mut change = ports::Change::of(user, state.guard);
                change.link = Some(followed.used);
                change.key.clone_from(&request.key);
                // Verified by another way meanwhile: the link is used up, and that is all.
                let unchanged = events.is_empty();
                if unchanged {
                    change.unchanged = Some((after.revision(), state.position));
                } else {
                    let ended = ended_by_link(&followed.cutoff.value, user, caller.as_ref());
                    change.revocation = Some((ended, followed.cutoff.guard));
                }
                change.events = events;
                if let Some(position) = settled(users.log().append(&change).await)? {
                    return done(&after, if unchanged { state.position } else { position });
                }
            }
            Err(CommandError::overloaded())
        })
        .await
    }

    /// That the account is theirs who follow the link to its address.
    async fn prove_account(
        &self,
        client: HashClient,
        followed: &Followed,
        proof: &AccountProof,
    ) -> Result<(), CommandError> {
        match proof {
            AccountProof::Session(caller) if caller.user == followed.user.id => Ok(()),
            AccountProof::Password(password) => {
                let password = password.clone().ok_or(CommandError::WrongPassword)?;
                let email = stored_address(&followed.user)?;
                self.attempt(&[Watched::Account(&email)], async {
                    let hash = followed.credential.value.clone();
                    let verified = self.parts.hasher.verify(client, password, hash).await?;
                    verified.matches.then_some(()).ok_or(CommandError::WrongPassword)
                })
                .await
            }
            AccountProof::Session(_) | AccountProof::NewPassword(_) | AccountProof::Nothing => {
                Err(CommandError::PasswordRequired)
            }
        }
    }

    /// Asks for the links of a change of address. Nothing changes yet, and whether the address is free
    /// is decided when it is confirmed.
    pub async fn request_email_change(
        &self,
        caller: Caller,
        new_email: EmailAddress,
        password: Option<Password>,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let user = caller.user;
            let loaded = users.log().load(user).await?.value;
            let UserState::Present(state) = &loaded else {
                return Err(Rejection::NoSuchUser.into());
            };
            if !state.email_verified {
                return Err(CommandError::Unverified);
            }
            // Before the password: whatever ends access from here on calls the change off.
            let epoch = Some(users.log().cutoff(user).await?.value.position);
            users.check_password(&caller, password).await?;
            let effect = async {
                Self::hold(&request, &loaded)?;
                users.count(Counted::MailAskedBy(user)).await?;
                let new_email = new_email.as_given().to_owned();
                let session = Some(caller.session);
                let mail = Mail::EmailChange { user, new_email, epoch, session };
                users.mail(mail).await.map(Effect::Happened)
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }

    /// Takes the new address, if nobody else has it by now. Every session ends, but the one of `caller` when the
    /// user confirms from within it.
    pub async fn confirm_email_change(
        &self,
        token: String,
        caller: Option<Caller>,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            for _ in 0..ATTEMPTS_MAX {
                if let Some(done) = users.earlier(request.key.as_ref()).await? {
                    return Ok(done);
                }
                let followed = users.follow_link(&token, &[LinkKind::ConfirmEmail]).await?;
                Self::hold(&request, &followed.state.value)?;
                let user = &followed.user;
                let new_email = followed.link.new_email.as_deref().unwrap_or_default();
                let new_email =
                    EmailAddress::parse(new_email).map_err(|_| CommandError::InvalidLink)?;
                let request = Request { actor: Actor::User(user.id), ..request.clone() };
                let (origin, command) = (request.origin(), Command::ChangeEmail(new_email.clone()));
                let (events, after) = decided(user.id, &followed.state.value, &command, &origin)?;
                let mut change = ports::Change::of(user.id, followed.state.guard);
                // Another spelling of the same address has the same claim.
                if new_email.canonical() != stored_address(user)?.canonical() {
                    let claim = users.free_for(user, &new_email).await?;
                    let until = origin.time.plus_seconds(users.parts.undo_link_s);
                    let reserved = Reservation { until, change: after.revision() };
                    change.claims.extend(users.release(user, Some(reserved)).await?);
                    change.claims.push(match users.reserved(user, &new_email).await? {
                        Some(kept) => ClaimChange::TakeBack(new_email, kept, claim),
                        None => ClaimChange::Hold(new_email, claim),
                    });
                }
                change.link = Some(followed.used);
                change.revocation = Some((
                    ended_by_link(&followed.cutoff.value, user.id, caller.as_ref()),
                    followed.cutoff.guard,
                ));
                change.events = events;
                change.key.clone_from(&request.key);
                if let Some(position) = settled(users.log().append(&change).await)? {
                    return done(&after, position);
                }
            }
            Err(CommandError::overloaded())
        })
        .await
    }

    /// Gives a user the address back that was changed: for an owner whose account somebody else has taken over. It ends
    /// every session and takes the password away, so that the way in is a mail to the address that is back.
    pub async fn undo_email_change(
        &self,
        token: String,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            for _ in 0..ATTEMPTS_MAX {
                if let Some(done) = users.earlier(request.key.as_ref()).await? {
                    return Ok(done);
                }
                let WayBack { user, address, change: undone_change, state, undone } =
                    users.follow_way_back(&token).await?;
                let claim = users.free_for(&user, &address).await?;
                let credential = users.log().credential(user.id).await?;
                let cutoff = users.log().cutoff(user.id).await?;
                let request = Request { actor: Actor::User(user.id), ..request.clone() };
                let command = Command::ChangeEmail(address.clone());
                let (events, after) = decided(user.id, &state.value, &command, &request.origin())?;
                let mut change = ports::Change::of(user.id, state.guard);
                // The thief's address is not reserved for whoever is back. One that an earlier change left is, still.
                change.claims.extend(users.release(&user, None).await?);
                change.claims.push(ClaimChange::Hold(address, claim));
                change.credential = Some(CredentialChange::Remove(credential.guard));
                change.revocation = Some((cutoff.value.all(), cutoff.guard));
                let record = undone.value.after(undone_change, after.revision());
                change.undone = Some((record, undone.guard));
                change.events = events;
                change.key.clone_from(&request.key);
                if let Some(position) = settled(users.log().append(&change).await)? {
                    return done(&after, position);
                }
            }
            Err(CommandError::overloaded())
        })
        .await
    }

    /// The reservation of an address for this user.
    async fn reserved(
        &self,
        user: &User,
        address: &EmailAddress,
    ) -> Result<Option<Reservation>, CommandError> {
        let claim = self.log().claim(address).await?.value.filter(|it| it.user_id == user.id);
        Ok(claim.and_then(|claim| claim.reservation(ambient::now())))
    }

    /// The guard on the claim of an address that this user may take.
    pub(super) async fn free_for(
        &self,
        user: &User,
        address: &EmailAddress,
    ) -> Result<Guard, CommandError> {
        let claim = self.claim_on(address).await?;
        match claim.value {
            Some(holder) if holder != user.id => Err(CommandError::EmailTaken),
            Some(_) | None => Ok(claim.guard),
        }
    }

    /// Checks a link that undoes a change of address. It is bound to nothing that somebody inside could change.
    pub(super) async fn follow_way_back(&self, token: &str) -> Result<WayBack, CommandError> {
        let refused = || CommandError::InvalidLink;
        let unverified = Links::read(token).ok_or_else(refused)?;
        if unverified.kind() != LinkKind::UndoEmail {
            return Err(refused());
        }
        let id = unverified.user();
        let binding =
            Binding { email: "", credential: Position::default(), cutoff: Cutoff::default() };
        let link = self.parts.links.verify(unverified, &binding, ambient::now());
        let link = link.ok_or_else(refused)?;
        let change = undone_revision(&link).ok_or_else(refused)?;
        let address = EmailAddress::parse(link.new_email.as_deref().unwrap_or_default());
        let address = address.map_err(|_| refused())?;
        let undone = self.log().undone(id).await?;
        let state = self.log().load(id).await?;
        let UserState::Present(user) = &state.value else { return Err(refused()) };
        let is_back = stored_address(user)?.canonical() == address.canonical();
        // A log that was put back may not know the change yet.
        let is_known = change <= user.revision;
        if user.status != Status::Active || is_back || !is_known || undone.value.covers(change) {
            return Err(refused());
        }
        Ok(WayBack { user: user.clone(), address, change, state, undone })
    }

    /// Calls a change of address off.
    pub async fn abort_email_change(
        &self,
        token: String,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let effect = async {
                for _ in 0..ATTEMPTS_MAX {
                    let followed = users.follow_link(&token, &[LinkKind::AbortEmail]).await?;
                    Self::hold(&request, &followed.state.value)?;
                    let mut change = ports::Change::of(followed.user.id, followed.state.guard);
                    change.link = Some(followed.used);
                    if settled(users.log().append(&change).await)?.is_some() {
                        return Ok(Effect::Happened(()));
                    }
                }
                Err(CommandError::overloaded())
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }
}

/// What a link that was followed by a user ends: every session but the one it was followed from.
fn ended_by_link(cutoff: &Cutoff, user: UserId, caller: Option<&Caller>) -> UserRevocation {
    match caller {
        Some(caller) if caller.user == user => cutoff.all_but(caller.session),
        Some(_) | None => cutoff.all(),
    }
}
