//! The users that were created for each name, so that a name can be revoked.
//!
//! A subscriber has one name and, over time, several users: each `subscribers creds` creates another one. Without a
//! record, issued credentials could not be matched to a name afterwards, and so not be revoked.

use std::path::Path;

use crate::error::TrustError;
use crate::files;
use crate::revoked::user_key;

/// The file next to the seeds: a name and a user's public key per line. It is not a secret.
pub const ISSUED_FILE: &str = "issued";

/// A name and its user, in the order of creation.
type Issued = (String, String);

fn load(dir: &Path) -> Result<Vec<Issued>, TrustError> {
    let path = dir.join(ISSUED_FILE);
    if !path.try_exists().map_err(TrustError::io("read", &path))? {
        return Ok(Vec::new());
    }
    let text = files::read(&path)?;
    let issued = |line: &str| {
        let (name, user) = line.split_once(' ').unwrap_or_default();
        Ok((name.to_owned(), user_key(user)?))
    };
    text.lines().filter(|line| !line.is_empty()).map(issued).collect()
}

fn store(dir: &Path, issued: &[Issued]) -> Result<(), TrustError> {
    let text: String = issued.iter().map(|(name, user)| format!("{name} {user}\n")).collect();
    files::put_file(&dir.join(ISSUED_FILE), &text)
}

/// Records that a user was created for a name.
pub(crate) fn note(dir: &Path, name: &str, user: &str) -> Result<(), TrustError> {
    let mut issued = load(dir)?;
    issued.push((name.to_owned(), user.to_owned()));
    store(dir, &issued)
}

/// The users that were created for a name, in order.
pub(crate) fn of(dir: &Path, name: &str) -> Result<Vec<String>, TrustError> {
    let issued = load(dir)?.into_iter().filter(|(named, _)| named == name);
    Ok(issued.map(|(_, user)| user).collect())
}
