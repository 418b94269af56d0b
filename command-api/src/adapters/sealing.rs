//! Credentials at rest: sealed with a key that is not in the log, bound to their user.

use events::{Position, UserId, credential_position};
use serde::{Deserialize, Serialize};
use service_kit::key_ring::RotatingKey;
use service_kit::sealing::{Sealed, Sealer, SealingError};

use crate::ports::PasswordHash;

/// What stands on `sec.user.<id>`: a sealed PHC string, or nothing any more.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Credential {
    Set {
        #[serde(flatten)]
        sealed: Sealed,
        /// Where the password was set, if it was only hashed or sealed anew since ([`credential_position`]).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Position>,
    },
    Removed,
}

/// Seals and opens credentials.
pub struct CredentialSealer {
    sealer: Sealer,
}

impl CredentialSealer {
    /// Seals with a key for this purpose alone.
    pub fn new(key: RotatingKey) -> Result<Self, SealingError> {
        Ok(Self { sealer: Sealer::new(key)? })
    }

    /// The message for a credential, or for its absence. `since` is where the password was set, unless it is now.
    pub fn seal(
        &self,
        user: UserId,
        hash: Option<&PasswordHash>,
        since: Option<Position>,
    ) -> Result<Vec<u8>, String> {
        match hash {
            None => serde_json::to_vec(&Credential::Removed).map_err(|e| e.to_string()),
            Some(hash) => self.set(user, hash.0.as_bytes(), since),
        }
    }

    fn set(&self, user: UserId, phc: &[u8], since: Option<Position>) -> Result<Vec<u8>, String> {
        let sealed = self.sealer.seal(user.as_uuid().as_bytes(), phc).map_err(|e| e.to_string())?;
        serde_json::to_vec(&Credential::Set { sealed, since }).map_err(|e| e.to_string())
    }

    /// Whether a rotation is under way in which the newer key seals already.
    pub fn has_rotated(&self) -> bool {
        self.sealer.has_rotated()
    }

    /// The message at `stored`, sealed with the key that seals now; `None` when it is, or when it holds nothing.
    pub fn reseal(
        &self,
        user: UserId,
        message: &[u8],
        stored: Position,
    ) -> Result<Option<Vec<u8>>, String> {
        let context = user.as_uuid().as_bytes();
        match serde_json::from_slice(message).map_err(|e| e.to_string())? {
            Credential::Set { sealed, .. } if !self.sealer.is_current(context, &sealed) => {
                let phc = self.sealer.open(context, &sealed).map_err(|e| e.to_string())?;
                self.set(user, &phc, Some(credential_position(message, stored))).map(Some)
            }
            Credential::Set { .. } | Credential::Removed => Ok(None),
        }
    }

    /// The credential in a message; an error when it is not of this user or this key.
    pub fn open(&self, user: UserId, message: &[u8]) -> Result<Option<PasswordHash>, String> {
        let sealed = match serde_json::from_slice(message).map_err(|e| e.to_string())? {
            Credential::Removed => return Ok(None),
            Credential::Set { sealed, .. } => sealed,
        };
        let plain =
            self.sealer.open(user.as_uuid().as_bytes(), &sealed).map_err(|e| e.to_string())?;
        std::str::from_utf8(&plain)
            .map(|phc| Some(PasswordHash(phc.to_owned())))
            .map_err(|_| "not a PHC string".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use service_kit::keys::SecretKey;

    use super::*;

    fn generated() -> RotatingKey {
        SecretKey::generate().unwrap().into()
    }

    #[test]
    fn a_credential_opens_for_its_user_and_key_alone() {
        let sealer = CredentialSealer::new(generated()).unwrap();
        let user = UserId::from_uuid(uuid::Uuid::from_u128(1));
        let other = UserId::from_uuid(uuid::Uuid::from_u128(2));
        let hash = PasswordHash("$argon2id$…".to_owned());
        let message = sealer.seal(user, Some(&hash), None).unwrap();
        assert!(!String::from_utf8_lossy(&message).contains("argon2"));
        assert_eq!(sealer.open(user, &message).unwrap(), Some(hash.clone()));
        assert!(sealer.open(other, &message).is_err());
        let stranger = CredentialSealer::new(generated()).unwrap();
        assert!(stranger.open(user, &message).is_err());
        assert_eq!(sealer.open(user, &sealer.seal(user, None, None).unwrap()).unwrap(), None);
    }
}
