//! For tests: servers that a whole test process shares, and folders that are removed.
//!
//! Statics are never dropped, so nothing here relies on that. A shared server is stopped by its guard when the test
//! process ends, and a caretaker process that waits for the guard removes its folder. Each test should use unique
//! names (databases, streams), so that all tests of the process can run concurrently. A test that stops or kills a
//! server must start its own.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::data_dir::ServerDir;
use crate::free_port;
use crate::mongod::{Mongod, MongodOptions};
use crate::nats::{NatsOptions, NatsServer};
use crate::obtain::{Binaries, Progress, Sources};
use crate::program::Program;

/// Removes the folder $1 once nobody holds the other end of its stdin.
const CARETAKER: &str = r#"while read -r _; do :; done; exec rm -rf -- "$1""#;
/// How many names for a temporary folder are tried.
const TEMP_DIR_TRIES_MAX: usize = 1_000;

/// The `mongod` that all tests of this process share, started by the first call.
///
/// # Panics
///
/// If it cannot be obtained or started, since no test that needs it can pass then.
#[must_use]
#[expect(clippy::panic, reason = "a test without its server has failed, and this says why")]
pub fn mongod() -> &'static Mongod {
    static SHARED: OnceLock<Result<Mongod, String>> = OnceLock::new();
    // An error is kept too, so that the other tests do not wait for it again.
    match SHARED.get_or_init(|| start_mongod().map_err(|error| describe(error.as_ref()))) {
        Ok(mongod) => mongod,
        Err(error) => panic!("no mongod for the tests: {error}"),
    }
}

/// The `nats-server` that all tests of this process share, started by the first call with its configuration. All
/// calls of a process should pass the same one.
///
/// # Panics
///
/// If it cannot be obtained or started, since no test that needs it can pass then.
#[must_use]
#[expect(clippy::panic, reason = "a test without its server has failed, and this says why")]
pub fn nats(config: impl FnOnce() -> String) -> &'static NatsServer {
    static SHARED: OnceLock<Result<NatsServer, String>> = OnceLock::new();
    match SHARED.get_or_init(|| start_nats(config()).map_err(|error| describe(error.as_ref()))) {
        Ok(nats) => nats,
        Err(error) => panic!("no nats-server for the tests: {error}"),
    }
}

/// Both executables, obtained once per process, with the progress of a download on stderr. For tests that start their
/// own servers.
///
/// # Panics
///
/// If they cannot be obtained, since no test that needs them can pass then.
#[must_use]
#[expect(clippy::panic, reason = "a test without its server has failed, and this says why")]
pub fn binaries() -> &'static Binaries {
    static SHARED: OnceLock<Result<Binaries, String>> = OnceLock::new();
    match SHARED.get_or_init(|| Binaries::obtain(&show).map_err(|error| describe(&error))) {
        Ok(binaries) => binaries,
        Err(error) => panic!("no servers for the tests: {error}"),
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn start_mongod() -> Result<Mongod, AnyError> {
    let executable = Sources::from_env(Program::Mongod).obtain(&show)?;
    let data_dir = throwaway_dir()?;
    let options = MongodOptions { data_dir, port: None };
    Ok(Mongod::start_at(&executable, options)?)
}

fn start_nats(config: String) -> Result<NatsServer, AnyError> {
    let executable = Sources::from_env(Program::NatsServer).obtain(&show)?;
    let data_dir = throwaway_dir()?;
    let options = NatsOptions { data_dir, port: None, config };
    Ok(NatsServer::start_at(&executable, options)?)
}

fn show(progress: &Progress) {
    eprintln!("{progress}");
}

/// An error with all its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A folder that is removed when this process and the server in it have ended, however they end.
///
/// The server's guard keeps the pipe to the caretaker open in the place of the lock of a data folder.
fn throwaway_dir() -> io::Result<ServerDir> {
    let path = make_temp_dir()?;
    let mut caretaker = Command::new("/bin/sh")
        .args(["-c", CARETAKER, "caretaker"])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    let pipe =
        caretaker.stdin.take().ok_or_else(|| io::Error::other("the caretaker has no pipe"))?;
    Ok(ServerDir::held_by(path, OwnedFd::from(pipe)))
}

/// A `mongod` as it starts by itself: with a test's options, with no initiated replica set, and without waiting for
/// it. Killed when dropped.
#[derive(Debug)]
pub struct BareMongod {
    child: Child,
    port: u16,
}

impl BareMongod {
    /// Starts it on a free port, with its data and its log in a folder.
    ///
    /// # Panics
    ///
    /// If it cannot be started, since the test cannot pass then.
    #[must_use]
    #[expect(clippy::panic, reason = "a test without its server has failed, and this says why")]
    pub fn start<'a>(folder: &Path, options: impl IntoIterator<Item = &'a str>) -> Self {
        let start = || -> Result<Self, AnyError> {
            let (port, data) = (free_port()?, folder.join("db"));
            fs::create_dir_all(&data)?;
            let log = fs::File::create(folder.join("mongod.log"))?;
            let child = Command::new(&binaries().mongod)
                .arg("--dbpath")
                .arg(data)
                .args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet", "--port"])
                .arg(port.to_string())
                .args(["--wiredTigerCacheSizeGB", "0.25"])
                .args(options)
                .stdin(Stdio::null())
                .stdout(log)
                .spawn()?;
            Ok(Self { child, port })
        };
        start().unwrap_or_else(|error| panic!("no mongod for the test: {error}"))
    }

    /// The port of `127.0.0.1`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for BareMongod {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary folder, removed when dropped.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// The full path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A folder that remains in the system's temporary folder fails no test.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Creates an empty temporary folder. It must outlive the servers that run in it.
///
/// # Panics
///
/// If the system's temporary folder is not writable.
#[must_use]
#[expect(clippy::panic, reason = "a test without its folder has failed, and this says why")]
pub fn temp_dir() -> TempDir {
    match make_temp_dir() {
        Ok(path) => TempDir { path },
        Err(error) => panic!("no temporary folder for the test: {error}"),
    }
}

fn make_temp_dir() -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let root = std::env::temp_dir();
    let pid = std::process::id();
    for _ in 0..TEMP_DIR_TRIES_MAX {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("roster-{pid}-{count}"));
        match fs::create_dir(&path) {
            // Left by an earlier process with this id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            outcome => return outcome.map(|()| path),
        }
    }
    Err(io::Error::other(format!("all names in {} are taken", root.display())))
}
