//! Runs a server under a guard: a `/bin/sh` process that stops the server when the parent is gone.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::server::poll;

/// How long a server may take to stop cleanly before it is killed.
pub const STOP_GRACE_SECONDS: u64 = 10;
/// How long a killed server may take to disappear before that is an error.
pub const KILL_MAX_SECONDS: u64 = 5;
/// How long the guard lets a server stop cleanly after the parent died.
pub const GUARD_GRACE_SECONDS: u64 = 8;

const SCRIPT: &str = include_str!("guard.sh");

/// What to run.
pub(crate) struct Launch<'a> {
    pub executable: &'a Path,
    pub arguments: &'a [OsString],
    /// The folder to run in.
    pub folder: &'a Path,
    /// Everything the server prints is appended to this file.
    pub log: &'a Path,
    /// Kept open until the server has ended, even if the parent ends first.
    pub held: OwnedFd,
    pub environment: Environment<'a>,
}

/// How the environment variables of the server differ from those of this process.
#[derive(Default)]
pub(crate) struct Environment<'a> {
    /// Added to those of this process or overriding them; of several with one name, the last counts.
    pub variables: Vec<(String, String)>,
    /// Variables of this process that the server does not get.
    pub hidden: &'a [String],
}

/// A running server. Dropping stops it.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
    /// Closed means: stop the server.
    orders: Option<ChildStdin>,
    server_pid: u32,
}

impl Guard {
    pub(crate) fn launch(launch: Launch<'_>) -> io::Result<Self> {
        let mut shell = Command::new("/bin/sh");
        for name in launch.environment.hidden {
            shell.env_remove(name);
        }
        let mut shell = shell
            .envs(launch.environment.variables)
            .arg("-c")
            .arg(SCRIPT)
            .arg("guard")
            .arg(launch.log)
            .arg((GUARD_GRACE_SECONDS * 10).to_string())
            .arg(launch.executable)
            .args(launch.arguments)
            .current_dir(launch.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(launch.held))
            // Ctrl-C in a terminal goes to the whole foreground group. The servers must not receive it: the parent
            // may still need them while it shuts down.
            .process_group(0)
            .spawn()?;
        let orders = shell.stdin.take();
        let mut line = String::new();
        if let Some(pipe) = shell.stdout.take() {
            BufReader::new(pipe).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(server_pid) => Ok(Self { shell, orders, server_pid }),
            Err(_) => {
                drop(orders);
                shell.wait()?;
                Err(io::Error::other("the guard did not start the server"))
            }
        }
    }

    /// The process id of the server itself.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server_pid
    }

    /// How the server ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // The wait can only fail for a process that is not our child.
        let status = self.shell.try_wait().ok().flatten();
        if status.is_some() {
            // If the shell was killed instead of the server, its watcher still runs; this makes it stop the server.
            self.orders = None;
        }
        status
    }

    /// Requests a clean stop, then kills. Returns whether the server has ended.
    pub(crate) fn stop(&mut self) -> bool {
        self.send("term\n");
        self.wait(STOP_GRACE_SECONDS) || self.kill()
    }

    /// Kills the server with SIGKILL. Returns whether it has ended.
    pub(crate) fn kill(&mut self) -> bool {
        self.send("kill\n");
        self.wait(KILL_MAX_SECONDS)
    }

    fn send(&mut self, command: &str) {
        if let Some(orders) = &mut self.orders {
            // This fails if the guard has already ended, which the wait notices.
            let _ = orders.write_all(command.as_bytes());
        }
    }

    fn wait(&mut self, limit_seconds: u64) -> bool {
        poll(Duration::from_secs(limit_seconds), || self.ended()).is_some()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.stop();
        }
    }
}
