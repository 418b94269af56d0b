//! Users whose credentials were revoked, by their public keys.

use std::collections::BTreeSet;
use std::path::Path;

use nkeys::{KeyPair, KeyPairType};

use crate::error::TrustError;
use crate::files;

/// The file next to the seeds, one key per line. It is not a secret, but without it a copy of the seeds would admit
/// them again.
pub const REVOKED_FILE: &str = "revoked";

/// Reads them; empty if there is no file.
pub(crate) fn load(dir: &Path) -> Result<BTreeSet<String>, TrustError> {
    let path = dir.join(REVOKED_FILE);
    if !path.try_exists().map_err(TrustError::io("read", &path))? {
        return Ok(BTreeSet::new());
    }
    let text = files::read(&path)?;
    text.lines().filter(|line| !line.is_empty()).map(user_key).collect()
}

/// Writes them.
pub(crate) fn store(dir: &Path, revoked: &BTreeSet<String>) -> Result<(), TrustError> {
    let text: String = revoked.iter().map(|user| format!("{user}\n")).collect();
    files::put_file(&dir.join(REVOKED_FILE), &text)
}

/// Parses a public key of a user.
///
/// # Errors
///
/// [`TrustError::NoUser`]: it is something else.
pub fn user_key(text: &str) -> Result<String, TrustError> {
    let key = KeyPair::from_public_key(text.trim()).ok();
    key.filter(|key| key.key_pair_type() == KeyPairType::User)
        .map(|key| key.public_key())
        .ok_or_else(|| TrustError::NoUser { text: text.to_owned() })
}
