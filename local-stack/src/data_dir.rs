//! The folder with the data of both servers, used by one process at a time.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::guard::GUARD_GRACE_SECONDS;
use crate::server::poll;

/// How long to wait for the servers of an owner that died a moment ago.
pub const DATA_DIR_RELEASE_MAX_SECONDS: u64 = GUARD_GRACE_SECONDS + 4;

/// How long a lock may outlive its handle: a process that is just being started has a copy of every descriptor until
/// it executes its own program.
const FORK_GAP_MAX_MS: u64 = 500;

/// The lock file in the data folder. It contains the process id of the owner.
const LOCK_FILE: &str = "lock";

/// Why a data folder could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another process uses the folder.
    #[error("another roster dev is running with the data folder {path}, pid {pid}: stop it or choose another folder", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that uses it.
        pid: String,
    },
    /// The process that used the folder has ended, but a server that it started still runs.
    #[error("the servers of an earlier roster dev (pid {pid}) still run in the data folder {path} after {limit_seconds} s: look for nats-server and mongod processes that use it", path = path.display())]
    NotReleased {
        /// The folder.
        path: PathBuf,
        /// The process that used it.
        pid: String,
        /// The limit that was reached.
        limit_seconds: u64,
    },
    /// A file operation failed.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl DataDirError {
    fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// A data folder, locked for this process.
///
/// The servers' guards share the lock: it is released only when this handle, all [`ServerDir`]s made from it and all
/// servers started in them are gone. So nobody can start a second pair on the same data while the first one is still
/// stopping, not even after the parent was killed. `nats-server` itself would not notice.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: Arc<OwnedFd>,
}

impl DataDir {
    /// Opens the folder and creates it if it does not exist.
    ///
    /// When the previous owner died a moment ago, this waits for its servers to stop, at most
    /// [`DATA_DIR_RELEASE_MAX_SECONDS`].
    ///
    /// # Errors
    ///
    /// [`DataDirError::InUse`]: another process uses the folder; stop it or choose another folder.
    /// [`DataDirError::Io`]: the folder cannot be created or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataDirError> {
        let path = path.as_ref();
        let path =
            std::path::absolute(path).map_err(DataDirError::io("find the full path of", path))?;
        fs::create_dir_all(&path).map_err(DataDirError::io("make the folder", &path))?;
        let lock_path = path.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            // The file names the previous owner until this process has the lock.
            .truncate(false)
            .open(&lock_path)
            .map_err(DataDirError::io("open", &lock_path))?;
        lock(&mut file, &path, &lock_path)?;

        let owner = std::process::id();
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{owner}"))
            .map_err(DataDirError::io("write", &lock_path))?;
        Ok(Self { path, lock: Arc::new(OwnedFd::from(file)) })
    }

    /// The full path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for one [`NatsServer`](crate::NatsServer).
    #[must_use]
    pub fn nats(&self) -> ServerDir {
        self.server_dir("nats")
    }

    /// The folder for one [`Mongod`](crate::Mongod).
    #[must_use]
    pub fn mongod(&self) -> ServerDir {
        self.server_dir("mongod")
    }

    /// The folder for one [`SupervisedProcess`](crate::SupervisedProcess).
    #[must_use]
    pub fn companion(&self, name: &str) -> ServerDir {
        self.server_dir(&format!("services/{name}"))
    }

    fn server_dir(&self, name: &str) -> ServerDir {
        ServerDir { path: self.path.join(name), held: Arc::clone(&self.lock) }
    }
}

/// The folder of one server, from [`DataDir::nats`] or [`DataDir::mongod`]. It keeps the lock of
/// the data folder.
#[derive(Debug)]
pub struct ServerDir {
    path: PathBuf,
    held: Arc<OwnedFd>,
}

impl ServerDir {
    /// The full path of the folder, which is created when a server is started in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder whose release is observed through `held` instead of a lock.
    pub(crate) fn held_by(path: PathBuf, held: OwnedFd) -> Self {
        Self { path, held: Arc::new(held) }
    }

    /// The descriptor that the guard keeps open.
    pub(crate) fn held(&self) -> io::Result<OwnedFd> {
        self.held.try_clone()
    }
}

/// Takes the lock. A living owner soon leads to an error; the servers of a dead one get some time to stop.
fn lock(file: &mut File, path: &Path, lock_path: &Path) -> Result<(), DataDirError> {
    let limit = Duration::from_secs(DATA_DIR_RELEASE_MAX_SECONDS);
    let gap = Duration::from_millis(FORK_GAP_MAX_MS);
    let start = Instant::now();
    poll(limit, || match file.try_lock() {
        Ok(()) => Some(Ok(())),
        Err(TryLockError::Error(source)) => Some(Err(DataDirError::io("lock", lock_path)(source))),
        Err(TryLockError::WouldBlock) if start.elapsed() < gap => None,
        Err(TryLockError::WouldBlock) => {
            let pid = owner(file);
            is_alive(&pid).then(|| Err(DataDirError::InUse { path: path.to_owned(), pid }))
        }
    })
    .unwrap_or_else(|| {
        Err(DataDirError::NotReleased {
            path: path.to_owned(),
            pid: owner(file),
            limit_seconds: DATA_DIR_RELEASE_MAX_SECONDS,
        })
    })
}

/// The process id in the lock file; empty until a new owner has written it.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    // An unreadable file names nobody, and the wait continues.
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text.trim().to_owned()
}

/// Whether a process exists. `kill` is built into the shell, so this needs no other program.
fn is_alive(pid: &str) -> bool {
    pid.parse::<u32>().is_ok()
        && Command::new("/bin/sh")
            .args(["-c", r#"kill -0 "$1""#, "alive", pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temp_dir;

    #[test]
    fn a_second_opening_names_the_owner() {
        let folder = temp_dir();
        let first = DataDir::open(folder.path()).unwrap();
        let error = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");
        let pid = std::process::id();
        assert!(error.to_string().contains(&format!("pid {pid}")), "{error}");

        let server_dir = first.nats();
        drop(first);
        let error = DataDir::open(folder.path()).unwrap_err();
        assert!(matches!(error, DataDirError::InUse { .. }), "{error}");

        drop(server_dir);
        DataDir::open(folder.path()).unwrap();
    }

    #[test]
    fn a_process_is_alive_or_not() {
        assert!(is_alive(&std::process::id().to_string()));
        let mut child = Command::new("/bin/sh").args(["-c", ":"]).spawn().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(&child.id().to_string()));
        assert!(!is_alive(""));
    }
}
