//! Which users were made for whom, so that a name can be revoked.
//!
//! A subscriber has one name and, over time, several users: each `subscribers creds` makes another one. Without a record
//! nobody knows afterwards whose keys those are, and credentials that were given out could not be taken away.

use std::path::Path;

use crate::error::TrustError;
use crate::files;
use crate::revoked::user_key;

/// The file beside the seeds, one name with a user's public key a line. It is no secret.
pub const ISSUED_FILE: &str = "issued";

/// Name and user, as they were made.
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

/// Writes down that a user was made for a name.
pub(crate) fn note(dir: &Path, name: &str, user: &str) -> Result<(), TrustError> {
    let mut issued = load(dir)?;
    issued.push((name.to_owned(), user.to_owned()));
    store(dir, &issued)
}

/// The users that were made for a name, in order.
pub(crate) fn of(dir: &Path, name: &str) -> Result<Vec<String>, TrustError> {
    let issued = load(dir)?.into_iter().filter(|(named, _)| named == name);
    Ok(issued.map(|(_, user)| user).collect())
}
