//! The operator's commands.

use std::process::{Command, Stdio};

use e2e::binary;

fn roster(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output =
        Command::new(binary()).args(arguments).envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_configuration_is_checked_whole() {
    let dir = local_stack::testing::temp_dir();
    let secrets = dir.path().join("secrets");
    assert_eq!(roster(&["init", "--dir", secrets.to_str().unwrap()], &[]).0, Some(0));
    let own = secrets.join("command-api");
    let creds = own.join("nats.creds");
    let good = [
        ("ROSTER_SECRETS_DIR", own.to_str().unwrap()),
        ("ROSTER_NATS_CREDENTIALS_FILE", creds.to_str().unwrap()),
        ("ROSTER_TOKENS_ISSUER", "https://id.example.com"),
    ];
    let (code, stdout, stderr) = roster(&["check-config", "--service", "command-api"], &good);
    assert_eq!((code, stdout.as_str()), (Some(0), "the configuration is valid\n"), "{stderr}");
    // What the other services would refuse is looked at when none is named.
    let (code, _, stderr) = roster(&["check-config"], &good);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("mail.transport is folder"), "{stderr}");
    let quiet =
        [("ROSTER_DEPLOYMENT", "development"), ("ROSTER_MAIL_FOLDER", "mail"), good[0], good[1]];
    let (code, stdout, stderr) = roster(&["check-config"], &quiet);
    assert_eq!((code, stdout.as_str()), (Some(0), "the configuration is valid\n"), "{stderr}");
    assert!(stderr.contains("insecure: mail.transport is folder"), "{stderr}");

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
    // A service refuses the same, and what it would find at its start with it, before it opens anything.
    let (code, _, stderr) = roster(&["command-api"], &variables);
    assert_eq!(code, Some(1));
    for part in
        ["ROSTER_TOKENS_ISUER", "secrets.dir is not set", "nats.credentials_file is not set"]
    {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    assert_eq!(roster(&["no-such-command"], &[]).0, Some(2));
}

/// Every way in which a secret gets into a process, with a slip that makes a library say something.
#[test]
fn no_error_of_a_process_repeats_a_secret() {
    const SECRET: &str = "Kestrel42x";
    let dir = local_stack::testing::temp_dir();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let slip =
        file("slip.toml", &format!("[mongodb]\nurl = \"mongodb://roster:\\P{SECRET}@db/\"\n"));
    let dotenv =
        file(".env", &format!("ROSTER_ADMIN_PASSWORD={SECRET}\nROSTER_MONGODB_URL={SECRET}\n"));
    let quoted = file("quoted.env", &format!("ROSTER_ADMIN_PASSWORD=\"{SECRET}\"\n"));
    let two = file("two", &format!("{SECRET}\n{SECRET}\n"));
    let processes =
        ["command-api", "query-api", "projector", "reactor", "provision", "check-config"];
    let looks: [&[&str]; 4] =
        [&["verify"], &["lag"], &["user", "show", "ada@example.com"], &["rebuild", "all"]];
    let commands = processes.iter().map(|name| vec![*name]).chain(looks.map(<[&str]>::to_vec));
    let mut tried = 0;
    for command in commands {
        for (name, value) in [
            ("ROSTER_CONFIG", slip.clone()),
            ("ROSTER_CONFIG", dotenv.clone()),
            ("ROSTER_CONFIG", quoted.clone()),
            ("ROSTER_MONGODB_URL", format!("mongodb://roster:{SECRET}?42@host/")),
            ("ROSTER_MONGODB_URL", format!("mongodb://roster:{SECRET}%zz@host/")),
            ("ROSTER_MONGODB_URL_FILE", two.clone()),
            ("ROSTER_NATS_URL", format!("nats://roster:{SECRET}?42@host/")),
            ("ROSTER_NATS_URL", format!("nats://roster:{SECRET}@127.0.0.1:9")),
            ("ROSTER_NATS_CREDENTIALS_FILE", two.clone()),
            ("ROSTER_MAIL_SMTP_URL", format!("smtp://roster:{SECRET}@mail.example.com")),
            ("ROSTER_TELEMETRY_OTLP_ENDPOINT", format!("http://roster:{SECRET}@collector:4318")),
            ("ROSTER_TELEMETRY_LOG", format!("{SECRET}=,")),
            ("ROSTER_PASSWORDS_THREADS", SECRET.to_owned()),
            ("ROSTER_MAIL_TRANSPORT", SECRET.to_owned()),
        ] {
            let variables =
                [("ROSTER_DEPLOYMENT", "development"), ("ROSTER_MAIL_TRANSPORT", "smtp")];
            let given = variables.into_iter().chain([(name, value.as_str())]).collect::<Vec<_>>();
            let (code, stdout, stderr) = roster(&command, &given);
            tried += 1;
            assert_eq!(code, Some(1), "{command:?} {name}={value}: {stdout}{stderr}");
            assert!(
                !stdout.contains("Kestrel") && !stderr.contains("Kestrel"),
                "{command:?} {name}: {stderr}"
            );
        }
    }
    assert_eq!(tried, 10 * 14);
}

/// As behind `head`: nobody reads.
#[test]
fn what_nobody_reads_ends_quietly() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(binary());
    let output = command.arg("openapi").stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.as_str()), (Some(0), ""));
}

/// Every command that somebody types has an example.
#[test]
fn every_command_of_subscribers_and_parked_has_an_example() {
    let subscribers = ["add", "list", "lag", "remove", "creds"].map(|name| ["subscribers", name]);
    let parked = ["list", "show", "retry", "drop"].map(|name| ["parked", name]);
    for [group, name] in subscribers.into_iter().chain(parked) {
        let (code, help, _) = roster(&[group, name, "--help"], &[]);
        assert_eq!(code, Some(0));
        assert!(help.contains(&format!("roster {group} {name}")), "{help}");
        assert!(help.contains("Example"), "{help}");
    }
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
    let creds = format!("{secrets}/nats.creds");
    let creds = ("ROSTER_NATS_CREDENTIALS_FILE", creds.as_str());
    let (code, _, stderr) = roster(
        &["command-api"],
        &[free[0], free[1], nobody, ("ROSTER_SECRETS_DIR", &secrets), creds],
    );
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
            "command-api/lookup.key",
            "command-api/nats.creds",
            "command-api/signing-*.pem",
            "nats/auth.conf",
            "operator/application.key",
            "operator/keys.json",
            "operator/lookup.key",
            "operator/nats.creds",
            "operator/signing-*.pem",
            "projector/nats.creds",
            "query-api/cursor.key",
            "query-api/keys.json",
            "query-api/nats.creds",
            "reactor/eraser.creds",
            "reactor/gate.key",
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
