//! A `roster` process, or one of a further service.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Time for a process to say that it is ready; it may have to fetch servers first.
const READY_MAX: Duration = Duration::from_secs(600);
/// Time for a process to end after SIGTERM.
const END_MAX: Duration = Duration::from_secs(40);

/// The `roster` executable of this build, built once per test run.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // target/<profile>/deps/<this> -> target/<profile>/roster
        let this = std::env::current_exe().unwrap();
        let folder = this.parent().and_then(Path::parent).unwrap().to_owned();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--package", "roster"]);
        build.arg("--target-dir").arg(folder.parent().unwrap());
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().unwrap().success(), "roster does not build");
        folder.join("roster")
    })
}

/// A running process. It is killed when it is dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    /// What it said until it was ready.
    pub said: Vec<String>,
}

impl Process {
    /// Starts `roster` with arguments and variables, its log in a file, and waits for its `ready` line.
    pub fn start(arguments: &[&str], variables: &[(String, String)], log: &Path) -> Self {
        Self::start_program(binary(), arguments, variables, log)
    }

    /// The same with another program, which says that it is ready in the same way.
    pub fn start_program(
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        log: &Path,
    ) -> Self {
        let mut process = Self::spawn_program(program, arguments, variables, log);
        let deadline = Instant::now() + READY_MAX;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match process.lines.recv_timeout(left) {
                Ok(line) => {
                    let ready = line.starts_with("ready");
                    process.said.push(line);
                    if ready {
                        return process;
                    }
                }
                Err(_) => {
                    let log = std::fs::read_to_string(log).unwrap_or_default();
                    panic!("{arguments:?} did not get ready:\n{log}");
                }
            }
        }
    }

    /// Starts `roster` and does not wait.
    pub fn spawn(arguments: &[&str], variables: &[(String, String)], log: &Path) -> Self {
        Self::spawn_program(binary(), arguments, variables, log)
    }

    fn spawn_program(
        program: &Path,
        arguments: &[&str],
        variables: &[(String, String)],
        log: &Path,
    ) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, lines) = sync_channel(64);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, said: Vec::new() }
    }

    /// A value of the `ready` line: `url`, `private`, `nats`, `mongodb`.
    pub fn value(&self, name: &str) -> String {
        let ready = self.said.last().unwrap();
        let prefix = format!("{name}=");
        let found = ready.split(' ').find_map(|part| part.strip_prefix(&prefix));
        found.unwrap_or_else(|| panic!("{name} in {ready:?}")).to_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, once it has by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL, and gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A signal by name, and its end.
    pub fn end(mut self, signal: &str) -> ExitStatus {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let deadline = Instant::now() + END_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "no end after {signal}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
