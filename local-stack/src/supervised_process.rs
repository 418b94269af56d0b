//! A further program beside the servers, beneath the same guard: it says when it is ready, and never outlives the one who
//! started it.

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

/// What the line begins with by which a program says that it is ready.
const READY: &str = "ready ";
/// Most of the log that is searched for that line.
const READY_SEARCH_BYTES_MAX: u64 = 1024 * 1024;

/// How to run a program.
#[derive(Debug)]
pub struct SupervisedProcessOptions {
    /// What it is called in errors, and what its log is called after.
    pub name: String,
    /// The executable.
    pub executable: PathBuf,
    /// The folder it runs in, with its log.
    pub dir: ServerDir,
    /// Variables that it gets beside those of this process, and in place of them.
    pub variables: Vec<(String, String)>,
    /// Variables of this process that it does not get.
    pub hidden: Vec<String>,
}

/// Why a program does not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisedProcessError {
    /// The file system or the system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended too early, or badly.
    #[error("`{command}` ended ({status}); the end of {log}:\n{log_tail}", log = log.display())]
    Exited {
        /// What was run.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        log: PathBuf,
        /// The last lines of that.
        log_tail: String,
    },
    /// It did neither end nor get ready in time, and was stopped.
    #[error("`{command}` was not {wanted} within {limit_seconds} s; the end of {log}:\n{log_tail}", log = log.display())]
    TooSlow {
        /// What was run.
        command: String,
        /// What was waited for.
        wanted: &'static str,
        /// The limit that was reached.
        limit_seconds: u64,
        /// What it printed.
        log: PathBuf,
        /// The last lines of that.
        log_tail: String,
    },
    /// Somebody stopped it meanwhile.
    #[error("`{command}` was stopped")]
    Stopped {
        /// What was run.
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

/// A program with its folder; the process comes and goes. Dropping the handle stops it. All methods block, with bounds.
#[derive(Debug)]
pub struct SupervisedProcess {
    options: SupervisedProcessOptions,
    log: PathBuf,
    /// `None` when nothing runs. Held for the whole of a start, so that nobody sees half of one.
    guard: Mutex<Option<Guard>>,
    /// Nothing is started any more, and whoever waits for something goes.
    is_over: AtomicBool,
}

impl SupervisedProcess {
    /// Makes the folder and an empty log. Nothing runs yet.
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
        Ok(Self { options, log, guard: Mutex::new(None), is_over: AtomicBool::new(false) })
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Where everything goes that it prints. The file starts empty with each handle and is not rotated.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// Runs it with one argument and further variables to its end.
    ///
    /// # Errors
    ///
    /// [`SupervisedProcessError::Exited`]: it ended with another status than 0. [`SupervisedProcessError::TooSlow`]: it was stopped.
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

    /// Stops it if it runs, starts it with one argument and further variables, and waits for a line that begins with
    /// `ready `, which is given back.
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
            // Asked after the look: a program that said it and died is not ready.
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

    /// Stops it for good: cleanly within [`STOP_GRACE_SECONDS`](crate::STOP_GRACE_SECONDS), else by SIGKILL. Whoever
    /// waits for its start waits no more, and nothing is started after that.
    ///
    /// # Errors
    ///
    /// [`SupervisedProcessError::NotStopped`] when not even SIGKILL ends it.
    pub fn stop(&self) -> Result<(), SupervisedProcessError> {
        self.is_over.store(true, Ordering::SeqCst);
        self.clear(&mut self.slot())
    }

    fn launch(
        &self,
        slot: &mut Option<Guard>,
        argument: &str,
        variables: &[(String, String)],
    ) -> Result<(Guard, u64), SupervisedProcessError> {
        self.clear(slot)?;
        if self.is_over.load(Ordering::SeqCst) {
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

    /// Looks until there is an answer, or until it is to stop.
    fn wait<T>(
        &self,
        limit_seconds: u64,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<Result<T, ()>> {
        poll(Duration::from_secs(limit_seconds), || match self.is_over.load(Ordering::SeqCst) {
            true => Some(Err(())),
            false => look().map(Ok),
        })
    }

    /// The first whole line behind a place in the log that says that it is ready.
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
        // The slot holds a whole guard or none whenever the lock is released, also by a panic.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
