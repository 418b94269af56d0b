//! Credentials at rest: sealed with a key that is not in the log, bound to their user.

use events::UserId;
use serde::{Deserialize, Serialize};
use service_kit::keys::SecretKey;
use service_kit::sealing::{Sealed, Sealer, SealingError};

use crate::ports::PasswordHash;

/// What stands on `sec.user.<id>`: a sealed PHC string, or nothing any more.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Credential {
    Set {
        #[serde(flatten)]
        sealed: Sealed,
    },
    Removed,
}

/// Seals and opens credentials.
pub struct CredentialSealer {
    sealer: Sealer,
}

impl CredentialSealer {
    /// Seals with a key for this purpose alone.
    pub fn new(key: &SecretKey) -> Result<Self, SealingError> {
        Ok(Self { sealer: Sealer::new(key)? })
    }

    /// The message for a credential, or for its absence.
    pub fn seal(&self, user: UserId, hash: Option<&PasswordHash>) -> Result<Vec<u8>, String> {
        let credential = match hash {
            None => Credential::Removed,
            Some(hash) => Credential::Set {
                sealed: self
                    .sealer
                    .seal(user.as_uuid().as_bytes(), hash.0.as_bytes())
                    .map_err(|error| error.to_string())?,
            },
        };
        serde_json::to_vec(&credential).map_err(|e| e.to_string())
    }

    /// The credential in a message; an error when it is not of this user or this key.
    pub fn open(&self, user: UserId, message: &[u8]) -> Result<Option<PasswordHash>, String> {
        let sealed = match serde_json::from_slice(message).map_err(|e| e.to_string())? {
            Credential::Removed => return Ok(None),
            Credential::Set { sealed } => sealed,
        };
        let plain =
            self.sealer.open(user.as_uuid().as_bytes(), &sealed).map_err(|e| e.to_string())?;
        String::from_utf8(plain)
            .map(|phc| Some(PasswordHash(phc)))
            .map_err(|_| "not a PHC string".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_opens_for_its_user_and_key_alone() {
        let sealer = CredentialSealer::new(&SecretKey::generate().unwrap()).unwrap();
        let user = UserId::from_uuid(uuid::Uuid::from_u128(1));
        let other = UserId::from_uuid(uuid::Uuid::from_u128(2));
        let hash = PasswordHash("$argon2id$…".to_owned());
        let message = sealer.seal(user, Some(&hash)).unwrap();
        assert!(!String::from_utf8_lossy(&message).contains("argon2"));
        assert_eq!(sealer.open(user, &message).unwrap(), Some(hash.clone()));
        assert!(sealer.open(other, &message).is_err());
        let stranger = CredentialSealer::new(&SecretKey::generate().unwrap()).unwrap();
        assert!(stranger.open(user, &message).is_err());
        assert_eq!(sealer.open(user, &sealer.seal(user, None).unwrap()).unwrap(), None);
    }
}
