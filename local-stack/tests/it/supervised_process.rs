//! A supervised process: ready, restarted, stopped, killed, orphaned.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use local_stack::{
    DataDir, SupervisedProcess, SupervisedProcessError, SupervisedProcessOptions, testing,
};

use crate::support::{Role, is_alive, signal, wait_until};

/// The longest time for fast operations.
const SECONDS_MAX: u64 = 20;

/// A simple program: `provision` ends, `serve` reports ready and runs until it is stopped.
const PROGRAM: &str = r#"#!/bin/sh
case $1 in
provision)
    echo "colour=$COLOUR secret=$SECRET"
    ;;
serve)
    trap 'echo stopped cleanly; exit 0' TERM
    echo "about to be ready"
    echo "ready url=$URL pid=$$"
    while :; do sleep 0.1; done
    ;;
mute) echo nothing to say; while :; do sleep 0.1; done ;;
broken) echo "the reason is here"; exit 3 ;;
esac
"#;

/// The same program with its data in a folder.
pub fn in_folder(folder: &Path, data: &DataDir) -> SupervisedProcess {
    let executable = program(folder);
    let options = SupervisedProcessOptions {
        name: "gadget-service".to_owned(),
        executable,
        dir: data.companion("gadget-service"),
        variables: vec![("COLOUR".to_owned(), "red".to_owned())],
        hidden: vec!["SECRET".to_owned()],
    };
    SupervisedProcess::prepare(options).unwrap()
}

fn program(folder: &Path) -> PathBuf {
    let path = folder.join("gadget-service");
    fs::write(&path, PROGRAM).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

fn url(url: &str) -> [(String, String); 1] {
    [("URL".to_owned(), url.to_owned())]
}

fn logged(process: &SupervisedProcess) -> String {
    fs::read_to_string(process.log_file()).unwrap()
}

#[test]
fn waits_for_the_ready_line_and_restarts_with_other_variables() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let process = in_folder(folder.path(), &data);
    assert!(!process.is_running());
    process.run("provision", &[], SECONDS_MAX).unwrap();
    assert!(!process.is_running());

    let line = process.start("serve", &url("one"), SECONDS_MAX).unwrap();
    let first = process.pid().unwrap();
    assert_eq!(line, format!("ready url=one pid={first}"));
    // A kill by somebody else is noticed, and the process can be started again.
    assert!(signal("KILL", first));
    wait_until("the death is noticed", || !process.is_running());
    let line = process.start("serve", &url("two"), SECONDS_MAX).unwrap();
    let second = process.pid().unwrap();
    assert_eq!(line, format!("ready url=two pid={second}"), "the line of the new process");

    process.stop().unwrap();
    assert!(!is_alive(second));
    assert!(logged(&process).ends_with("stopped cleanly\n"), "{}", logged(&process));
    let over = process.start("serve", &url("three"), SECONDS_MAX).unwrap_err();
    assert!(matches!(over, SupervisedProcessError::Stopped { .. }), "{over}");
}

#[test]
fn gets_its_variables_but_not_hidden_ones() {
    let folder = testing::temp_dir();
    let said = Role::start("run a program", folder.path(), |command| {
        command.env("SECRET", "a password").env("COLOUR", "green");
    })
    .said();
    assert_eq!(said, "colour=red secret=");
}

#[test]
fn a_failed_start_is_an_error_with_the_end_of_the_log() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let process = in_folder(folder.path(), &data);
    for outcome in [
        process.run("broken", &[], SECONDS_MAX),
        process.start("broken", &[], SECONDS_MAX).map(|_| ()),
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, SupervisedProcessError::Exited { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("gadget-service broken") && text.contains("the reason is here"),
            "{text}"
        );
        assert!(text.contains("exit status: 3"), "{text}");
    }
    // It neither ends nor becomes ready, so it is stopped.
    for outcome in [process.run("mute", &[], 1), process.start("mute", &[], 1).map(|_| ())] {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, SupervisedProcessError::TooSlow { limit_seconds: 1, .. }),
            "{error}"
        );
        assert!(!process.is_running());
    }
    let none = SupervisedProcessOptions {
        name: "nothing".to_owned(),
        executable: folder.path().join("nothing"),
        dir: data.companion("nothing"),
        variables: Vec::new(),
        hidden: Vec::new(),
    };
    let none =
        SupervisedProcess::prepare(none).unwrap().start("serve", &[], SECONDS_MAX).unwrap_err();
    assert!(matches!(none, SupervisedProcessError::Exited { .. }), "{none}");
}

/// Stopping does not wait for a start.
#[test]
fn stopping_ends_a_pending_start() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let process = in_folder(folder.path(), &data);
    thread::scope(|scope| {
        let starting = scope.spawn(|| process.start("mute", &[], 600));
        wait_until("it runs", || logged(&process).contains("nothing to say"));
        process.stop().unwrap();
        let error = starting.join().unwrap().unwrap_err();
        assert!(matches!(error, SupervisedProcessError::Stopped { .. }), "{error}");
    });
    assert!(!process.is_running());
}

#[test]
fn ends_when_the_parent_is_killed() {
    let folder = testing::temp_dir();
    let mut parent = Role::start("hold a program", folder.path(), |_| ());
    let pid: u32 = parent.said().parse().unwrap();
    assert!(is_alive(pid));
    parent.kill();
    wait_until("the program ends with its parent", || !is_alive(pid));
    // Its lock is released with it.
    DataDir::open(folder.path().join("data")).unwrap();
}
