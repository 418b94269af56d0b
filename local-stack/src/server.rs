//! What both servers have in common: start, readiness, stop and log.

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
/// How long a port may outlive its socket: a process that is just being started has a copy of every descriptor until
/// it executes its own program.
const PORT_RELEASE_MAX_MS: u64 = 500;
/// The pause between two checks of a state.
const POLL_INTERVAL_MS: u64 = 20;
/// How many lines of the log an error shows.
const LOG_TAIL_LINES_MAX: usize = 15;
/// How many bytes from the end of the log are read.
const LOG_TAIL_BYTES_MAX: u64 = 16 * 1024;

/// Polls until there is an answer, for at most `limit` and at least once.
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

/// The result of probing a starting server.
pub(crate) enum Probe {
    Ready,
    /// Not ready, and what is missing.
    NotYet(String),
}

/// One server with its folder. The process can stop and start again.
#[derive(Debug)]
pub(crate) struct Server {
    program: Program,
    executable: PathBuf,
    dir: ServerDir,
    log: PathBuf,
    /// `None` when stopped or killed. Locked during a whole restart, so that no caller sees an intermediate state.
    guard: Mutex<Option<Guard>>,
}

impl Server {
    /// Creates the folder and an empty log.
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

    /// Stops the server if it runs, launches it and waits until `probe` finds it ready. The probe gets the process
    /// id, to distinguish this server from another one that has taken its port.
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
            // Checked after the probe: a server that answered and died is not ready.
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

    /// Ends the server with the given function. If that fails, the handle keeps the server.
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
        // The slot contains a complete guard or none whenever the lock is released, even after a panic.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `start` with the given port. Without one, tries the port of the last start, which clients may still know,
/// and then free ports until one is not lost to another process before it is used. Stores the port in the file
/// `last`.
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

/// The last lines of a text file from `start_bytes` on. Empty if the file cannot be read, since this only adds detail
/// to an error.
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
    fn a_lost_port_is_replaced() {
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
        assert_eq!(again, port, "clients that know the port find the server again");
    }

    #[test]
    fn gives_up_after_losing_several_ports() {
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
    fn the_tail_is_short_and_starts_at_the_given_offset() {
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
