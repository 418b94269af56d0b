//! The keys that name records, which are never rotated (ADR 30).
//!
//! Claims on addresses, idempotency records and the counts of the throttle are found by a keyed hash, and decisions
//! depend on whether one exists. With two keys at once, one address could have two owners, one request could be
//! executed twice, and every limit on attempts would start at zero. So these keys are derived once, from the first
//! application key of a system, and stored in a file of their own when that key is removed. A thief who has them can
//! test whether a record exists for a known value, and nothing else: they open and sign nothing.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::key_ring::Ring;
use crate::keys::{
    APPLICATION_KEY_FILE, GATE_KEY_FILE, KeyError, LOOKUP_KEYS_FILE, MAIL_KEY_FILE, SecretKey,
    read_text, write_private,
};
use crate::mail_jobs::MAIL_KEY_PURPOSE;
use crate::security::SECURITY_KEY_PURPOSE;

/// The purpose for which the key of mail jobs derives the key of the counts by address.
const GATE_KEY_PURPOSE: &str = "mail gate v1";

/// One key for each kind of record.
#[derive(Debug, Clone)]
pub struct LookupKeys {
    /// Claims on e-mail addresses.
    pub claims: SecretKey,
    /// Idempotency keys.
    pub idempotency: SecretKey,
    /// Counts of the throttle.
    pub throttle: SecretKey,
    /// Addresses in the security record.
    pub security: SecretKey,
    /// Counts of the reactor's mail gate.
    pub mail_gate: SecretKey,
}

/// The file: each key in base64.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct File {
    claims: String,
    idempotency: String,
    throttle: String,
    security: String,
    mail_gate: String,
}

impl LookupKeys {
    /// Reads the keys of a folder. A system that never rotated its application key may not have the file yet.
    ///
    /// # Errors
    /// [`KeyError`]; [`KeyError::Lookup`] if the file is missing and its keys can no longer be derived.
    pub fn read(dir: &Path) -> Result<Self, KeyError> {
        let path = dir.join(LOOKUP_KEYS_FILE);
        if path.exists() {
            return Self::parse(&read_text(&path)?, &path);
        }
        let ring = Ring::read(&dir.join(APPLICATION_KEY_FILE))?;
        ring.original().map(Self::derive).ok_or(KeyError::Lookup { path })
    }

    /// Reads the key of the mail gate in the folder of a reactor, which has none of the other keys.
    ///
    /// # Errors
    /// As [`LookupKeys::read`]
    pub fn read_mail_gate(dir: &Path) -> Result<SecretKey, KeyError> {
        let path = dir.join(GATE_KEY_FILE);
        if path.exists() {
            return SecretKey::read(&path);
        }
        let ring = Ring::read(&dir.join(MAIL_KEY_FILE))?;
        let mail_key = ring.original().ok_or(KeyError::Lookup { path })?;
        Ok(mail_key.derive(GATE_KEY_PURPOSE))
    }

    /// Writes the file into a folder, unless it exists.
    ///
    /// # Errors
    /// [`KeyError::Write`]
    pub fn write_new(&self, dir: &Path) -> Result<(), KeyError> {
        let Self { claims, idempotency, throttle, security, mail_gate } = self;
        let file = File {
            claims: claims.to_base64().to_string(),
            idempotency: idempotency.to_base64().to_string(),
            throttle: throttle.to_base64().to_string(),
            security: security.to_base64().to_string(),
            mail_gate: mail_gate.to_base64().to_string(),
        };
        let path = dir.join(LOOKUP_KEYS_FILE);
        let text = serde_json::to_string_pretty(&file).map(Zeroizing::new);
        let text = text.map_err(|_| KeyError::Generate)?;
        write_private(&path, text.as_bytes())
    }

    /// The keys that the first application key of a system derives.
    fn derive(application: &SecretKey) -> Self {
        Self {
            claims: application.derive("e-mail claim v1"),
            idempotency: application.derive("idempotency v1"),
            throttle: application.derive("throttle v1"),
            security: application.derive(SECURITY_KEY_PURPOSE),
            mail_gate: application.derive(MAIL_KEY_PURPOSE).derive(GATE_KEY_PURPOSE),
        }
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let expected = "the keys that name records";
        let file: File = serde_json::from_str(text)
            .map_err(|_| KeyError::Content { path: path.into(), expected })?;
        let key = |text: &str| SecretKey::parse(text, path);
        Ok(Self {
            claims: key(&file.claims)?,
            idempotency: key(&file.idempotency)?,
            throttle: key(&file.throttle)?,
            security: key(&file.security)?,
            mail_gate: key(&file.mail_gate)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ambient;

    fn all(keys: &LookupKeys) -> [[u8; 32]; 5] {
        let LookupKeys { claims, idempotency, throttle, security, mail_gate } = keys;
        [claims, idempotency, throttle, security, mail_gate].map(|key| *key.expose())
    }

    #[test]
    fn the_keys_outlive_the_application_key_that_they_were_derived_from() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(APPLICATION_KEY_FILE);
        SecretKey::generate().unwrap().write_new(&file).unwrap();
        let derived = LookupKeys::read(dir.path()).unwrap();
        derived.write_new(dir.path()).unwrap();
        let ring = Ring::read(&file).unwrap().with(SecretKey::generate().unwrap(), ambient::now());
        ring.finished().write(&file).unwrap();
        assert_eq!(all(&LookupKeys::read(dir.path()).unwrap()), all(&derived));
    }

    #[test]
    fn keys_are_never_derived_from_a_key_that_followed_another() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(APPLICATION_KEY_FILE);
        SecretKey::generate().unwrap().write_new(&file).unwrap();
        let ring = Ring::read(&file).unwrap().with(SecretKey::generate().unwrap(), ambient::now());
        for ring in [ring.clone(), ring.finished()] {
            ring.write(&file).unwrap();
            let error = LookupKeys::read(dir.path()).unwrap_err();
            assert!(matches!(error, KeyError::Lookup { .. }), "{error}");
        }
    }
}
