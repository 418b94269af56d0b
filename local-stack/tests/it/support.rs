//! Waiting for states, and second processes: this test binary in another role.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use local_stack::testing;
use local_stack::{Binaries, DataDir, Mongod, MongodOptions, NatsOptions, NatsServer};

use crate::supervised_process;

/// How long to wait for a state: longer than the guard's own limits.
const WAIT_MAX_SECONDS: u64 = 20;
const POLL_INTERVAL_MS: u64 = 10;
/// The role that [`play_role`] plays in a second process.
const ROLE: &str = "LOCAL_STACK_TEST_ROLE";
/// The folder of a role.
const FOLDER: &str = "LOCAL_STACK_TEST_FOLDER";
/// Prefix of a role's output, to distinguish it from that of the test harness.
const SAID: &str = "role says: ";

pub fn wait_until(state: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(
            start.elapsed() < Duration::from_secs(WAIT_MAX_SECONDS),
            "not within {WAIT_MAX_SECONDS} s: {state}"
        );
        std::thread::sleep(Duration::from_millis(POLL_INTERVAL_MS));
    }
}

pub fn is_alive(pid: u32) -> bool {
    signal("0", pid)
}

/// Sends a signal. Returns whether the process existed.
pub fn signal(signal: &str, pid: u32) -> bool {
    Command::new("/bin/sh")
        .args(["-c", r#"kill -"$1" "$2""#, "signal", signal])
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .success()
}

pub fn nats_in(data: &DataDir) -> NatsServer {
    NatsServer::start(
        testing::binaries(),
        NatsOptions { data_dir: data.nats(), port: None, config: String::new() },
    )
    .unwrap()
}

pub fn mongod_in(data: &DataDir) -> Mongod {
    Mongod::start(testing::binaries(), MongodOptions { data_dir: data.mongod(), port: None })
        .unwrap()
}

/// A second process in a role. Killed with SIGKILL when dropped.
pub struct Role {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Role {
    pub fn start(role: &str, folder: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "support::play_role", "--nocapture"])
            .env(ROLE, role)
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, output }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next line of the role's output.
    pub fn said(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(
                self.output.read_line(&mut line).unwrap(),
                0,
                "the role ended without a word"
            );
            // The harness does not end its own line before a test prints.
            if let Some((_, said)) = line.split_once(SAID) {
                return said.trim_end().to_owned();
            }
        }
    }

    /// Kills the process, which it cannot notice.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does nothing in an ordinary test run.
#[test]
fn play_role() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let folder = std::env::var_os(FOLDER).unwrap();
    let folder = Path::new(&folder);
    match role.as_str() {
        "hold a data folder with servers" => {
            let data = DataDir::open(folder).unwrap();
            let (nats, mongod) = (nats_in(&data), mongod_in(&data));
            say(&format!("{} {}", nats.pid().unwrap(), mongod.pid().unwrap()));
            hang();
        }
        "run a program" => {
            let data = DataDir::open(folder.join("data")).unwrap();
            let companion = supervised_process::in_folder(folder, &data);
            companion.run("provision", &[], WAIT_MAX_SECONDS).unwrap();
            say(&std::fs::read_to_string(companion.log_file()).unwrap());
        }
        "hold a program" => {
            let data = DataDir::open(folder.join("data")).unwrap();
            let companion = supervised_process::in_folder(folder, &data);
            companion.start("serve", &[], WAIT_MAX_SECONDS).unwrap();
            say(&companion.pid().unwrap().to_string());
            hang();
        }
        "hold shared servers" => {
            let nats = testing::nats(String::new);
            let mongod = testing::mongod();
            say(&format!("{} {}", nats.pid().unwrap(), mongod.pid().unwrap()));
            say(nats.log_file().to_str().unwrap());
            say(mongod.log_file().to_str().unwrap());
        }
        "obtain" => match Binaries::obtain(&|_| ()) {
            Ok(binaries) => say(&format!("{binaries:?}")),
            Err(error) => say(&error.to_string()),
        },
        other => panic!("no such role: {other}"),
    }
}

fn say(words: &str) {
    println!("{SAID}{words}");
}

/// Runs until killed.
fn hang() -> ! {
    loop {
        std::thread::park();
    }
}
