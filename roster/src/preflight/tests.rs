use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use service_kit::config::{DEFAULTS, Source};

use super::*;
use crate::init;

/// A folder as `roster init` makes it.
fn keys() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    init::all(dir.path(), &[]).unwrap();
    dir
}

fn examined(given: &[(&str, String)]) -> Examined<Settings> {
    let given = given.iter().map(|(name, value)| (format!("ROSTER_{name}"), value.clone()));
    Source { defaults: DEFAULTS, prefix: "ROSTER_", others: &[] }.examine("", given).unwrap()
}

/// What is said about a process: its faults, or its warnings.
fn looked_at(process: Process, given: &[(&str, String)]) -> (Vec<String>, Vec<String>) {
    match of(process, examined(given), None) {
        Ok((_, warnings)) => (Vec::new(), warnings),
        Err(error) => (faults_in(&error), Vec::new()),
    }
}

fn faults_in(error: &ConfigError) -> Vec<String> {
    let lines = error.to_string();
    // Behind everything that is refused one line says why it is.
    lines.lines().skip(1).filter(|line| !line.contains("the default")).map(str::to_owned).collect()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// What docker-compose.yml gives a process, or an operator of servers with TLS.
fn good(root: &Path, folder: &str) -> Vec<(&'static str, String)> {
    let (dir, ca) = (root.join(folder), root.join("ca.pem"));
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let url = "mongodb://u:p@mongod:27017/?replicaSet=rs0&tls=true";
    vec![
        ("NATS_URL", "tls://nats:4222".to_owned()),
        ("NATS_CREDENTIALS_FILE", text(&dir.join("nats.creds"))),
        ("NATS_CA_FILE", text(&ca)),
        ("MONGODB_URL", url.to_owned()),
        ("SECRETS_DIR", text(&dir)),
        ("TOKENS_ISSUER", "https://id.example.com".to_owned()),
        ("MAIL_TRANSPORT", "smtp".to_owned()),
        ("MAIL_SMTP_URL", "smtps://u:p@mail.example.com".to_owned()),
        ("LOG_REPLICAS", "3".to_owned()),
    ]
}

const ALL: [(Process, &str); 6] = [
    (Process::CommandApi, "command-api"),
    (Process::QueryApi, "query-api"),
    (Process::Projector, "projector"),
    (Process::Reactor, "reactor"),
    (Process::Provision, "operator"),
    (Process::Operator, "operator"),
];

#[test]
fn a_secure_configuration_is_good_for_every_process() {
    let root = keys();
    for (process, folder) in ALL {
        let found = looked_at(process, &good(root.path(), folder));
        assert_eq!(found, (Vec::new(), Vec::new()), "{process:?}");
    }
}

/// One setting changed for the worse, for the process that it matters to.
#[test]
fn production_refuses_what_development_warns_of() {
    let root = keys();
    let public = root.path().join("public");
    fs::write(&public, "mongodb://u:p@mongod/?tls=true\n").unwrap();
    fs::set_permissions(&public, fs::Permissions::from_mode(0o644)).unwrap();
    for (process, folder, name, value, part) in [
        (
            Process::CommandApi,
            "command-api",
            "NATS_CREDENTIALS_FILE",
            "",
            "nats.credentials_file is not",
        ),
        (Process::QueryApi, "query-api", "MONGODB_URL", "mongodb://u:p@mongod/", "add tls=true"),
        (
            Process::Projector,
            "projector",
            "MONGODB_URL",
            "mongodb://mongod/?tls=true",
            "names no user",
        ),
        (
            Process::QueryApi,
            "query-api",
            "MONGODB_URL",
            "mongodb://u:p@mongod/?tls=true&tlsInsecure=true",
            "check of the server's certificate off",
        ),
        (
            Process::Projector,
            "projector",
            "MONGODB_URL",
            "mongodb://u:p@mongod/?tls=true&TLSALLOWINVALIDCERTIFICATES=true",
            "check of the server's certificate off",
        ),
        (Process::CommandApi, "command-api", "MAIL_SMTP_URL_FILE", &text(&public), "has mode 0644"),
        (Process::QueryApi, "query-api", "TOKENS_ISSUER", "http://id.example.com", "tokens.issuer"),
        (
            Process::CommandApi,
            "command-api",
            "TOKENS_ISSUER",
            "example",
            "tokens.issuer is not a URL",
        ),
        (Process::Projector, "projector", "TOKENS_ISSUER", "example", "tokens.issuer is not a URL"),
        (Process::CommandApi, "command-api", "THROTTLE_ENABLED", "false", "throttle.enabled"),
        (
            Process::Reactor,
            "reactor",
            "MAIL_LINK_BASE",
            "http://id.example.com/links",
            "mail.link_base",
        ),
        (Process::Provision, "operator", "LOG_REPLICAS", "1", "log.allow_single_replica"),
        (Process::Projector, "projector", "MONGODB_URL_FILE", &text(&public), "has mode 0644"),
    ] {
        let mut given = good(root.path(), folder);
        given.retain(|(known, _)| *known != name && name.strip_suffix("_FILE") != Some(*known));
        given.push((name, value.to_owned()));
        let (faults, _) = looked_at(process, &given);
        assert!(faults.len() == 1 && faults[0].contains(part), "{name}: {faults:?}");
        given.push(("DEPLOYMENT", "development".to_owned()));
        let (faults, warnings) = looked_at(process, &given);
        assert_eq!(faults, Vec::<String>::new(), "{name}");
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{name}: {warnings:?}");
    }
}

#[test]
fn a_connection_without_tls_can_be_allowed_alone() {
    let root = keys();
    let mut given = good(root.path(), "query-api");
    given.retain(|(name, _)| !["NATS_CA_FILE", "NATS_URL", "MONGODB_URL"].contains(name));
    given.push(("NATS_URL", "nats://nats:4222".to_owned()));
    given.push(("MONGODB_URL", "mongodb://u:p@mongod/".to_owned()));
    let (faults, _) = looked_at(Process::QueryApi, &given);
    assert_eq!(faults.len(), 2, "{faults:?}");
    given.push(("ALLOW_PLAIN", "nats".to_owned()));
    let (faults, _) = looked_at(Process::QueryApi, &given);
    assert!(faults.len() == 1 && faults[0].contains("mongodb.url"), "{faults:?}");
}

#[test]
fn one_copy_of_the_log_can_be_allowed() {
    let root = keys();
    let mut given = good(root.path(), "operator");
    given.retain(|(name, _)| *name != "LOG_REPLICAS");
    given.push(("LOG_ALLOW_SINGLE_REPLICA", "true".to_owned()));
    assert_eq!(looked_at(Process::Provision, &given), (Vec::new(), Vec::new()));
}

#[test]
fn mails_into_a_folder_are_refused_in_production() {
    let root = keys();
    let mut given = good(root.path(), "reactor");
    given.push(("MAIL_FOLDER", "mail".to_owned()));
    given.push(("MAIL_TRANSPORT", "folder".to_owned()));
    let (faults, _) = looked_at(Process::Reactor, &given);
    assert!(faults.len() == 1 && faults[0].contains("mail.transport is folder"), "{faults:?}");
}

#[test]
fn a_secret_is_for_its_owner_or_where_that_is_allowed_for_its_group() {
    let root = keys();
    let key = root.path().join("command-api").join(APPLICATION_KEY_FILE);
    let mut given = good(root.path(), "command-api");
    for (mode, with_group, good) in [
        (0o600, false, true),
        (0o400, false, true),
        (0o440, false, false),
        (0o604, false, false),
        (0o440, true, true),
        (0o640, true, true),
        (0o660, true, false),
        (0o444, true, false),
    ] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        given.retain(|(name, _)| *name != "SECRETS_ALLOW_GROUP_READ");
        given.push(("SECRETS_ALLOW_GROUP_READ", with_group.to_string()));
        let (faults, _) = looked_at(Process::CommandApi, &given);
        assert_eq!(faults.is_empty(), good, "{mode:o} {with_group} {faults:?}");
    }
}

/// Each of them used to be called valid, and no service started.
#[test]
fn what_a_start_would_find_is_found_before() {
    let root = keys();
    let nowhere = PathBuf::from("/nowhere/file");
    for (process, folder, name, value, part) in [
        (Process::Reactor, "reactor", "MAIL_SMTP_URL", "smtp://mail.example.com", "without TLS"),
        (Process::Reactor, "reactor", "MAIL_FROM", "nobody", "mail.from is not a mailbox"),
        (Process::Reactor, "reactor", "MAIL_TRANSPORT", "folder", "mail.folder must be set"),
        (
            Process::Reactor,
            "reactor",
            "TOKENS_ISSUER",
            "http://127.0.0.1:8080",
            "only this machine can open",
        ),
        (
            Process::QueryApi,
            "query-api",
            "MONGODB_URL",
            "mongodb://u:42?x@host/",
            "percent-encoded",
        ),
        (
            Process::CommandApi,
            "command-api",
            "NATS_URL",
            "tls://u:Kestrel?42@host",
            "percent-encoded",
        ),
        (
            Process::CommandApi,
            "command-api",
            "TELEMETRY_LOG",
            "info,=",
            "telemetry.log is not a filter",
        ),
        (Process::CommandApi, "command-api", "NATS_CA_FILE", &text(&nowhere), "nats.ca_file"),
        (
            Process::CommandApi,
            "command-api",
            "NATS_CREDENTIALS_FILE",
            &text(&nowhere),
            "cannot read",
        ),
        (Process::CommandApi, "command-api", "SECRETS_DIR", "", "secrets.dir is not set"),
        (Process::CommandApi, "command-api", "SECRETS_DIR", &text(&nowhere), "application.key"),
        (Process::QueryApi, "query-api", "SECRETS_DIR", &text(&nowhere), "cursor.key"),
        (Process::Reactor, "reactor", "SECRETS_DIR", &text(&nowhere), "link.key"),
        (
            Process::Reactor,
            "reactor",
            "ERASURE_CREDENTIALS_FILE",
            &text(&nowhere),
            "erasure.credentials_file: cannot read",
        ),
    ] {
        for deployment in ["production", "development"] {
            let mut given = good(root.path(), folder);
            given.retain(|(known, _)| *known != name);
            given.push((name, value.to_owned()));
            given.push(("DEPLOYMENT", deployment.to_owned()));
            let (faults, _) = looked_at(process, &given);
            assert!(faults.iter().any(|fault| fault.contains(part)), "{name}: {faults:?}");
            assert!(!faults.iter().any(|fault| fault.contains("Kestrel")), "{faults:?}");
        }
    }
}

#[test]
fn a_file_with_settings_is_a_secret_when_a_password_is_in_it() {
    let root = keys();
    let file = root.path().join("projector.toml");
    let given = good(root.path(), "projector");
    let given: Vec<_> = given.into_iter().filter(|(name, _)| *name != "MONGODB_URL").collect();
    let variables = || given.iter().map(|(name, value)| (format!("ROSTER_{name}"), value.clone()));
    let source = Source { defaults: DEFAULTS, prefix: "ROSTER_", others: &[] };
    for (url, good) in
        [("mongodb://u:p@mongod/?tls=true", false), ("mongodb://127.0.0.1/?replicaSet=rs0", true)]
    {
        let text = format!("[mongodb]\nurl = '{url}'\n");
        fs::write(&file, &text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        let looked =
            of(Process::Projector, source.examine(&text, variables()).unwrap(), Some(&file));
        assert_eq!(looked.is_ok(), good, "{url}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        of(Process::Projector, source.examine(&text, variables()).unwrap(), Some(&file)).unwrap();
    }
}

#[test]
fn the_credentials_of_the_eraser_must_be_beside_those_of_the_mailer_where_none_are_set() {
    let root = keys();
    let file = root.path().join("reactor").join("eraser.creds");
    let found = || looked_at(Process::Reactor, &good(root.path(), "reactor")).0;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(found()[0].contains("eraser.creds has mode 0644"), "{:?}", found());
    fs::write(&file, "nothing").unwrap();
    assert!(found()[0].contains("does not hold credentials of a NATS user"), "{:?}", found());
    fs::remove_file(&file).unwrap();
    assert!(found()[0].contains("erasure.credentials_file: cannot read"), "{:?}", found());
}

#[test]
fn the_keys_of_records_must_be_there_once_the_application_key_was_rotated() {
    let root = keys();
    let lookups = [
        (Process::CommandApi, "command-api", LOOKUP_KEYS_FILE),
        (Process::Reactor, "reactor", GATE_KEY_FILE),
    ];
    for (process, folder, file) in lookups {
        fs::remove_file(root.path().join(folder).join(file)).unwrap();
        let (faults, _) = looked_at(process, &good(root.path(), folder));
        assert_eq!(faults, Vec::<String>::new(), "they are made of a key that was never rotated");
    }
    crate::application_key::rotate(root.path(), 600).unwrap();
    for (process, folder, file) in lookups {
        let good = good(root.path(), folder);
        assert_eq!(looked_at(process, &good).0, Vec::<String>::new(), "a rotation brings them");
        fs::remove_file(root.path().join(folder).join(file)).unwrap();
        let (faults, _) = looked_at(process, &good);
        assert!(faults.len() == 1 && faults[0].contains(file), "{faults:?}");
    }
}

#[test]
fn a_key_that_somebody_typed_is_no_key() {
    let root = keys();
    let file = root.path().join("query-api").join(CURSOR_KEY_FILE);
    // 32 bytes of one letter in base64.
    fs::write(&file, "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n").unwrap();
    let (faults, _) = looked_at(Process::QueryApi, &good(root.path(), "query-api"));
    assert!(faults.len() == 1 && faults[0].contains("random bytes"), "{faults:?}");
}

#[test]
fn all_faults_of_every_kind_are_reported_together() {
    let root = keys();
    let mut given = good(root.path(), "command-api");
    given.retain(|(name, _)| !["NATS_URL", "NATS_CA_FILE", "TOKENS_ISSUER"].contains(name));
    given.extend([
        ("NATS_URL", "nats://nats:4222".to_owned()),
        ("NATS_URLL", String::new()),
        ("TOKENS_ISSUER", "http://id.example.com".to_owned()),
        ("THROTTLE_ENABLED", "false".to_owned()),
        ("PASSWORDS_PASSES", "0".to_owned()),
        ("TELEMETRY_LOG", "info,=".to_owned()),
    ]);
    let (faults, _) = looked_at(Process::CommandApi, &given);
    assert_eq!(faults.len(), 6, "{faults:?}");
}

#[test]
fn without_a_service_the_keys_that_are_there_are_looked_at() {
    let root = keys();
    let given = good(root.path(), "reactor");
    assert_eq!(of_all(examined(&given), None), Ok(Vec::new()));
    fs::remove_file(root.path().join("reactor").join(MAIL_KEY_FILE)).unwrap();
    let faults = faults_in(&of_all(examined(&given), None).unwrap_err());
    assert!(faults.len() == 1 && faults[0].contains(MAIL_KEY_FILE), "{faults:?}");
    fs::remove_file(root.path().join("reactor").join(LINK_KEY_FILE)).unwrap();
    let faults = faults_in(&of_all(examined(&given), None).unwrap_err());
    assert!(faults.len() == 1 && faults[0].contains("keys of no service"), "{faults:?}");
}

#[test]
fn a_secret_that_an_option_names_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.identity");
    fs::write(&file, "secret").unwrap();
    let settings = |deployment: &str| examined(&[("DEPLOYMENT", deployment.to_owned())]).settings;
    for (mode, is_refused) in [(0o600, false), (0o644, true), (0o640, true), (0o606, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let found = private_file(&settings("production"), "--identity", &file);
        assert_eq!(found.is_err(), is_refused, "{mode:o}");
        assert!(private_file(&settings("development"), "--identity", &file).is_ok(), "{mode:o}");
    }
}
