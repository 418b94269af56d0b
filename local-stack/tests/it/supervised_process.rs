//! A further program: ready, restarted, stopped, killed, orphaned.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use local_stack::{
    DataDir, SupervisedProcess, SupervisedProcessError, SupervisedProcessOptions, testing,
};

use crate::support::{Role, is_alive, signal, wait_until};

/// Longest time for what is quick.
const SECONDS_MAX: u64 = 20;

/// A program like any other: `provision` ends, `serve` says that it is ready and goes on until it is told to stop.
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

fn logged(companion: &SupervisedProcess) -> String {
    fs::read_to_string(companion.log_file()).unwrap()
}

#[test]
fn it_is_ready_when_it_says_so_and_starts_again_with_other_variables() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let companion = in_folder(folder.path(), &data);
    assert!(!companion.is_running());
    companion.run("provision", &[], SECONDS_MAX).unwrap();
    assert!(!companion.is_running());

    let line = companion.start("serve", &url("one"), SECONDS_MAX).unwrap();
    let first = companion.pid().unwrap();
    assert_eq!(line, format!("ready url=one pid={first}"));
    // What somebody else kills is noticed, and started again.
    assert!(signal("KILL", first));
    wait_until("the death is noticed", || !companion.is_running());
    let line = companion.start("serve", &url("two"), SECONDS_MAX).unwrap();
    let second = companion.pid().unwrap();
    assert_eq!(line, format!("ready url=two pid={second}"), "not the line of before");

    companion.stop().unwrap();
    assert!(!is_alive(second));
    assert!(logged(&companion).ends_with("stopped cleanly\n"), "{}", logged(&companion));
    let over = companion.start("serve", &url("three"), SECONDS_MAX).unwrap_err();
    assert!(matches!(over, SupervisedProcessError::Stopped { .. }), "{over}");
}

#[test]
fn it_gets_its_variables_and_not_those_that_are_hidden() {
    let folder = testing::temp_dir();
    let said = Role::start("run a program", folder.path(), |command| {
        command.env("SECRET", "a password").env("COLOUR", "green");
    })
    .said();
    assert_eq!(said, "colour=red secret=");
}

#[test]
fn what_ends_or_says_nothing_is_an_error_with_the_end_of_its_log() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let companion = in_folder(folder.path(), &data);
    for outcome in [
        companion.run("broken", &[], SECONDS_MAX),
        companion.start("broken", &[], SECONDS_MAX).map(|_| ()),
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
    // Neither ready nor over: stopped.
    for outcome in [companion.run("mute", &[], 1), companion.start("mute", &[], 1).map(|_| ())] {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, SupervisedProcessError::TooSlow { limit_seconds: 1, .. }),
            "{error}"
        );
        assert!(!companion.is_running());
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

/// The end does not wait for a beginning.
#[test]
fn a_stop_ends_the_wait_for_a_start() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let companion = in_folder(folder.path(), &data);
    thread::scope(|scope| {
        let starting = scope.spawn(|| companion.start("mute", &[], 600));
        wait_until("it runs", || logged(&companion).contains("nothing to say"));
        companion.stop().unwrap();
        let error = starting.join().unwrap().unwrap_err();
        assert!(matches!(error, SupervisedProcessError::Stopped { .. }), "{error}");
    });
    assert!(!companion.is_running());
}

#[test]
fn it_ends_with_a_parent_that_is_killed() {
    let folder = testing::temp_dir();
    let mut parent = Role::start("hold a program", folder.path(), |_| ());
    let pid: u32 = parent.said().parse().unwrap();
    assert!(is_alive(pid));
    parent.kill();
    wait_until("the program ends with its parent", || !is_alive(pid));
    // Its lock goes with it.
    DataDir::open(folder.path().join("data")).unwrap();
}
