//! The operator's looks at a system that runs: what is behind, and what is not as it must be.

use async_nats::jetstream;
use e2e::{System, wait_for};
use serde_json::{Value, json};

pub fn look(system: &System, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = system.roster(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.unwrap_or_else(|_| panic!("no answer: {said}")))
}

/// How far one is that follows, by its name.
fn lag_of(system: &System, name: &str, max_s: &str) -> (Option<i32>, Value) {
    let (code, answer) = look(system, &["lag", "--json", "--max-s", max_s]);
    let items = answer["items"].as_array().unwrap().clone();
    (code, items.into_iter().find(|item| item["name"] == name).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_names_what_is_late_and_what_is_away() {
    let mut system = System::shared().await;
    let mut subscriber = system.subscriber("billing", &["--from", "now"]).await;
    let lag = |arguments: &[&str]| {
        let mut command = vec!["lag", "--json"];
        command.extend(arguments);
        look(&system, &command)
    };
    wait_for("everything to be at the end of the log", || async {
        let (code, answer) = lag(&[]);
        let items = answer["items"].as_array().unwrap();
        let is_behind = |item: &&Value| {
            let name = item["name"].as_str().unwrap();
            (name.contains("views") || name.contains("feed")) && item["behind"] != 0
        };
        code == Some(0) && items.len() == 10 && items.iter().find(is_behind).is_none()
    })
    .await;

    system.kill_projector();
    let commands = system.commands().with_header("prefer", "respond-async");
    commands.register("later@example.com").await.expect(201);
    wait_for("a second to be too late", || async {
        let (code, views) = lag_of(&system, "views of users", "0");
        code == Some(1) && views["is_late"] == true
    })
    .await;
    let (code, views) = lag_of(&system, "views of users", "1000");
    assert_eq!((code, views["is_late"].clone()), (Some(0), json!(false)));
    assert_eq!(views["behind"], 1, "{views}");
    assert!(views["end"].as_u64() > views["position"].as_u64());
    let (_, feed) = lag_of(&system, "feed, of users", "1000");
    assert_eq!(feed["behind"], 1, "{feed}");

    system.start_projector();
    wait_for("the subscriber to have it before it", || async {
        lag_of(&system, "subscriber billing", "1000").1["behind"] == 1
            && lag_of(&system, "views of users", "1000").1["behind"] == 0
    })
    .await;
    subscriber.take_until(|_| true).await;
    wait_for("the acknowledgement", || async {
        lag_of(&system, "subscriber billing", "1000").1["behind"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn provision_checks_and_changes_nothing() {
    let system = System::shared().await;
    let check = || look(&system, &["provision", "--check", "--json"]);
    assert_eq!(check(), (Some(0), json!({"items": []})));

    let context = jetstream::new(system.operator().await);
    let stream = context.get_stream("MAILS").await.unwrap();
    let mut config = stream.get_info().await.unwrap().config;
    config.deny_delete = false;
    config.max_age = std::time::Duration::from_secs(600);
    context.update_stream(config.clone()).await.unwrap();
    stream.delete_consumer("mailer").await.unwrap();
    let faults = |answer: &Value| {
        let items = answer["items"].as_array().unwrap();
        let fault = |item: &Value| (item["stream"].clone(), item["consumer"].clone());
        items.iter().map(fault).collect::<Vec<_>>()
    };
    let expected = [(json!("MAILS"), Value::Null), (json!("MAILS"), json!("mailer"))];
    for _ in 0..2 {
        let (code, answer) = check();
        assert_eq!((code, faults(&answer)), (Some(1), expected.to_vec()), "{answer}");
        let said = answer["items"][0]["differences"][0].as_str().unwrap();
        assert!(said.starts_with("max_age is 600000000000 and must be"), "{said}");
    }
    let room = (128_u64 << 20).to_string();
    let more = [("ROSTER_LOG_BYTES_MAX", room.as_str())];
    let output = system.roster_with(&["provision", "--check"], &more);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("USERS: max_bytes is 67108864 and the settings say 134217728"), "{said}");

    assert!(system.roster(&["provision"]).status.success());
    assert_eq!(check(), (Some(0), json!({"items": []})));
}
