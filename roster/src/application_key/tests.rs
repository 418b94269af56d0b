//! What a rotation does to the files.

use std::fs;

use service_kit::keys::{CURSOR_KEY_FILE, LOOKUP_KEYS_FILE};
use service_kit::sealing::Sealer;

use super::*;
use crate::init;

const LEAD_S: u64 = 600;

fn files_of(dir: &Path, folder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(dir.join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.is_file())
        .map(|path| (path.display().to_string(), fs::read(&path).unwrap()))
        .collect();
    files.sort_unstable();
    files
}

fn ring(dir: &Path, folder: &str, file: &str) -> Ring {
    Ring::read(&dir.join(folder).join(file)).unwrap()
}

#[test]
fn a_rotation_reaches_the_reactor_with_keys_that_fit_those_of_the_command_side() {
    let dir = tempfile::tempdir().unwrap();
    init::keys(dir.path()).unwrap();
    let before = Sealer::new(ring(dir.path(), "reactor", MAIL_KEY_FILE)).unwrap();
    rotate(dir.path(), LEAD_S).unwrap();
    // As of after the lead.
    let due = |ring: Ring| ring.sealing_from(ambient::now());
    let application = due(ring(dir.path(), "command-api", APPLICATION_KEY_FILE));
    let commands = Sealer::new(application.derive(MAIL_KEY_PURPOSE)).unwrap();
    let reactor = Sealer::new(due(ring(dir.path(), "reactor", MAIL_KEY_FILE))).unwrap();
    let (old, new) =
        (before.seal(b"one", b"mail").unwrap(), commands.seal(b"one", b"mail").unwrap());
    assert_eq!(*reactor.open(b"one", &old).unwrap(), b"mail");
    assert_eq!(*reactor.open(b"one", &new).unwrap(), b"mail");
    assert!(before.open(b"one", &new).is_err(), "the old key alone does not open it");
}

#[test]
fn the_keys_of_records_stay_over_a_rotation() {
    let dir = tempfile::tempdir().unwrap();
    init::keys(dir.path()).unwrap();
    let read = || {
        [
            ("operator", LOOKUP_KEYS_FILE),
            ("command-api", LOOKUP_KEYS_FILE),
            ("reactor", GATE_KEY_FILE),
        ]
        .map(|(folder, file)| fs::read(dir.path().join(folder).join(file)).unwrap())
    };
    let before = read();
    assert_eq!(before[0], before[1]);
    rotate(dir.path(), LEAD_S).unwrap();
    init::keys(dir.path()).unwrap();
    assert_eq!(read(), before);
    let cursor = dir.path().join("query-api").join(CURSOR_KEY_FILE);
    assert!(SecretKey::read(&cursor).is_ok(), "what has nothing to do with it stays");
}

#[test]
fn a_system_of_an_older_version_gets_the_keys_of_records_with_its_first_rotation() {
    let dir = tempfile::tempdir().unwrap();
    init::keys(dir.path()).unwrap();
    let lookup = |folder| dir.path().join(folder).join(LOOKUP_KEYS_FILE);
    let before = fs::read(lookup("operator")).unwrap();
    for file in [lookup("operator"), lookup("command-api"), dir.path().join("reactor/gate.key")] {
        fs::remove_file(file).unwrap();
    }
    rotate(dir.path(), LEAD_S).unwrap();
    for folder in ["operator", "command-api"] {
        assert_eq!(fs::read(lookup(folder)).unwrap(), before, "{folder}");
    }
}

#[test]
fn a_second_rotation_waits_for_the_end_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    init::keys(dir.path()).unwrap();
    rotate(dir.path(), LEAD_S).unwrap();
    let folders = ["operator", "command-api", "reactor"];
    let before = folders.map(|folder| files_of(dir.path(), folder));
    rotate(dir.path(), LEAD_S).unwrap();
    assert_eq!(folders.map(|folder| files_of(dir.path(), folder)), before);
}

#[test]
fn an_interrupted_rotation_goes_on_with_the_same_key_and_a_lead_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    init::keys(dir.path()).unwrap();
    let services = || {
        [
            ("command-api", APPLICATION_KEY_FILE),
            ("reactor", LINK_KEY_FILE),
            ("reactor", MAIL_KEY_FILE),
        ]
        .map(|(folder, file)| dir.path().join(folder).join(file))
    };
    let before = services().map(|file| fs::read(file).unwrap());
    rotate(dir.path(), 5).unwrap();
    let operator = dir.path().join("operator").join(APPLICATION_KEY_FILE);
    let made = Ring::read(&operator).unwrap();
    // Killed behind the operator's file, and long ago.
    made.clone().sealing_from(ambient::now().minus_seconds(60)).write(&operator).unwrap();
    for (file, content) in services().iter().zip(before) {
        fs::write(file, content).unwrap();
    }
    rotate(dir.path(), LEAD_S).unwrap();
    let resumed = Ring::read(&operator).unwrap();
    assert!(resumed.seals_from().unwrap() > ambient::now().plus_seconds(LEAD_S / 2));
    let same_time = resumed.clone().sealing_from(made.seals_from().unwrap());
    assert_eq!(*same_time.text(), *made.text(), "the same keys");
    assert!(is_handed_out(dir.path(), &resumed));
}

#[test]
fn a_lead_that_no_service_could_keep_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    init::keys(dir.path()).unwrap();
    let before = files_of(dir.path(), "operator");
    assert!(rotate(dir.path(), LEAD_MIN_S - 1).is_err());
    assert_eq!(files_of(dir.path(), "operator"), before);
}
