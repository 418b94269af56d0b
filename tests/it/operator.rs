//! The operator's commands.

use std::process::Command;

use e2e::binary;

fn roster(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output =
        Command::new(binary()).args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_configuration_is_checked_whole() {
    let (code, stdout, _) = roster(&["check-config"], &[]);
    assert_eq!((code, stdout.as_str()), (Some(0), "the configuration is valid\n"));

    let dir = local_stack::testing::temp_dir();
    let file = dir.path().join("roster.toml");
    std::fs::write(
        &file,
        "[http]\nlisten = '127.0.0.1:80'\nlissten = 'x'\ntrusted_proxies = '10.0.0.0/8, gateway'\n\
         [passwords]\nmemory_kib = 8\n",
    )
    .unwrap();
    let variables = [("ROSTER_TOKENS_ISUER", "x"), ("ROSTER_NATS_REQUEST_TIMEOUT_MS", "soon")];
    let (code, _, stderr) =
        roster(&["check-config", "--config", file.to_str().unwrap()], &variables);
    assert_eq!(code, Some(1));
    for part in [
        "http.lissten",
        "http.trusted_proxies",
        "passwords.memory_kib",
        "ROSTER_TOKENS_ISUER",
        "ROSTER_NATS_REQUEST_TIMEOUT_MS",
    ] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    // A service refuses the same, before it opens anything.
    let (code, _, stderr) = roster(&["command-api"], &variables);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("ROSTER_TOKENS_ISUER"), "{stderr}");
    assert_eq!(roster(&["no-such-command"], &[]).0, Some(2));
}

#[test]
fn a_service_says_what_it_misses() {
    let dir = local_stack::testing::temp_dir();
    let path = dir.path().to_str().unwrap();
    let free =
        [("ROSTER_HTTP_LISTEN", "127.0.0.1:0"), ("ROSTER_HTTP_PRIVATE_LISTEN", "127.0.0.1:0")];
    let (code, _, stderr) =
        roster(&["command-api"], &[free[0], free[1], ("ROSTER_SECRETS_DIR", path)]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("application.key") && stderr.contains("roster init"), "{stderr}");

    assert_eq!(roster(&["init", "--dir", path], &[]).0, Some(0));
    let secrets = format!("{path}/command-api");
    let nobody = ("ROSTER_NATS_URL", "nats://127.0.0.1:9");
    let (code, _, stderr) =
        roster(&["command-api"], &[free[0], free[1], nobody, ("ROSTER_SECRETS_DIR", &secrets)]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot connect to NATS"), "{stderr}");
    let (code, _, stderr) = roster(&["health", "--url", "http://127.0.0.1:9/readyz"], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot connect"), "{stderr}");
}

#[test]
fn keys_are_made_once_and_shared_out_sparingly() {
    let dir = local_stack::testing::temp_dir();
    let path = dir.path().to_str().unwrap();
    let files = || {
        let mut files = Vec::new();
        for folder in ["operator", "command-api", "query-api", "projector", "reactor", "nats"] {
            for entry in std::fs::read_dir(dir.path().join(folder)).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_file() {
                    let mut name = entry.file_name().into_string().unwrap();
                    if name.starts_with("signing-") {
                        name = "signing-*.pem".to_owned();
                    }
                    let name = format!("{folder}/{name}");
                    files.push((name, std::fs::read(entry.path()).unwrap()));
                }
            }
        }
        files.sort();
        files
    };
    assert_eq!(roster(&["init", "--dir", path], &[]).0, Some(0));
    let first = files();
    assert_eq!(roster(&["init", "--dir", path], &[]).0, Some(0));
    assert_eq!(files(), first, "what is there stays");
    // As an older version left it: without the keys of later accounts, and with what it allowed.
    let at = |name: &str| dir.path().join(name);
    let later = ["services.nk", "subscribers.nk"];
    for key in later {
        std::fs::remove_file(at("operator/nats/seeds").join(key)).unwrap();
    }
    std::fs::write(at("nats/auth.conf"), "old").unwrap();
    assert_eq!(roster(&["init", "--dir", path], &[]).0, Some(0));
    for (before, after) in first.iter().zip(files()) {
        let renewed =
            before.0 == "nats/auth.conf" || later.iter().any(|key| before.0.ends_with(key));
        assert!(renewed || *before == after, "{} is another", before.0);
        assert_ne!(after.1, b"old");
    }
    let first = files();
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "command-api/application.key",
            "command-api/keys.json",
            "command-api/nats.creds",
            "command-api/signing-*.pem",
            "nats/auth.conf",
            "operator/application.key",
            "operator/keys.json",
            "operator/nats.creds",
            "operator/signing-*.pem",
            "projector/nats.creds",
            "query-api/cursor.key",
            "query-api/keys.json",
            "query-api/nats.creds",
            "reactor/link.key",
            "reactor/mail.key",
            "reactor/nats.creds",
        ]
    );
}

/// docs/security.md names tests: each of them is there.
#[test]
fn the_table_of_what_holds_names_tests_that_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with('|')) {
        let mut file = String::new();
        for quoted in line.split('`').skip(1).step_by(2) {
            let (path, name) = quoted.split_once("::").unwrap_or((quoted, ""));
            let is_file = path.ends_with(".rs");
            if is_file {
                file = std::fs::read_to_string(root.join(path))
                    .unwrap_or_else(|error| panic!("{path}: {error}"));
            }
            if (is_file || path.is_empty()) && !name.is_empty() {
                assert!(file.contains(&format!("fn {name}(")), "{name} in {line}");
                named += 1;
            }
        }
    }
    assert!(named > 40, "{named} tests are named");
}
