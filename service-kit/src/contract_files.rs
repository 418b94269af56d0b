//! Contracts that a program writes about itself, as files.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes files, each a name and a text, below a folder.
///
/// # Errors
/// [`WriteError`] names the first that cannot be written.
pub fn write(files: &[(String, String)], dir: &Path) -> Result<(), WriteError> {
    for (name, text) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap_or(dir))
            .and_then(|()| fs::write(&path, text))
            .map_err(|source| WriteError { path, source })?;
    }
    Ok(())
}
