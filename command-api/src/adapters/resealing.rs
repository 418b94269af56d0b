//! Credentials that were sealed with a former application key, sealed with the one of now.

use events::{CommandId, Position, UserId, subjects};
use service_kit::ambient;
use service_kit::event_log::{Append, EventLog, Outcome, Top, Write};
use service_kit::key_ring::RotatingKey;

use super::CredentialSealer;

/// What credentials are sealed with is derived for this.
const PURPOSE: &str = "credential sealing v1";
/// Attempts at one record that others change meanwhile.
const ATTEMPTS_MAX: usize = 5;

/// Seals credentials anew. Each is written at the position at which it was read, so that a password which is set at the
/// same time stays.
pub struct Resealer {
    log: EventLog,
    sealer: CredentialSealer,
}

impl Resealer {
    /// Works on the stream of users, with the application key.
    ///
    /// # Errors
    /// In words: the library refuses the key.
    pub fn new(log: EventLog, application_key: &RotatingKey) -> Result<Self, String> {
        let sealer = CredentialSealer::new(application_key.derive(PURPOSE));
        Ok(Self { log, sealer: sealer.map_err(|error| error.to_string())? })
    }

    pub(super) const fn sealer(&self) -> &CredentialSealer {
        &self.sealer
    }

    /// Whether a message on the subject of a credential is sealed with a former key.
    ///
    /// # Errors
    /// In words: no accepted key opens it.
    pub fn is_former(&self, user: UserId, message: &[u8]) -> Result<bool, String> {
        self.sealer.reseal(user, message, Position::default()).map(|resealed| resealed.is_some())
    }

    /// Seals the credential of a user anew; `false` when there was nothing to do.
    ///
    /// # Errors
    /// In words: it is as it was, or nobody knows.
    pub async fn reseal(&self, user: UserId) -> Result<bool, String> {
        let subject = subjects::user_credential(user);
        for _ in 0..ATTEMPTS_MAX {
            let top = self.log.top(&subject).await.map_err(|error| error.to_string())?;
            if let Some(done) = self.replace(user, top).await? {
                return Ok(done);
            }
        }
        Err("others changed a credential too often".to_owned())
    }

    /// Replaces a credential where it was read; `None` when somebody was faster, or nobody knows.
    async fn replace(&self, user: UserId, read: Top) -> Result<Option<bool>, String> {
        let Some(last) = read.last else { return Ok(Some(false)) };
        let Some(message) = self.sealer.reseal(user, &last.payload, last.position)? else {
            return Ok(Some(false));
        };
        let write = Write::new(subjects::user_credential(user), read.guard, message);
        let command = CommandId::from_uuid(ambient::new_uuid());
        match self.log.append(&Append::new(command, write)).await {
            Outcome::Stored(_) => Ok(Some(true)),
            Outcome::Conflict | Outcome::Duplicate | Outcome::Unknown => Ok(None),
            failed @ (Outcome::Unavailable | Outcome::Full | Outcome::Refused(..)) => {
                Err(format!("the log refused a write: {failed:?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
