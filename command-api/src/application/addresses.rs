//! E-mail addresses: verified and changed.

use std::net::IpAddr;

use events::{
    Actor, Cutoff, EmailAddress, Position, Reservation, Revision, Status, UndoneChanges, User,
    UserId, UserRevocation, UserState,
};
use service_kit::ambient;
use service_kit::commands::{Executed, Loaded, settled, until_settled};
use service_kit::event_log::Guard;
use service_kit::links::{Binding, LinkKind, Links, undone_revision};
use service_kit::mail_jobs::Mail;
use service_kit::tokens::Caller;

use super::idempotency::Effect;
use super::passwords::CheckedLink;
use super::users::{decided, stored_address};
use super::{CommandError, Done, Request, Users};
use crate::domain::{Command, Password, Rejection};
use crate::ports::throttle::{AttemptKey, RateKey};
use crate::ports::{ClaimChange, CredentialChange, HashClient, UserChange, UserWrites};

/// How the reader of a verification link proves that they registered the account, and not somebody else with their
/// address.
#[derive(Debug, Clone)]
pub enum AccountProof {
    /// By the access token of the request; one of another user proves nothing.
    Session(Caller),
    /// By the password; `None` for one that is too long to be anyone's.
    Password(Option<Password>),
    /// By taking the account over with a new password.
    NewPassword(String),
    /// No proof.
    Nothing,
}

/// A valid link that undoes a change of address, with everything that must be unchanged when it is used.
pub(super) struct UndoLink {
    pub user: User,
    /// The previous address.
    pub address: EmailAddress,
    /// Revision of the change.
    change: Revision,
    state: Loaded<UserState>,
    undone: Loaded<UndoneChanges>,
}

impl Users {
    /// Enqueues a mail with a link to verify the caller's address, unless it is verified.
    pub async fn request_verification(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let effect = async {
                let state = users.log().load(user).await?.value;
                Self::check_precondition(&request, &state)?;
                match state {
                    UserState::Present(state) if state.email_verified => Ok(Effect::Nothing(())),
                    UserState::Present(_) => {
                        users.count(RateKey::MailAskedBy(user)).await?;
                        users.mail(Mail::VerifyEmail { user }).await.map(Effect::Happened)
                    }
                    UserState::Absent | UserState::Deleted(_) => Err(Rejection::NoSuchUser.into()),
                }
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }

    /// Marks the address as verified. Somebody who registered with another person's address must not stay logged in once
    /// its owner confirms it: earlier sessions end, and the password stays only if the reader of the link proves that it
    /// is theirs.
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
            let (users, token, request) = (&users, &token, &request);
            let (proof_given, caller) = (&proof, caller.as_ref());
            let executed = users.execute(request, || async move {
                let link = users.check_link(token, kinds).await?;
                if link.asks_password() {
                    users.prove_account(client, &link, proof_given).await?;
                }
                Self::check_precondition(request, &link.state.value)?;
                let user = link.user.id;
                let origin = request.by(Actor::User(user)).origin();
                let mut change = decided(user, link.state, &Command::VerifyEmail, &origin)?;
                change.further.link = Some(link.used);
                // If the address was verified by another way meanwhile, only the link is used up.
                if !change.events.is_empty() {
                    let ended = ended_by_link(&link.cutoff.value, user, caller);
                    change.further.revocation = Some((ended, link.cutoff.guard));
                }
                Ok(change)
            });
            match (executed.await?, proof) {
                (Executed::Earlier(done), AccountProof::Password(password)) => {
                    users.prove_answer(client, done, password).await
                }
                (executed, _) => executed.done_or(|| Rejection::NoSuchUser.into()),
            }
        })
        .await
    }

    /// Checks the proof that the account belongs to the reader of the link.
    async fn prove_account(
        &self,
        client: HashClient,
        link: &CheckedLink,
        proof: &AccountProof,
    ) -> Result<(), CommandError> {
        match proof {
            AccountProof::Session(caller) if caller.user == link.user.id => Ok(()),
            AccountProof::Password(password) => {
                let password = password.clone().ok_or(CommandError::WrongPassword)?;
                let email = stored_address(&link.user)?;
                self.attempt(&[AttemptKey::Account(&email)], async {
                    let hash = link.credential.value.clone();
                    let verified = self.deps.hasher.verify(client, password, hash).await?;
                    verified.matches.then_some(()).ok_or(CommandError::WrongPassword)
                })
                .await
            }
            AccountProof::Session(_) | AccountProof::NewPassword(_) | AccountProof::Nothing => {
                Err(CommandError::PasswordRequired)
            }
        }
    }

    /// Enqueues the mails with the links of a change of address. Nothing changes yet; whether the address is free is
    /// decided when the change is confirmed.
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
            // Read before the password is checked: any later revocation cancels the change.
            let epoch = Some(users.log().cutoff(user).await?.value.position);
            users.check_password(&caller, password).await?;
            let effect = async {
                Self::check_precondition(&request, &loaded)?;
                users.count(RateKey::MailAskedBy(user)).await?;
                let new_email = new_email.as_given().to_owned();
                let session = Some(caller.session);
                let mail = Mail::EmailChange { user, new_email, epoch, session };
                users.mail(mail).await.map(Effect::Happened)
            };
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }

    /// Sets the new address, if nobody else holds it by now. Every session ends, except that of `caller` if the user
    /// confirms from within it.
    pub async fn confirm_email_change(
        &self,
        token: String,
        caller: Option<Caller>,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let (users, token, caller) = (&users, &token, caller.as_ref());
            let request = &request;
            users
                .execute_or_earlier(request, || async move {
                    let link = users.check_link(token, &[LinkKind::ConfirmEmail]).await?;
                    Self::check_precondition(request, &link.state.value)?;
                    users.changed_email(link, caller, request).await
                })
                .await
        })
        .await
    }

    /// The change of a confirmed address, with the claims on both addresses.
    async fn changed_email(
        &self,
        link: CheckedLink,
        caller: Option<&Caller>,
        request: &Request,
    ) -> Result<UserChange, CommandError> {
        let CheckedLink { link, user, state, cutoff, used, .. } = link;
        let new_email = EmailAddress::parse(link.new_email.as_deref().unwrap_or_default())
            .map_err(|_| CommandError::InvalidLink)?;
        let origin = request.by(Actor::User(user.id)).origin();
        let command = Command::ChangeEmail(new_email.clone());
        let mut change = decided(user.id, state, &command, &origin)?;
        // Another spelling of the same address has the same claim.
        if new_email.canonical() != stored_address(&user)?.canonical() {
            let claim = self.free_for(&user, &new_email).await?;
            let until = origin.time.plus_seconds(self.deps.undo_link_s);
            let reserved = Reservation { until, change: change.revision() };
            let claims = &mut change.further.claims;
            claims.extend(self.release(&user, Some(reserved)).await?);
            claims.push(match self.reserved(&user, &new_email).await? {
                Some(kept) => ClaimChange::TakeBack(new_email, kept, claim),
                None => ClaimChange::Hold(new_email, claim),
            });
        }
        change.further.link = Some(used);
        let ended = ended_by_link(&cutoff.value, user.id, caller);
        change.further.revocation = Some((ended, cutoff.guard));
        Ok(change)
    }

    /// Restores the previous address of a user, for an owner whose account was taken over. It ends every session and
    /// removes the password, so that the only way in is a mail to the restored address.
    pub async fn undo_email_change(
        &self,
        token: String,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let (users, token, request) = (&users, &token, &request);
            users
                .execute_or_earlier(request, || async move {
                    let link = users.check_undo_link(token).await?;
                    users.restored_email(link, request).await
                })
                .await
        })
        .await
    }

    /// The change that restores an address.
    async fn restored_email(
        &self,
        link: UndoLink,
        request: &Request,
    ) -> Result<UserChange, CommandError> {
        let UndoLink { user, address, change: undone_change, state, undone } = link;
        let claim = self.free_for(&user, &address).await?;
        let credential = self.log().credential(user.id).await?;
        let cutoff = self.log().cutoff(user.id).await?;
        let origin = request.by(Actor::User(user.id)).origin();
        let command = Command::ChangeEmail(address.clone());
        let mut change = decided(user.id, state, &command, &origin)?;
        let record = undone.value.after(undone_change, change.revision());
        let further = &mut change.further;
        // The address of the attacker is not reserved for the owner. One that an earlier change left still is.
        further.claims.extend(self.release(&user, None).await?);
        further.claims.push(ClaimChange::Hold(address, claim));
        further.credential = Some(CredentialChange::Remove(credential.guard));
        further.revocation = Some((cutoff.value.all(), cutoff.guard));
        further.undone = Some((record, undone.guard));
        Ok(change)
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

    /// The guard of the claim on an address that this user may take.
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

    /// Checks a link that undoes a change of address. It is bound to nothing that an attacker in the account could
    /// change.
    pub(super) async fn check_undo_link(&self, token: &str) -> Result<UndoLink, CommandError> {
        let refused = || CommandError::InvalidLink;
        let unverified = Links::read(token).ok_or_else(refused)?;
        if unverified.kind() != LinkKind::UndoEmail {
            return Err(refused());
        }
        let id = unverified.user();
        let binding =
            Binding { email: "", credential: Position::default(), cutoff: Cutoff::default() };
        let link = self.deps.links.verify(unverified, &binding, ambient::now());
        let link = link.ok_or_else(refused)?;
        let change = undone_revision(&link).ok_or_else(refused)?;
        let address = EmailAddress::parse(link.new_email.as_deref().unwrap_or_default());
        let address = address.map_err(|_| refused())?;
        let undone = self.log().undone(id).await?;
        let state = self.log().load(id).await?;
        let UserState::Present(user) = &state.value else { return Err(refused()) };
        let is_back = stored_address(user)?.canonical() == address.canonical();
        // A restored log may not contain the change.
        let is_known = change <= user.revision;
        if user.status != Status::Active || is_back || !is_known || undone.value.covers(change) {
            return Err(refused());
        }
        Ok(UndoLink { user: user.clone(), address, change, state, undone })
    }

    /// Cancels a change of address.
    pub async fn abort_email_change(
        &self,
        token: String,
        request: Request,
    ) -> Result<(), CommandError> {
        self.run_detached(|users| async move {
            let (users, token, given) = (&users, &token, &request);
            let effect = until_settled(|| async move {
                let link = users.check_link(token, &[LinkKind::AbortEmail]).await?;
                Self::check_precondition(given, &link.state.value)?;
                let further = UserWrites { link: Some(link.used), ..UserWrites::default() };
                let change = UserChange::of_further(link.user.id, further);
                let stored = settled(users.log().append(&change).await)?;
                Ok(stored.map(|_| Effect::Happened(())))
            });
            users.once(request.key.as_ref(), (), effect).await
        })
        .await
    }
}

/// The revocation by a link: every session, except the one it was opened in.
fn ended_by_link(cutoff: &Cutoff, user: UserId, caller: Option<&Caller>) -> UserRevocation {
    match caller {
        Some(caller) if caller.user == user => cutoff.all_but(caller.session),
        Some(_) | None => cutoff.all(),
    }
}
