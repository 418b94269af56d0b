//! Login: the same answer after the same time for an unknown address, a wrong password and a disabled user.

use std::net::IpAddr;

use events::{EmailAddress, Status, UserId};
use service_kit::ambient;
use service_kit::mail_jobs::Mail;
use service_kit::security::{Kind, Outcome, SecurityEvent};
use tokio::time::Instant;

use super::sessions::Proved;
use super::{CommandError, Granted, Users};
use crate::domain::{Device, Password};
use crate::ports::HashClient;
use crate::ports::throttle::AttemptKey;

impl Users {
    /// Checks e-mail and password against the log and starts a session. `None` is a string that is no address, or a
    /// password that is too long to be anyone's.
    pub async fn login(
        &self,
        email: Option<EmailAddress>,
        password: Option<Password>,
        device: Device,
    ) -> Result<Granted, CommandError> {
        let began = Instant::now();
        let granted = self
            .run_detached(|users| async move {
                let (Some(email), Some(password)) = (email, password) else {
                    users.record(refused("malformed"));
                    return Err(CommandError::InvalidCredentials);
                };
                let proved = users.attempt_login(&email, password, device.ip).await?;
                let granted = users.start_session(proved, &device).await?;
                users.notify_of_login(&granted).await;
                Ok(granted)
            })
            .await;
        // Reading a message takes longer than finding none, and a hash made by another system takes another time.
        if let Err(CommandError::InvalidCredentials) = granted {
            self.deps.enumeration.pad_to_step(began).await;
        }
        granted
    }

    /// Has the mailer check whether the device is new. A login does not fail for lack of a notice.
    async fn notify_of_login(&self, granted: &Granted) {
        if !granted.user.email_verified {
            return;
        }
        let (user, session) = (granted.user.id, granted.session.id);
        if let Err(error) = self.mail(Mail::LoggedIn { user, session }).await {
            tracing::warn!(%error, %user, "cannot enqueue the check for a new device; the login goes on without");
        }
    }

    /// The user who has this address and password and may log in; counted as an attempt.
    pub(super) async fn attempt_login(
        &self,
        email: &EmailAddress,
        password: Password,
        from: IpAddr,
    ) -> Result<Proved, CommandError> {
        let keys = [AttemptKey::Address(from), AttemptKey::Account(email)];
        let client = HashClient::network(from);
        self.attempt(&keys, self.authenticate(client, email, password)).await
    }

    async fn authenticate(
        &self,
        client: HashClient,
        email: &EmailAddress,
        password: Password,
    ) -> Result<Proved, CommandError> {
        let holder = self.log().claim(email).await?.value.and_then(|claim| claim.holder());
        // An unknown address costs the same reads and the same hash as a known one.
        let id = holder.unwrap_or_else(|| UserId::from_uuid(ambient::new_uuid()));
        // Read first: any later revocation ends the session.
        let lineage = self.lineage();
        let cutoff = self.log().cutoff(id).await?.value;
        let state = self.log().load(id).await?;
        let credential = self.log().credential(id).await?;
        let stored = credential.value.clone();
        let verified = self.deps.hasher.verify(client, password.clone(), stored).await?;
        let proved = Proved::by_secret(lineage, cutoff, state.value);
        let Some(user) = proved.user() else {
            self.record(refused("unknown-address").with_address(email.clone()));
            return Err(CommandError::InvalidCredentials);
        };
        // `start_session` decides whether a session starts; here a refusal counts like a wrong password.
        let welcome = user.status == Status::Active && holder == Some(user.id);
        if !verified.matches || !welcome {
            // The answer is the same for all of these; the security record is not.
            let why = match (user.status, holder == Some(user.id)) {
                (Status::Disabled, _) => "user-disabled",
                (Status::Active, false) => "unknown-address",
                (Status::Active, true) => "wrong-password",
            };
            self.record(refused(why).about(user.id));
            return Err(CommandError::InvalidCredentials);
        }
        if !self.deps.session_rules.admits(user) {
            self.record(refused("email-not-verified").about(user.id));
            // If registrations are concealed, a login with the password that was just registered must not reveal that
            // the address was free.
            let concealed = self.deps.enumeration.conceal_existing;
            return Err(if concealed {
                CommandError::InvalidCredentials
            } else {
                CommandError::Unverified
            });
        }
        if verified.outdated {
            let hash = self.deps.hasher.hash(client, password).await?;
            // After a lost race the next login upgrades the hash.
            let _ = self.log().rehash(id, &hash, &credential).await;
        } else {
            self.log().reseal(id).await;
        }
        Ok(proved)
    }
}

fn refused(why: &'static str) -> SecurityEvent {
    SecurityEvent::new(Kind::Login, Outcome::Refused).because(why)
}
