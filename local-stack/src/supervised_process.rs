//! Runs another program next to the servers, under the same guard. It reports when the program is ready, and the
//! program never outlives the process that started it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::data_dir::ServerDir;
use crate::guard::{Environment, Guard, KILL_MAX_SECONDS, Launch};
use crate::server::{poll, tail};

/// The beginning of the line with which a program reports that it is ready.
const READY: &str = "ready ";
/// How many bytes of the log are searched for that line.
const READY_SEARCH_BYTES_MAX: u64 = 1024 * 1024;

/// How to run a program.
#[derive(Debug)]
pub struct SupervisedProcessOptions {
    /// Its name, in errors and as the name of its log.
    pub name: String,
    /// The executable.
    pub executable: PathBuf,
    /// The folder in which it runs and which contains its log.
    pub dir: ServerDir,
    /// Variables that are added to those of this process or override them.
    pub variables: Vec<(String, String)>,
    /// Variables of this process that it does not get.
    pub hidden: Vec<String>,
}

/// Why a program did not run as expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisedProcessError {
    /// A file or system operation failed.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The program ended too early, or with an error.
    #[error("`{command}` ended ({status}); the end of {log}:\n{log_tail}", log = log.display())]
    Exited {
        /// The command.
        command: String,
        /// Its exit status.
        status: String,
        /// The file with its output.
        log: PathBuf,
        /// The last lines of that file.
        log_tail: String,
    },
    /// The program neither ended nor became ready in time, and was stopped.
    #[error("`{command}` was not {wanted} within {limit_seconds} s; the end of {log}:\n{log_tail}", log = log.display())]
    TooSlow {
        /// The command.
        command: String,
        /// The awaited state.
        wanted: &'static str,
        /// The limit that was reached.
        limit_seconds: u64,
        /// The file with its output.
        log: PathBuf,
        /// The last lines of that file.
        log_tail: String,
    },
    /// The program was stopped in the meantime.
    #[error("`{command}` was stopped")]
    Stopped {
        /// The command.
        command: String,
    },
    /// Not even SIGKILL ended it.
    #[error("{name} (pid {pid}) did not end within {limit_seconds} s after SIGKILL")]
    NotStopped {
        /// Its name.
        name: String,
        /// Its process id.
        pid: u32,
        /// The limit that was reached.
        limit_seconds: u64,
    },
}

impl SupervisedProcessError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A program with its folder; the process can be restarted. Dropping the handle stops it. All methods block, for a
/// limited time.
#[derive(Debug)]
pub struct SupervisedProcess {
    options: SupervisedProcessOptions,
    log: PathBuf,
    /// `None` when nothing runs. Locked during a whole start, so that no caller sees an intermediate state.
    guard: Mutex<Option<Guard>>,
    /// Set once the process is stopped for good: nothing is started after that, and pending waits end.
    is_stopped: AtomicBool,
}

impl SupervisedProcess {
    /// Creates the folder and an empty log. Starts nothing.
    ///
    /// # Errors
    ///
    /// [`SupervisedProcessError::Io`]: the folder cannot be used.
    pub fn prepare(options: SupervisedProcessOptions) -> Result<Self, SupervisedProcessError> {
        let folder = options.dir.path();
        fs::create_dir_all(folder)
            .map_err(SupervisedProcessError::io("make the folder", folder))?;
        let log = folder.join(format!("{}.log", options.name));
        File::create(&log).map_err(SupervisedProcessError::io("write", &log))?;
        Ok(Self { options, log, guard: Mutex::new(None), is_stopped: AtomicBool::new(false) })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The file with its output. It starts empty with each handle and is not rotated.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Runs the program to its end, with one argument and more variables.
    ///
    /// # Errors
    ///
    /// [`SupervisedProcessError::Exited`]: its status was not 0. [`SupervisedProcessError::TooSlow`]: it was stopped.
    pub fn run(
        &self,
        argument: &str,
        variables: &[(String, String)],
        limit_seconds: u64,
    ) -> Result<(), SupervisedProcessError> {
        let mut slot = self.slot();
        let (mut guard, begin) = self.launch(&mut slot, argument, variables)?;
        let ended = self.wait(limit_seconds, || guard.ended());
        match ended {
            Some(Ok(status)) if status.success() => Ok(()),
            Some(Ok(status)) => Err(self.exited(argument, status, begin)),
            Some(Err(())) => {
                Err(SupervisedProcessError::Stopped { command: self.command(argument) })
            }
            None => Err(self.too_slow(argument, "done", limit_seconds, begin)),
        }
    }

    /// Stops the program if it runs, starts it with one argument and more variables, and waits for a line that begins
    /// with `ready `. Returns that line.
    ///
    /// # Errors
    ///
    /// [`SupervisedProcessError::Exited`]: it ended before that. [`SupervisedProcessError::TooSlow`]: it was stopped.
    pub fn start(
        &self,
        argument: &str,
        variables: &[(String, String)],
        limit_seconds: u64,
    ) -> Result<String, SupervisedProcessError> {
        let mut slot = self.slot();
        let (mut guard, begin) = self.launch(&mut slot, argument, variables)?;
        let answer = self.wait(limit_seconds, || {
            let line = self.ready_line(begin);
            // Checked after the log: a program that reported ready and died is not ready.
            match guard.ended() {
                Some(status) => Some(Err(status)),
                None => line.map(Ok),
            }
        });
        match answer {
            Some(Ok(Ok(line))) => {
                *slot = Some(guard);
                Ok(line)
            }
            Some(Ok(Err(status))) => Err(self.exited(argument, status, begin)),
            Some(Err(())) => {
                Err(SupervisedProcessError::Stopped { command: self.command(argument) })
            }
            None => Err(self.too_slow(argument, "ready", limit_seconds, begin)),
        }
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let mut slot = self.slot();
        let guard = slot.as_mut()?;
        guard.ended().is_none().then(|| guard.server_pid())
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.pid().is_some()
    }

    /// Stops the program permanently: cleanly within [`STOP_GRACE_SECONDS`](crate::STOP_GRACE_SECONDS), else by
    /// SIGKILL. A pending start returns, and nothing is started after that.
    ///
    /// # Errors
    ///
    /// [`SupervisedProcessError::NotStopped`] when not even SIGKILL ends it.
    pub fn stop(&self) -> Result<(), SupervisedProcessError> {
        self.is_stopped.store(true, Ordering::SeqCst);
        self.clear(&mut self.slot())
    }

    fn launch(
        &self,
        slot: &mut Option<Guard>,
        argument: &str,
        variables: &[(String, String)],
    ) -> Result<(Guard, u64), SupervisedProcessError> {
        self.clear(slot)?;
        if self.is_stopped.load(Ordering::SeqCst) {
            return Err(SupervisedProcessError::Stopped { command: self.command(argument) });
        }
        let begin = fs::metadata(&self.log).map_or(0, |log| log.len());
        let SupervisedProcessOptions { executable, dir, hidden, .. } = &self.options;
        let held =
            dir.held().map_err(SupervisedProcessError::io("keep the lock of", dir.path()))?;
        let variables = self.options.variables.iter().chain(variables);
        let guard = Guard::launch(Launch {
            executable,
            arguments: &[argument.into()],
            folder: dir.path(),
            log: &self.log,
            held,
            environment: Environment { variables: variables.cloned().collect(), hidden },
        });
        Ok((guard.map_err(SupervisedProcessError::io("start", executable))?, begin))
    }

    /// Polls until there is an answer, or until the process is stopped.
    fn wait<T>(
        &self,
        limit_seconds: u64,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<Result<T, ()>> {
        poll(Duration::from_secs(limit_seconds), || match self.is_stopped.load(Ordering::SeqCst) {
            true => Some(Err(())),
            false => look().map(Ok),
        })
    }

    /// The first complete line after an offset in the log that reports ready.
    fn ready_line(&self, begin: u64) -> Option<String> {
        let mut file = File::open(&self.log).ok()?;
        file.seek(SeekFrom::Start(begin)).ok()?;
        let mut bytes = Vec::new();
        file.take(READY_SEARCH_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let (whole, _) = text.rsplit_once('\n')?;
        whole.lines().find(|line| line.starts_with(READY)).map(str::to_owned)
    }

    fn clear(&self, slot: &mut Option<Guard>) -> Result<(), SupervisedProcessError> {
        if let Some(guard) = slot
            && guard.ended().is_none()
            && !guard.stop()
        {
            return Err(SupervisedProcessError::NotStopped {
                name: self.options.name.clone(),
                pid: guard.server_pid(),
                limit_seconds: KILL_MAX_SECONDS,
            });
        }
        *slot = None;
        Ok(())
    }

    fn command(&self, argument: &str) -> String {
        format!("{} {argument}", self.options.name)
    }

    fn exited(&self, argument: &str, status: ExitStatus, begin: u64) -> SupervisedProcessError {
        SupervisedProcessError::Exited {
            command: self.command(argument),
            status: status.to_string(),
            log: self.log.clone(),
            log_tail: tail(&self.log, begin),
        }
    }

    fn too_slow(
        &self,
        argument: &str,
        wanted: &'static str,
        limit_seconds: u64,
        begin: u64,
    ) -> SupervisedProcessError {
        SupervisedProcessError::TooSlow {
            command: self.command(argument),
            wanted,
            limit_seconds,
            log: self.log.clone(),
            log_tail: tail(&self.log, begin),
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Guard>> {
        // The slot contains a complete guard or none whenever the lock is released, even after a panic.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
