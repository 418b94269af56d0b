//! The examples as processes, with what they need beside the build.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use crate::wait_for;

/// Where the examples are.
#[must_use]
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").canonicalize().unwrap()
}

/// A folder beside the build, for what the examples need.
fn tools(name: &str) -> PathBuf {
    // target/<profile>/deps/<this>
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(3).unwrap().join("examples").join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a command to its end, or says what is missing.
fn must(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.unwrap_or_else(|error| {
        panic!("{command:?}: {error}. Node 20 with npm and Python 3 with venv are needed")
    });
    assert!(status.success(), "{command:?}: {status}");
}

/// Whether what was installed is what the example asks for now; when it is not, `install` is run and that is
/// noted. One test process at a time.
fn install(folder: &Path, wanted: &Path, install: impl FnOnce()) {
    let lock = File::options().create(true).append(true).open(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let installed = folder.join("installed");
    if fs::read(&installed).ok() != Some(fs::read(wanted).unwrap()) {
        install();
        fs::copy(wanted, installed).unwrap();
    }
}

/// The Python that has what the examples in it need.
#[must_use]
pub fn python() -> PathBuf {
    let (folder, wanted) = (tools("python"), examples().join("requirements.txt"));
    let python = folder.join("venv/bin/python");
    install(&folder, &wanted, || {
        must(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("venv")));
        must(
            Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
                .args(["--require-hashes", "-r"])
                .arg(&wanted),
        );
    });
    python
}

/// A copy of `subscriber.mjs` beside the modules it needs.
#[must_use]
pub fn javascript() -> PathBuf {
    let (folder, wanted) = (tools("node"), examples().join("package-lock.json"));
    install(&folder, &wanted, || {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(examples().join(file), folder.join(file)).unwrap();
        }
        let quiet = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        must(Command::new("npm").args(quiet).current_dir(&folder));
    });
    let script = folder.join("subscriber.mjs");
    fs::copy(examples().join("subscriber.mjs"), &script).unwrap();
    script
}

/// An example that runs.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts a command whose lines go to `said`.
    pub fn start(mut command: Command, said: &Said) -> Self {
        let program = format!("{:?}", command.get_program());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let (stdout, said) = (child.stdout.take().unwrap(), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                said.0.lock().unwrap().push(line);
            }
        });
        Self { child }
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and waits for the end.
    #[must_use]
    pub fn end(mut self) -> ExitStatus {
        must(Command::new("kill").arg(self.child.id().to_string()));
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already over, unless a test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of standard output.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    /// All of them so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Waits until there are so many.
    pub async fn has(&self, lines: usize) {
        wait_for(&format!("{lines} lines"), || async { self.lines().len() >= lines }).await;
    }
}

/// An example in Rust, as it is built by this workspace.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.ancestors().nth(2).unwrap().to_owned();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--package", name]);
    build.arg("--target-dir").arg(folder.parent().unwrap());
    if folder.ends_with("release") {
        build.arg("--release");
    }
    must(build.current_dir(env!("CARGO_MANIFEST_DIR")));
    folder.join(name)
}
