//! Login: one answer and one duration for unknown, wrong and disabled.

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
use crate::ports::throttle::Watched;

impl Users {
    /// Checks e-mail and password against the log and starts a session. `None` for a string that is
    /// nobody's address or a password that is longer than any.
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
                users.tell_of_login(&granted).await;
                Ok(granted)
            })
            .await;
        // A message that is there takes longer to read than none, and a hash of another system is not as
        // fast as ours.
        if let Err(CommandError::InvalidCredentials) = granted {
            self.parts.discretion.pad_to_step(began).await;
        }
        granted
    }

    /// Has the mailer look whether the device is a new one. A login does not fail for a notice.
    async fn tell_of_login(&self, granted: &Granted) {
        if !granted.user.email_verified {
            return;
        }
        let (user, session) = (granted.user.id, granted.session.id);
        if let Err(error) = self.mail(Mail::LoggedIn { user, session }).await {
            tracing::warn!(%error, %user, "nobody looks whether a login came from a new device");
        }
    }

    /// Who has that address and password and may log in; counted where attempts are.
    pub(super) async fn attempt_login(
        &self,
        email: &EmailAddress,
        password: Password,
        from: IpAddr,
    ) -> Result<Proved, CommandError> {
        let watched = [Watched::Address(from), Watched::Account(email)];
        let client = HashClient::network(from);
        self.attempt(&watched, self.authenticate(client, email, password)).await
    }

    async fn authenticate(
        &self,
        client: HashClient,
        email: &EmailAddress,
        password: Password,
    ) -> Result<Proved, CommandError> {
        let holder = self.log().claim(email).await?.value.and_then(|claim| claim.holder());
        // Nobody costs the same reads and the same hash as somebody.
        let id = holder.unwrap_or_else(|| UserId::from_uuid(ambient::new_uuid()));
        // Before everything that it may end.
        let lineage = self.lineage();
        let cutoff = self.log().cutoff(id).await?.value;
        let state = self.log().load(id).await?;
        let credential = self.log().credential(id).await?;
        let stored = credential.value.clone();
        let verified = self.parts.hasher.verify(client, password.clone(), stored).await?;
        let proved = Proved::by_secret(lineage, cutoff, state.value);
        let Some(user) = proved.user() else {
            self.record(refused("unknown-address").with_address(email.clone()));
            return Err(CommandError::InvalidCredentials);
        };
        // Whether a session starts is decided where it does; here a refusal counts as a wrong password does.
        let welcome = user.status == Status::Active && holder == Some(user.id);
        if !verified.matches || !welcome {
            // The answer is the same for all of them; the record is not.
            let why = match (user.status, holder == Some(user.id)) {
                (Status::Disabled, _) => "user-disabled",
                (Status::Active, false) => "unknown-address",
                (Status::Active, true) => "wrong-password",
            };
            self.record(refused(why).about(user.id));
            return Err(CommandError::InvalidCredentials);
        }
        if !self.parts.session_rules.admits(user) {
            self.record(refused("email-not-verified").about(user.id));
            // Where a registration tells nothing, a login with the password that was just registered must not
            // tell that the address was free.
            let concealed = self.parts.discretion.conceal_existing;
            return Err(if concealed {
                CommandError::InvalidCredentials
            } else {
                CommandError::Unverified
            });
        }
        if verified.outdated {
            let hash = self.parts.hasher.hash(client, password).await?;
            // Whoever lost this race will be upgraded at the next login.
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
