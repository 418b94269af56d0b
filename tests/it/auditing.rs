//! What operators change is written down: who, when, and how it ended; and nothing begins that cannot be.

use std::process::{Command, Output};

use async_nats::jetstream;
use e2e::{System, wait_for};
use serde_json::{Value, json};

/// The events that `roster audit list` shows.
fn listed(system: &System, arguments: &[&str]) -> Vec<Value> {
    let mut command = vec!["audit", "list", "--json"];
    command.extend(arguments);
    let output = system.roster(&command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["items"].as_array().unwrap().clone()
}

/// Command and outcome of each event.
fn outcomes(events: &[Value]) -> Vec<(&str, &str)> {
    let text = |value: &'static str, event| -> &str {
        let event: &Value = event;
        event.pointer(value).unwrap().as_str().unwrap()
    };
    events.iter().map(|event| (text("/subject", event), text("/data/outcome", event))).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn import_file(system: &System, users: usize) -> String {
    let lines: String = (0..users)
        .map(|n| format!("{}\n", json!({ "email": format!("u{n}@audit.example") })))
        .collect();
    let file = system.file("somebody.ndjson");
    std::fs::write(&file, lines).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_an_operator_is_written_down_with_its_end() {
    let system = System::shared().await;
    let first = listed(&system, &[]);
    // The system was provisioned, at the second try if the first met servers that were not there yet.
    let ends = outcomes(&first);
    assert_eq!(&ends[ends.len() - 2..], [("provision", "begun"), ("provision", "done")]);
    let made = first.last().unwrap()["data"]["result"]["changed"].to_string();
    assert!(made.contains("\"USERS\"") && made.contains("USERS mailer"), "{made}");

    let file = import_file(&system, 3);
    let id = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    let commands: [(&[&str], i32); 9] = [
        (&["users", "import", &file], 0),
        (&["subscribers", "add", "billing"], 0),
        (&["subscribers", "creds", "billing", "--creds", "again.creds"], 0),
        (&["subscribers", "add", "billing"], 1),
        (&["subscribers", "remove", "billing"], 0),
        (&["subscribers", "remove", "billing"], 1),
        (&["parked", "retry"], 0),
        (&["parked", "drop", id], 1),
        (&["provision"], 0),
    ];
    for (command, code) in commands {
        let output = system.roster(command);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {}", said(&output));
    }
    // Those that change nothing leave nothing.
    for command in [&["subscribers", "list"][..], &["provision", "--check"], &["parked", "list"]] {
        system.roster(command);
    }
    let events = listed(&system, &[])[first.len()..].to_vec();
    assert_eq!(
        outcomes(&events),
        [
            ("users-import", "begun"),
            ("users-import", "done"),
            ("subscribers-add", "begun"),
            ("subscribers-add", "done"),
            ("subscribers-creds", "begun"),
            ("subscribers-creds", "done"),
            ("subscribers-add", "begun"),
            ("subscribers-add", "failed"),
            ("subscribers-remove", "begun"),
            ("subscribers-remove", "done"),
            ("subscribers-remove", "begun"),
            ("subscribers-remove", "done"),
            ("parked-retry", "begun"),
            ("parked-retry", "done"),
            ("parked-drop", "begun"),
            ("parked-drop", "done"),
            ("provision", "begun"),
            ("provision", "done"),
        ]
    );
    for pair in events.chunks(2) {
        assert_eq!(pair[0]["correlationid"], pair[1]["correlationid"]);
        assert_eq!(pair[0]["type"], pair[1]["type"]);
        for event in pair {
            assert_eq!(event["specversion"], "1.0");
            let who = &event["data"]["who"];
            assert!(who["nats_user"].as_str().unwrap().starts_with('U'), "{who}");
            assert!(!who["host"].as_str().unwrap().is_empty(), "{who}");
            assert!(!who["os_user"].as_str().unwrap().is_empty(), "{who}");
        }
    }
    assert_eq!(events[1]["data"]["result"]["tally"]["created"], 3);
    assert_eq!(events[2]["type"], "roster.operator.subscriber_added.v1");
    assert_eq!(events[2]["data"]["arguments"]["name"], "billing");
    assert_eq!(events[11]["data"]["result"]["found"], false);
    // Whose credentials were made and revoked, by the key that a revocation needs.
    let user = |event: &Value| event["data"]["result"]["user"].clone();
    assert!(user(&events[3]).as_str().unwrap().starts_with('U'));
    assert_eq!(events[5]["data"]["result"]["revoked"], serde_json::json!([user(&events[3])]));
    assert_eq!(events[9]["data"]["result"]["revoked"], serde_json::json!([user(&events[5])]));
    assert_eq!(events[15]["data"]["arguments"]["id"], id);
    assert_eq!(events[17]["data"]["result"]["changed"], json!([]));

    let of_one = listed(&system, &["--command", "subscribers-remove"]);
    assert_eq!(of_one.len(), 4);
    let since = events[10]["time"].as_str().unwrap();
    assert_eq!(listed(&system, &["--since", since]).len(), 8);
    let output = system.roster(&["audit", "list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), first.len() + events.len());
    // Nobody's address, no name of a file, nothing secret.
    for text in [text, Value::from(events).to_string()] {
        for never in ["audit.example", "somebody", ".creds", "SUA", "password"] {
            assert!(!text.contains(never), "{never} in {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_written_down_does_not_begin() {
    let system = System::shared().await;
    let log = jetstream::new(system.operator().await);
    log.delete_stream("OPERATIONS").await.unwrap();
    let refused = |why: &str| {
        let output = system.roster(&["subscribers", "add", "billing"]);
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains("nothing was begun") && said.contains(why), "{said}");
        assert!(!system.file("billing.creds").exists());
        let listed = system.roster(&["subscribers", "list"]);
        assert_eq!(listed.stdout, b"there is no subscriber\n");
    };
    refused("roster provision");
    let check = system.roster(&["provision", "--check"]);
    assert_eq!(check.status.code(), Some(1));
    assert_eq!(check.stdout, b"OPERATIONS: does not exist\n");
    assert!(system.roster(&["provision"]).status.success());
    assert_eq!(outcomes(&listed(&system, &[])), [("provision", "begun"), ("provision", "done")]);

    // Nothing in it gives way, and nothing can be taken out.
    let stream = log.get_stream("OPERATIONS").await.unwrap();
    assert!(stream.purge().await.is_err());
    assert!(stream.delete_message(1).await.is_err());
    let filler = vec![b'x'; 200_000];
    let mut stored = 0;
    while log.publish("op.filler", filler.clone().into()).await.unwrap().await.is_ok() {
        stored += 1;
        assert!(stored < 1000, "the stream has a bound");
    }
    while log.publish("op.filler", "x".repeat(300).into()).await.unwrap().await.is_ok() {}
    refused("audit.bytes_max");
    let more = [("ROSTER_AUDIT_BYTES_MAX", "8388608")];
    let output = system.roster_with(&["provision"], &more);
    assert!(output.status.success(), "{}", said(&output));
    assert!(system.roster_with(&["subscribers", "add", "billing"], &more).status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_written_down_and_a_kill_shows() {
    let system = System::shared().await;
    let file = import_file(&system, 60_000);
    for (signal, ending) in [("-INT", Some("interrupted")), ("-KILL", None)] {
        let before = listed(&system, &["--command", "users-import"]).len();
        let mut importing = system.roster_in_the_background(&["users", "import", &file], "said");
        wait_for("the import to begin", || async {
            listed(&system, &["--command", "users-import"]).len() > before
        })
        .await;
        let killed = Command::new("kill").args([signal, &importing.id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert!(!importing.wait().unwrap().success(), "it was over before it was interrupted");
        let events = listed(&system, &["--command", "users-import"]);
        let new = outcomes(&events[before..]);
        let ends: Vec<_> = ending.into_iter().map(|ending| ("users-import", ending)).collect();
        assert_eq!((new[0], &new[1..]), (("users-import", "begun"), &ends[..]));
    }
    let output = system.roster(&["audit", "list", "--command", "users-import"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let open = text.lines().filter(|line| line.contains("begun, no end is known")).count();
    assert_eq!(open, 1, "{text}");
}
