//! Credentials at rest: sealed with a key that is not in the log, bound to their user.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use events::UserId;
use serde::{Deserialize, Serialize};
use service_kit::keys::SecretKey;

use crate::ports::PasswordHash;

/// What stands on `sec.user.<id>`: a sealed PHC string, or nothing any more.
#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
enum Credential {
    Set { nonce: String, sealed: String },
    Removed,
}

/// Seals and opens credentials with AES-256-GCM.
pub struct Sealer {
    key: RandomizedNonceKey,
}

impl Sealer {
    /// Seals with a key for this purpose alone.
    pub fn new(key: &SecretKey) -> Result<Self, String> {
        RandomizedNonceKey::new(&AES_256_GCM, key.expose())
            .map(|key| Self { key })
            .map_err(|_| "the sealing key does not fit the cipher".to_owned())
    }

    /// The message for a credential, or for its absence.
    pub fn seal(&self, user: UserId, hash: Option<&PasswordHash>) -> Result<Vec<u8>, String> {
        let credential = match hash {
            None => Credential::Removed,
            Some(hash) => {
                let mut bytes = hash.0.clone().into_bytes();
                let nonce = self
                    .key
                    .seal_in_place_append_tag(Aad::from(user.as_uuid().as_bytes()), &mut bytes)
                    .map_err(|_| "sealing failed".to_owned())?;
                Credential::Set {
                    nonce: STANDARD.encode(nonce.as_ref()),
                    sealed: STANDARD.encode(bytes),
                }
            }
        };
        serde_json::to_vec(&credential).map_err(|e| e.to_string())
    }

    /// The credential in a message; an error when it is not of this user or this key.
    pub fn open(&self, user: UserId, message: &[u8]) -> Result<Option<PasswordHash>, String> {
        let (nonce, sealed) = match serde_json::from_slice(message).map_err(|e| e.to_string())? {
            Credential::Removed => return Ok(None),
            Credential::Set { nonce, sealed } => (nonce, sealed),
        };
        let bytes = |text: &str| STANDARD.decode(text).map_err(|e| e.to_string());
        let nonce: [u8; NONCE_LEN] =
            bytes(&nonce)?.try_into().map_err(|_| "the nonce has the wrong length".to_owned())?;
        let mut sealed = bytes(&sealed)?;
        let plain = self
            .key
            .open_in_place(Nonce::from(&nonce), Aad::from(user.as_uuid().as_bytes()), &mut sealed)
            .map_err(|_| "sealed with another key or for another user".to_owned())?;
        String::from_utf8(plain.to_vec())
            .map(|phc| Some(PasswordHash(phc)))
            .map_err(|_| "not a PHC string".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_opens_for_its_user_and_key_alone() {
        let sealer = Sealer::new(&SecretKey::generate().unwrap()).unwrap();
        let user = UserId::from_uuid(uuid::Uuid::from_u128(1));
        let other = UserId::from_uuid(uuid::Uuid::from_u128(2));
        let hash = PasswordHash("$argon2id$…".to_owned());
        let message = sealer.seal(user, Some(&hash)).unwrap();
        assert!(!String::from_utf8_lossy(&message).contains("argon2"));
        assert_eq!(sealer.open(user, &message).unwrap(), Some(hash.clone()));
        assert!(sealer.open(other, &message).is_err());
        let stranger = Sealer::new(&SecretKey::generate().unwrap()).unwrap();
        assert!(stranger.open(user, &message).is_err());
        assert_ne!(message, sealer.seal(user, Some(&hash)).unwrap(), "a nonce is used once");
        assert_eq!(sealer.open(user, &sealer.seal(user, None).unwrap()).unwrap(), None);
    }
}
