//! The two programs, the oldest accepted version of each, and how to query the version of an executable.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::error::ObtainError;
use crate::server::poll;

/// How long an executable may take to print its version, even with a cold disk and on a busy machine.
const VERSION_MAX_SECONDS: u64 = 30;

/// One of the two servers this crate can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The NATS server, with JetStream.
    NatsServer,
    /// The MongoDB server.
    Mongod,
}

impl Program {
    /// The name of the executable.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NatsServer => "nats-server",
            Self::Mongod => "mongod",
        }
    }

    /// The environment variable that names the executable by its full path.
    #[must_use]
    pub const fn variable(self) -> &'static str {
        match self {
            Self::NatsServer => "ROSTER_NATS_SERVER_BIN",
            Self::Mongod => "ROSTER_MONGOD_BIN",
        }
    }

    /// The oldest version that is accepted.
    #[must_use]
    pub const fn oldest(self) -> Version {
        match self {
            Self::NatsServer => Version::new(2, 14, 4),
            Self::Mongod => Version::new(6, 0, 0),
        }
    }

    /// Runs `executable --version` and reads the answer.
    pub(crate) fn version_of(self, executable: &Path) -> Result<Version, ObtainError> {
        let unusable = |reason: String| ObtainError::Unusable {
            program: self,
            path: executable.to_owned(),
            reason,
        };
        let mut child = Command::new(executable)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| unusable(format!("it does not start: {error}")))?;
        let ended = poll(Duration::from_secs(VERSION_MAX_SECONDS), || child.try_wait().transpose());
        if ended.is_none() {
            // The child hangs; whether the kill succeeds does not change the result.
            let _ = child.kill();
            let _ = child.wait();
            return Err(unusable(format!(
                "`--version` did not end within {VERSION_MAX_SECONDS} s"
            )));
        }
        // A version is a few lines, so the pipes cannot fill up before the process exits.
        let output = read_all(child.stdout.take());
        let complaints = read_all(child.stderr.take());
        if let Some(library) = missing_library(&complaints) {
            return Err(ObtainError::MissingLibrary {
                program: self,
                path: executable.to_owned(),
                library,
            });
        }
        Version::find(&output).ok_or_else(|| {
            unusable(format!(
                "`--version` printed no version: {}",
                [output.trim(), complaints.trim()].join(" ").trim()
            ))
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A version of three numbers; a suffix (`-preview.1`) is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The version `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The first `v1.2.3` in the text: `nats-server: v2.15.1`, `db version v6.0.5`.
    fn find(text: &str) -> Option<Self> {
        text.split_whitespace().filter_map(|word| word.strip_prefix('v')).find_map(|word| {
            let mut numbers = word.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
            Some(Self {
                major: numbers.next()?.ok()?,
                minor: numbers.next()?.ok()?,
                patch: numbers.next()?.ok()?,
            })
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

fn read_all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // Text that was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The library that the dynamic loader could not find, as glibc, musl or macOS reports it.
fn missing_library(complaints: &str) -> Option<String> {
    for (before, after) in [
        ("error while loading shared libraries: ", ":"),
        ("Error loading shared library ", ":"),
        ("Library not loaded: ", "\n"),
    ] {
        if let Some((_, rest)) = complaints.split_once(before) {
            let library = rest.split(after).next().unwrap_or(rest);
            return Some(library.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_servers_print() {
        assert_eq!(Version::find("nats-server: v2.15.1\n"), Some(Version::new(2, 15, 1)));
        assert_eq!(
            Version::find("db version v6.0.5\nBuild Info: {\n \"version\": \"6.0.5\""),
            Some(Version::new(6, 0, 5))
        );
        assert_eq!(Version::find("nats-server: v2.14.0-RC.2"), Some(Version::new(2, 14, 0)));
        assert_eq!(Version::find("version 2.15"), None);
        assert_eq!(Version::find("v2.15"), None);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(Version::new(2, 9, 0) < Program::NatsServer.oldest());
        assert!(Version::new(2, 14, 4) >= Program::NatsServer.oldest());
        assert!(Version::new(10, 0, 0) > Program::Mongod.oldest());
        assert!(Version::new(5, 0, 31) < Program::Mongod.oldest());
    }

    #[test]
    fn the_loader_names_the_missing_library() {
        let glibc = "mongod: error while loading shared libraries: libcrypto.so.3: cannot open \
                     shared object file: No such file or directory";
        assert_eq!(missing_library(glibc).as_deref(), Some("libcrypto.so.3"));
        let musl = "Error loading shared library libcurl.so.4: No such file or directory";
        assert_eq!(missing_library(musl).as_deref(), Some("libcurl.so.4"));
        assert_eq!(missing_library("another error"), None);
    }
}
