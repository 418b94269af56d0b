use std::io;
use std::path::{Path, PathBuf};

/// Why trust or credentials cannot be created, stored or read. No variant contains a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file or folder cannot be read or written: repair its owner, its mode or the disk.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file does not contain the expected seed: restore it from a backup. A new seed in its place would cut the
    /// services off from everything stored under the old one.
    #[error("{} does not hold the seed of an {kind} key", path.display())]
    Seed {
        /// The file.
        path: PathBuf,
        /// The type of key that it should be.
        kind: &'static str,
    },
    /// The text is not a public key of a user.
    #[error(
        "{text:?} is not the public key of a user: it begins with U, and `roster audit list --command services-creds` shows it"
    )]
    NoUser {
        /// The text.
        text: String,
    },
    /// A file contains something other than credentials of that user in this system, which would be lost.
    #[error("{} is there already and holds no credentials of {user} in this system: name another file, or remove it", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user whose credentials were to be written.
        user: String,
    },
    /// A key cannot sign: a bug.
    #[error("a key cannot be used")]
    Key(#[from] nkeys::error::Error),
    /// Claims cannot be written as JSON: a bug.
    #[error("claims cannot be written as JSON")]
    Claims(#[from] serde_json::Error),
}

impl TrustError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
