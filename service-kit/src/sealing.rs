//! Encryption at rest: AES-256-GCM with a random nonce, bound to a context.
//!
//! Sealed data does not name its key: each of the few accepted keys is tried, and the tag identifies the right one.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key_ring::RotatingKey;
use crate::keys::SecretKey;

/// Sealed data in a message, both members in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    nonce: String,
    sealed: String,
}

/// Sealing or opening failed. The texts disclose nothing about the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    /// The cipher failed.
    #[error("sealing failed")]
    Seal,
    /// Sealed with another key or for another context, or damaged.
    #[error("sealed with another key or for something else")]
    Open,
}

/// Seals and opens, with a key for a single purpose.
pub struct Sealer {
    key: RotatingKey,
}

impl Sealer {
    /// Uses the key of a purpose.
    ///
    /// # Errors
    /// [`SealingError::Seal`] if the library rejects the key.
    pub fn new(key: impl Into<RotatingKey>) -> Result<Self, SealingError> {
        let sealer = Self { key: key.into() };
        cipher(&sealer.key.sealing()).map(|_| sealer)
    }

    /// Seals bytes for `context`, which is not stored and must be the same for opening.
    ///
    /// # Errors
    /// [`SealingError::Seal`].
    pub fn seal(&self, context: &[u8], bytes: &[u8]) -> Result<Sealed, SealingError> {
        // Never reallocated: a copy of the plain text would stay in memory.
        let mut sealed = Vec::with_capacity(bytes.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(bytes);
        let nonce = cipher(&self.key.sealing())?
            .seal_in_place_append_tag(Aad::from(context), &mut sealed)
            .map_err(|_| SealingError::Seal)?;
        Ok(Sealed { nonce: STANDARD.encode(nonce.as_ref()), sealed: STANDARD.encode(sealed) })
    }

    /// Opens data that was sealed for `context`, with any accepted key.
    ///
    /// # Errors
    /// [`SealingError::Open`].
    pub fn open(
        &self,
        context: &[u8],
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, SealingError> {
        let keys = self.key.accepted();
        let opened = keys.iter().find_map(|key| opened(key, context, sealed).ok());
        opened.ok_or(SealingError::Open)
    }

    /// Whether the key that seals now opens it.
    #[must_use]
    pub fn is_current(&self, context: &[u8], sealed: &Sealed) -> bool {
        opened(&self.key.sealing(), context, sealed).is_ok()
    }

    /// Whether a rotation is in progress in which the newer key seals already.
    #[must_use]
    pub fn has_rotated(&self) -> bool {
        self.key.has_rotated()
    }
}

fn cipher(key: &SecretKey) -> Result<RandomizedNonceKey, SealingError> {
    RandomizedNonceKey::new(&AES_256_GCM, key.expose()).map_err(|_| SealingError::Seal)
}

fn opened(
    key: &SecretKey,
    context: &[u8],
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, SealingError> {
    let bytes = |text: &str| STANDARD.decode(text).map_err(|_| SealingError::Open);
    let nonce: [u8; NONCE_LEN] =
        bytes(&sealed.nonce)?.try_into().map_err(|_| SealingError::Open)?;
    let mut text = Zeroizing::new(bytes(&sealed.sealed)?);
    let plain = cipher(key)?
        .open_in_place(Nonce::from(&nonce), Aad::from(context), &mut text)
        .map_err(|_| SealingError::Open)?
        .len();
    text.truncate(plain);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_opens_for_its_context_and_key_alone() {
        let sealer = Sealer::new(SecretKey::generate().unwrap()).unwrap();
        let sealed = sealer.seal(b"one", b"secret").unwrap();
        assert!(!serde_json::to_string(&sealed).unwrap().contains("secret"));
        assert_eq!(*sealer.open(b"one", &sealed).unwrap(), b"secret");
        assert_eq!(sealer.open(b"two", &sealed), Err(SealingError::Open));
        let stranger = Sealer::new(SecretKey::generate().unwrap()).unwrap();
        assert_eq!(stranger.open(b"one", &sealed), Err(SealingError::Open));
        assert_ne!(sealed, sealer.seal(b"one", b"secret").unwrap(), "a nonce is used once");
    }
}
