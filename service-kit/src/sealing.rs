//! Encryption at rest: AES-256-GCM with a random nonce, bound to what the text is for.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::keys::SecretKey;

/// A sealed text as it stands in a message, both members in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    nonce: String,
    sealed: String,
}

/// What went wrong. Nothing in it tells about the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// The cipher failed.
    #[error("sealing failed")]
    Seal,
    /// Sealed with another key or for something else, or damaged.
    #[error("sealed with another key or for something else")]
    Open,
}

/// Seals and opens, with a key for one purpose alone.
pub struct Sealer {
    key: RandomizedNonceKey,
}

impl Sealer {
    /// Takes the key of a purpose.
    ///
    /// # Errors
    /// [`SealingError::Seal`] when the library refuses the key.
    pub fn new(key: &SecretKey) -> Result<Self, SealingError> {
        let key = RandomizedNonceKey::new(&AES_256_GCM, key.expose());
        key.map(|key| Self { key }).map_err(|_| SealingError::Seal)
    }

    /// Seals bytes for `context`, which is not stored and must be the same to open them.
    ///
    /// # Errors
    /// [`SealingError::Seal`].
    pub fn seal(&self, context: &[u8], bytes: &[u8]) -> Result<Sealed, SealingError> {
        let mut bytes = bytes.to_vec();
        let nonce = self
            .key
            .seal_in_place_append_tag(Aad::from(context), &mut bytes)
            .map_err(|_| SealingError::Seal)?;
        Ok(Sealed { nonce: STANDARD.encode(nonce.as_ref()), sealed: STANDARD.encode(bytes) })
    }

    /// Opens what was sealed for `context`.
    ///
    /// # Errors
    /// [`SealingError::Open`].
    pub fn open(&self, context: &[u8], sealed: &Sealed) -> Result<Vec<u8>, SealingError> {
        let bytes = |text: &str| STANDARD.decode(text).map_err(|_| SealingError::Open);
        let nonce: [u8; NONCE_LEN] =
            bytes(&sealed.nonce)?.try_into().map_err(|_| SealingError::Open)?;
        let mut sealed = bytes(&sealed.sealed)?;
        let plain = self
            .key
            .open_in_place(Nonce::from(&nonce), Aad::from(context), &mut sealed)
            .map_err(|_| SealingError::Open)?;
        Ok(plain.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_opens_for_its_context_and_key_alone() {
        let sealer = Sealer::new(&SecretKey::generate().unwrap()).unwrap();
        let sealed = sealer.seal(b"one", b"secret").unwrap();
        assert!(!serde_json::to_string(&sealed).unwrap().contains("secret"));
        assert_eq!(sealer.open(b"one", &sealed).unwrap(), b"secret");
        assert_eq!(sealer.open(b"two", &sealed), Err(SealingError::Open));
        let stranger = Sealer::new(&SecretKey::generate().unwrap()).unwrap();
        assert_eq!(stranger.open(b"one", &sealed), Err(SealingError::Open));
        assert_ne!(sealed, sealer.seal(b"one", b"secret").unwrap(), "a nonce is used once");
    }
}
