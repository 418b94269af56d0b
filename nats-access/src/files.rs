//! Secrets on disk: readable for the owner only, and written completely or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nkeys::KeyPair;

use crate::error::TrustError;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// Creates a folder and its missing parents, for the owner only. The mode of an existing folder is its creator's
/// choice: it may contain other files.
pub(crate) fn make_folder(path: &Path) -> Result<(), TrustError> {
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER_MODE)
        .create(path)
        .map_err(TrustError::io("make", path))
}

/// Moves a whole folder of files into place. If another process was faster, its folder stays and this one is dropped.
pub(crate) fn put_folder(path: &Path, files: &[(&str, &str)]) -> Result<(), TrustError> {
    let temporary = temporary(path);
    make_folder(&temporary)?;
    let outcome = files
        .iter()
        .try_for_each(|(name, text)| write_new(&temporary.join(name), text))
        .and_then(|()| sync(&temporary))
        .and_then(|()| match fs::rename(&temporary, path) {
            // A folder with content is never replaced.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                fs::remove_dir_all(&temporary).map_err(TrustError::io("remove", &temporary))
            }
            outcome => outcome.map_err(TrustError::io("put in place", path)),
        })
        .and_then(|()| path.parent().map_or(Ok(()), sync));
    if outcome.is_err() {
        // The first error explains more than a second one.
        let _ = fs::remove_dir_all(&temporary);
    }
    outcome
}

/// Writes a file atomically, replacing an existing one.
pub(crate) fn put_file(path: &Path, text: &str) -> Result<(), TrustError> {
    let temporary = temporary(path);
    let outcome = write_new(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path).map_err(TrustError::io("put in place", path)))
        .and_then(|()| path.parent().map_or(Ok(()), sync));
    if outcome.is_err() {
        // The first error explains more than a second one.
        let _ = fs::remove_file(&temporary);
    }
    outcome
}

/// Writes a file atomically unless it exists. If another process was faster, its file stays.
pub(crate) fn put_if_absent(path: &Path, text: &str) -> Result<(), TrustError> {
    let temporary = temporary(path);
    let outcome = write_new(&temporary, text)
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome.map_err(TrustError::io("put in place", path)),
        })
        .and_then(|()| path.parent().map_or(Ok(()), sync));
    // The first error explains more than a second one.
    let _ = fs::remove_file(&temporary);
    outcome
}

/// Reads a file, and removes the access of everyone except its owner. The caller validates the content, so a file that
/// is not text is merely invalid.
pub(crate) fn read(path: &Path) -> Result<String, TrustError> {
    let bytes = fs::read(path).map_err(TrustError::io("read", path))?;
    let mode = fs::metadata(path).map_err(TrustError::io("read", path))?.permissions().mode();
    // A mount of secrets may be read-only with a stricter mode, which is left alone.
    if mode & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
            .map_err(TrustError::io("close to others", path))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn write_new(path: &Path, text: &str) -> Result<(), TrustError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)
        .map_err(TrustError::io("make", path))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(TrustError::io("write", path))
}

fn sync(folder: &Path) -> Result<(), TrustError> {
    // The parent of a bare name is the empty path, which means the current folder.
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(TrustError::io("sync", folder))
}

/// A unique name next to `path`. The id of the process is not enough: in containers it is often the same.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(KeyPair::new_user().public_key());
    name.push(".tmp");
    path.with_file_name(name)
}
