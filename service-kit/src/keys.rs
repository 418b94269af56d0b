//! Keys: their files, their generation, and what is derived from them.
//!
//! One application key is the root of every keyed hash and of the sealing of credentials. Each use has its own key,
//! derived with HKDF-SHA-256 (RFC 5869), so a value for one purpose is meaningless for another. [`crate::key_ring`]
//! reads keys that can be rotated, [`crate::lookup_keys`] those that cannot.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{hkdf, hmac, rand::SecureRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// File with the application key, in the folder of the command side.
pub const APPLICATION_KEY_FILE: &str = "application.key";
/// File with the keys that name records, in the folder of the command side.
pub const LOOKUP_KEYS_FILE: &str = "lookup.key";
/// File with the key that protects cursors, in the folder of the query side.
pub const CURSOR_KEY_FILE: &str = "cursor.key";

/// File with the key of a peer service, in the folder of that service.
pub const SERVICE_KEY_FILE: &str = "service.key";

/// File with the key of links in mails, in the folder of the reactor.
pub const LINK_KEY_FILE: &str = "link.key";
/// File with the key of mail jobs, in the folder of the reactor.
pub const MAIL_KEY_FILE: &str = "mail.key";
/// File with the key that counts mails by address, in the folder of the reactor.
pub const GATE_KEY_FILE: &str = "gate.key";

/// Bytes of a secret key.
const KEY_BYTES: usize = 32;
/// Minimum number of different bytes in a key. 32 random ones have fewer in one of 10^27 cases; keys that somebody
/// typed, for example for a trial, usually do.
const DIFFERENT_MIN: usize = 10;

/// A key could not be read or created.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is missing or not readable.
    #[error("cannot read the key file {path}; `roster init` writes it")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the key file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The content is not a key.
    #[error("the key file {path} does not hold {expected}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The expected content.
        expected: &'static str,
    },
    /// The file is missing, and its keys were derived from a key that no longer exists.
    #[error(
        "cannot read the key file {path}; the application key was rotated, so it cannot be made anew: bring it from the \
         folder of `roster init`, or from a backup"
    )]
    Lookup {
        /// The file.
        path: PathBuf,
    },
    /// The system's random numbers or the cryptographic library failed.
    #[error("key generation failed")]
    Generate,
}

/// 32 secret bytes, overwritten when dropped. Its debug form shows none of them.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; KEY_BYTES]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

impl SecretKey {
    /// Generates a key.
    ///
    /// # Errors
    /// [`KeyError::Generate`] if the system has no random numbers.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random()?))
    }

    /// Reads a key file: base64 of 32 bytes.
    ///
    /// # Errors
    /// [`KeyError`]; a shorter key is rejected, never stretched.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&read_text(path)?, path)
    }

    /// Parses the text of a key file.
    ///
    /// # Errors
    /// [`KeyError::Content`] names `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let content = || KeyError::Content { path: path.into(), expected: "32 bytes in base64" };
        let decoded = Zeroizing::new(STANDARD.decode(text.trim()).map_err(|_| content())?);
        let mut key = Self([0; KEY_BYTES]);
        if decoded.len() != KEY_BYTES {
            return Err(content());
        }
        key.0.copy_from_slice(&decoded);
        let different: HashSet<u8> = key.0.into_iter().collect();
        if different.len() < DIFFERENT_MIN {
            return Err(KeyError::Content { path: path.into(), expected: "random bytes" });
        }
        Ok(key)
    }

    /// The text of the key file.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    /// Writes the key file with mode 0600, unless it exists.
    ///
    /// # Errors
    /// [`KeyError::Write`].
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let mut text = self.to_base64();
        text.push('\n');
        write_private(path, text.as_bytes())
    }

    /// Derives the key for one purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"roster");
        let secret = salt.extract(&self.0);
        let mut key = Self([0; KEY_BYTES]);
        // Fails only for outputs longer than 255 hashes; this is one.
        if let Ok(material) = secret.expand(&[purpose.as_bytes()], KeyLength) {
            let _ = material.fill(&mut key.0);
        }
        key
    }

    /// HMAC-SHA-256 over parts, each preceded by its length, so that different lists never have the same input.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.hmac_key());
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    /// [`SecretKey::mac`] in hex, as used in subjects.
    #[must_use]
    pub fn mac_hex(&self, parts: &[&[u8]]) -> String {
        use fmt::Write as _;
        self.mac(parts).iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Whether `tag` is the MAC of `parts`, in constant time.
    #[must_use]
    pub fn verifies(&self, parts: &[&[u8]], tag: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.mac(parts), tag).is_ok()
    }

    /// A key from a key agreement, or unwrapped.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a cipher.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    fn hmac_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

/// Random bytes from the system.
///
/// # Errors
/// [`KeyError::Generate`] if there are none.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Generate)?;
    Ok(bytes)
}

pub(crate) fn read_text(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    text.map_err(|source| KeyError::Read { path: path.into(), source })
}

/// Writes a file that only its owner can read; an existing one is kept. It appears whole or not at all.
///
/// # Errors
/// [`KeyError::Write`].
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    if path.exists() { Ok(()) } else { replace_private(path, content) }
}

/// Writes such a file, replacing an existing one.
///
/// # Errors
/// [`KeyError::Write`].
pub fn replace_private(path: &Path, content: &[u8]) -> Result<(), KeyError> {
    let fail = |source| KeyError::Write { path: path.into(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let half = PathBuf::from(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&half).map_err(fail)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fail)?;
    fs::rename(&half, path).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_key_is_overwritten() {
        fn overwrite<T: Zeroize + ZeroizeOnDrop>(value: &mut T) {
            value.zeroize();
        }
        let mut key = SecretKey::generate().unwrap();
        overwrite(&mut key);
        assert_eq!(key.0, [0; KEY_BYTES]);
    }

    #[test]
    fn purposes_and_parts_never_meet() {
        let key = SecretKey([7; 32]);
        assert_ne!(key.derive("a").mac(&[b"x"]), key.derive("b").mac(&[b"x"]));
        assert_ne!(key.mac(&[b"ab", b"c"]), key.mac(&[b"a", b"bc"]));
        assert!(key.verifies(&[b"x"], &key.mac(&[b"x"])));
        assert!(!key.verifies(&[b"y"], &key.mac(&[b"x"])));
    }
}
