//! What both servers have in common: launching, waiting, stopping, and their log.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::data_dir::ServerDir;
use crate::error::ServerError;
use crate::guard::{Environment, Guard, KILL_MAX_SECONDS, Launch};
use crate::ports;
use crate::program::Program;

/// How many ports are tried when each is lost to another process.
const PORT_TRIES_MAX: usize = 5;
/// How long a port may outlive its socket: a process that is being started at that very moment
/// has a copy of every descriptor until it runs its own program.
const PORT_RELEASE_MAX_MS: u64 = 500;
/// How long to pause between two looks at a state.
const POLL_INTERVAL_MS: u64 = 20;
/// How many lines of the log an error shows.
const LOG_TAIL_LINES_MAX: usize = 15;
/// How much of the end of the log is looked at.
const LOG_TAIL_BYTES_MAX: u64 = 16 * 1024;

/// Looks again and again until there is an answer, at most `limit` long, at least once.
pub(crate) fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = look();
        if found.is_some() || start.elapsed() >= limit {
            return found;
        }
        thread::sleep(Duration::from_millis(POLL_INTERVAL_MS));
    }
}

/// What a look at a starting server shows.
pub(crate) enum Probe {
    Ready,
    /// Not yet, and what is missing.
    NotYet(String),
}

/// One server with its folder; the process comes and goes.
#[derive(Debug)]
pub(crate) struct Server {
    program: Program,
    executable: PathBuf,
    dir: ServerDir,
    log: PathBuf,
    /// `None` when stopped or killed. Held for the whole of a restart, so that nobody sees half
    /// of one.
    guard: Mutex<Option<Guard>>,
}

impl Server {
    /// Makes the folder and an empty log.
    pub(crate) fn prepare(
        program: Program,
        executable: &Path,
        dir: ServerDir,
    ) -> Result<Self, ServerError> {
        fs::create_dir_all(dir.path()).map_err(ServerError::io("make the folder", dir.path()))?;
        let log = dir.path().join(format!("{program}.log"));
        File::create(&log).map_err(ServerError::io("write", &log))?;
        Ok(Self { program, executable: executable.to_owned(), dir, log, guard: Mutex::new(None) })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log_file(&self) -> &Path {
        &self.log
    }

    /// Stops the server if it runs, launches it and waits until `probe` finds it ready. The probe
    /// gets the process id, to tell this server from another that has taken its port.
    pub(crate) fn launch(
        &self,
        port: u16,
        arguments: &[OsString],
        limit_seconds: u64,
        probe: impl Fn(u32) -> Probe,
    ) -> Result<(), ServerError> {
        let mut slot = self.slot();
        self.clear(&mut slot, Guard::stop)?;
        let release = Duration::from_millis(PORT_RELEASE_MAX_MS);
        if poll(release, || ports::is_free(port).then_some(())).is_none() {
            return Err(ServerError::PortInUse { program: self.program, port });
        }
        let log_start_bytes = fs::metadata(&self.log).map_or(0, |log| log.len());
        let held = self.dir.held().map_err(ServerError::io("keep the lock of", self.folder()))?;
        let mut guard = Guard::launch(Launch {
            executable: &self.executable,
            arguments,
            folder: self.folder(),
            log: &self.log,
            held,
            environment: Environment::default(),
        })
        .map_err(ServerError::io("start", &self.executable))?;

        let mut missing = String::new();
        let outcome = poll(Duration::from_secs(limit_seconds), || {
            let probed = probe(guard.server_pid());
            // Asked after the probe: a server that answered and died is not ready.
            if let Some(status) = guard.ended() {
                return Some(Err(self.exited(port, status.to_string(), log_start_bytes)));
            }
            match probed {
                Probe::Ready => Some(Ok(())),
                Probe::NotYet(reason) => {
                    missing = reason;
                    None
                }
            }
        });
        outcome.unwrap_or_else(|| {
            Err(ServerError::NotReady {
                program: self.program,
                limit_seconds,
                reason: missing,
                log: self.log.clone(),
                log_tail: self.log_tail(log_start_bytes),
            })
        })?;
        *slot = Some(guard);
        Ok(())
    }

    pub(crate) fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        let mut slot = self.slot();
        let guard = slot.as_mut()?;
        guard.ended().is_none().then(|| guard.server_pid())
    }

    pub(crate) fn stop(&self) -> Result<(), ServerError> {
        self.clear(&mut self.slot(), Guard::stop)
    }

    pub(crate) fn kill(&self) -> Result<(), ServerError> {
        self.clear(&mut self.slot(), Guard::kill)
    }

    /// Ends the server in the given way and forgets it, or keeps it when it does not end.
    fn clear(
        &self,
        slot: &mut Option<Guard>,
        end: impl Fn(&mut Guard) -> bool,
    ) -> Result<(), ServerError> {
        if let Some(guard) = slot
            && guard.ended().is_none()
            && !end(guard)
        {
            return Err(ServerError::NotStopped {
                program: self.program,
                pid: guard.server_pid(),
                limit_seconds: KILL_MAX_SECONDS,
            });
        }
        *slot = None;
        Ok(())
    }

    fn exited(&self, port: u16, status: String, log_start_bytes: u64) -> ServerError {
        let log_tail = self.log_tail(log_start_bytes);
        if log_tail.to_ascii_lowercase().contains("address already in use") {
            return ServerError::PortInUse { program: self.program, port };
        }
        ServerError::Exited { program: self.program, status, log: self.log.clone(), log_tail }
    }

    /// The last lines that were logged since `start_bytes`.
    fn log_tail(&self, start_bytes: u64) -> String {
        tail(&self.log, start_bytes)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Guard>> {
        // The slot holds a whole guard or none whenever the lock is released, also by a panic.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `start` with the given port; or with that of the last time, which clients may still know, and then with
/// free ports until one is not lost to another process between its choice and its use. What it was is kept in the
/// file `last`.
pub(crate) fn with_port(
    program: Program,
    port: Option<u16>,
    last: &Path,
    mut start: impl FnMut(u16) -> Result<(), ServerError>,
) -> Result<u16, ServerError> {
    if let Some(port) = port {
        return start(port).map(|()| port);
    }
    if let Some(port) = ports::last_port(last) {
        match start(port) {
            Err(ServerError::PortInUse { .. }) => {}
            outcome => return outcome.map(|()| port),
        }
    }
    let port = with_free_port(program, start)?;
    ports::keep_port(last, port);
    Ok(port)
}

fn with_free_port(
    program: Program,
    mut start: impl FnMut(u16) -> Result<(), ServerError>,
) -> Result<u16, ServerError> {
    let none_free = ServerError::NoFreePort { program, tries: PORT_TRIES_MAX };
    for _ in 0..PORT_TRIES_MAX {
        let Ok(port) = ports::free_port() else {
            return Err(none_free);
        };
        match start(port) {
            Err(ServerError::PortInUse { .. }) => {}
            outcome => return outcome.map(|()| port),
        }
    }
    Err(none_free)
}

/// The last lines of a text file, looking at nothing before `start_bytes`. Empty when the file
/// cannot be read: this only decorates an error.
pub(crate) fn tail(path: &Path, start_bytes: u64) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(start_bytes.max(length.saturating_sub(LOG_TAIL_BYTES_MAX))))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        std::io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let skipped = lines.len().saturating_sub(LOG_TAIL_LINES_MAX);
    lines.get(skipped..).map(|lines| lines.join("\n")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::temp_dir;

    #[test]
    fn a_lost_port_is_replaced_by_another() {
        let (mut tried, folder) = (Vec::new(), temp_dir());
        let last = folder.path().join("mongod.port");
        let port = with_port(Program::Mongod, None, &last, |port| {
            tried.push(port);
            if tried.len() < 3 {
                return Err(ServerError::PortInUse { program: Program::Mongod, port });
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(tried.len(), 3);
        assert_eq!(tried.last(), Some(&port));
        let again = with_port(Program::Mongod, None, &last, |_| Ok(())).unwrap();
        assert_eq!(again, port, "whoever knew the port finds the server again");
    }

    #[test]
    fn losing_ports_has_an_end() {
        let (mut tries, folder) = (0, temp_dir());
        let last = folder.path().join("mongod.port");
        let error = with_port(Program::Mongod, None, &last, |port| {
            tries += 1;
            Err(ServerError::PortInUse { program: Program::Mongod, port })
        })
        .unwrap_err();
        assert_eq!(tries, PORT_TRIES_MAX);
        assert!(matches!(error, ServerError::NoFreePort { .. }), "{error}");
    }

    #[test]
    fn the_tail_is_short_and_starts_where_told() {
        let folder = temp_dir();
        let path = folder.path().join("log");
        let lines: Vec<String> = (0..40).map(|line| format!("line {line}")).collect();
        fs::write(&path, lines.join("\n")).unwrap();
        let text = tail(&path, 0);
        assert_eq!(text.lines().count(), LOG_TAIL_LINES_MAX);
        assert!(text.ends_with("line 39"));

        fs::write(&path, "old\nnew\n").unwrap();
        assert_eq!(tail(&path, 4), "new");
        assert_eq!(tail(&folder.path().join("none"), 0), "");
    }
}
