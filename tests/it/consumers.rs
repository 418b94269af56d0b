//! Consumers of the log that others leave behind: the doctor names them, and the operator removes them.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use e2e::System;

/// What a verifier's credentials let anybody make: consumers that stay for nine years.
async fn hoard(system: &System, count: usize) {
    let creds = ["services", "creds", "shop", "--verifier", "--out", "shop-verifier.creds"];
    assert!(system.roster(&creds).status.success());
    let client =
        async_nats::ConnectOptions::with_credentials_file(system.file("shop-verifier.creds"));
    let client = client.await.unwrap().custom_inbox_prefix("_INBOX_shop-verifier");
    let context = jetstream::new(client.connect(system.nats_url()).await.unwrap());
    for n in 0..count {
        let name = format!("z{n}");
        let config = pull::Config {
            name: Some(name.clone()),
            // Half of them without the word that says so.
            durable_name: n.is_multiple_of(2).then_some(name),
            filter_subject: "rv.user.*".to_owned(),
            inactive_threshold: Duration::from_secs(300_000_000),
            ..pull::Config::default()
        };
        context.create_consumer_on_stream(config, "USERS").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_that_a_verifier_leaves_behind_are_named_and_removed() {
    let mut system = System::own().await;
    hoard(&system, 6).await;
    let doctor = || {
        let output = system.roster(&["doctor"]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, found) = doctor();
    assert_eq!(code, Some(0), "a few of them do no harm: {found}");
    assert!(found.contains("warning  consumers: 6 of "), "{found}");
    assert!(
        found.contains("consumers of USERS are not Roster's")
            && found.contains("roster prune consumers")
    );

    let prune = |arguments: &[&str]| {
        let output = system.roster(&[&["prune", "consumers"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let would = "USERS: would remove 6 consumers that are not Roster's\n";
    assert_eq!(prune(&["--dry-run"]), would);
    assert_eq!(prune(&["--dry-run"]), would, "nothing was removed");
    assert_eq!(prune(&[]), "USERS: removed 6 consumers that are not Roster's\n");
    assert_eq!(prune(&[]), "there are no consumers that are not Roster's\n");
    let (code, found) = doctor();
    assert_eq!(code, Some(0), "{found}");
    let audited = system.roster(&["audit", "list", "--command", "prune-consumers"]).stdout;
    assert!(String::from_utf8(audited).unwrap().contains(r#"done  {"USERS":6}"#));

    // Roster's own are all there: mails and erasures go on, and a service starts.
    assert!(system.roster(&["provision", "--check"]).status.success());
    system.restart_command_api();
    system.ready().await;
}

#[tokio::test]
async fn a_subscriber_gets_no_name_of_rosters_own() {
    let system = System::shared().await;
    for name in ["mailer", "eraser", "notices", "projector", "operator"] {
        let output = system.roster(&["subscribers", "add", name]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains("is a name of Roster's own"), "{said}");
    }
}
