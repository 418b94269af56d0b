//! Events once more: any range of the feed, to one subscriber, into a file or to standard output.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_nats::{ConnectOptions, Event};
use e2e::{PASSWORD, System, rename, wait_for};
use events::feed::FeedEvent;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Users and what happened to them: three registrations, two changes, a login, and a deletion.
struct Told {
    ids: Vec<String>,
    /// Position of each registration.
    registered: Vec<u64>,
}

async fn tell(system: &System) -> Told {
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let (mut ids, mut registered) = (Vec::new(), Vec::new());
    for n in 0..3 {
        let user = commands.register(&format!("replay{n}@example.com")).await.expect(201);
        ids.push(user.body["id"].as_str().unwrap().to_owned());
        registered.push(user.position());
    }
    for id in &ids[..2] {
        admin.patch(&format!("/api/v1/users/{id}"), &rename("Replayed")).await.expect(200);
    }
    commands.log_in("replay0@example.com", PASSWORD).await;
    admin.delete(&format!("/api/v1/users/{}", ids[2])).await.expect(204);
    let deletion = format!("users.v1.deleted.{}", ids[2]);
    wait_for("the feed", || async { in_feed(system).await.contains(&deletion) }).await;
    Told { ids, registered }
}

async fn in_feed(system: &System) -> Vec<String> {
    system.feed().await.into_iter().map(|(subject, _)| subject).collect()
}

/// What a replay writes to standard output.
fn replayed(system: &System, arguments: &[&str]) -> Vec<FeedEvent> {
    let mut command = vec!["replay"];
    command.extend(arguments);
    let output = system.roster(&command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lines(&output.stdout)
}

fn lines(bytes: &[u8]) -> Vec<FeedEvent> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| FeedEvent::from_json(line.as_bytes()).unwrap()).collect()
}

fn kinds(events: &[FeedEvent]) -> Vec<&str> {
    events.iter().map(|event| event.happened.kind()).collect()
}

fn counted(system: &System, arguments: &[&str]) -> Value {
    let mut command = vec!["replay", "--dry-run", "--json"];
    command.extend(arguments);
    let output = system.roster(&command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_range_comes_as_it_was_told_and_nothing_of_the_deleted() {
    let mut system = System::shared().await;
    // Nothing is erased: what is left out is left out by the replay.
    system.kill_reactor();
    let Told { ids, registered } = tell(&system).await;

    let gone = &ids[2];
    let all = system.feed().await;
    let told = all.len();
    let feed: Vec<FeedEvent> = all
        .into_iter()
        .filter(|(subject, _)| {
            !subject.ends_with(gone.as_str()) || subject.starts_with("users.v1.deleted")
        })
        .map(|(_, event)| event)
        .collect();
    assert_eq!(replayed(&system, &[]), feed);
    assert_eq!(kinds(&replayed(&system, &["--user", gone])), ["users.v1.deleted"]);
    assert_eq!(
        kinds(&replayed(&system, &["--user", &ids[0], "--type", "users"])),
        ["users.v1.registered", "users.v1.profile_changed"]
    );
    let both = ["--user", &ids[0], "--user", &ids[1], "--type", "users.v1.profile_changed"];
    assert_eq!(replayed(&system, &both).len(), 2);
    let sessions = replayed(&system, &["--type", "sessions", "--user", &ids[0]]);
    assert_eq!(kinds(&sessions), ["sessions.v1.started"]);

    let second = registered[1].to_string();
    let users = ["--type", "users.v1.registered"];
    let range = |more: &[&str]| {
        let arguments: Vec<&str> = users.iter().chain(more).copied().collect();
        let positions = replayed(&system, &arguments);
        positions.iter().map(|event| event.position.0).collect::<Vec<_>>()
    };
    assert_eq!(range(&["--from", &second]), [registered[1]]);
    assert_eq!(range(&["--from", &second, "--to", &second]), [registered[1]]);
    assert!(range(&["--to", &second]).ends_with(&registered[..2]));
    let later = (registered[1] + 1).to_string();
    assert_eq!(range(&["--from", &later]), [] as [u64; 0]);
    let before = range(&["--to", "2020-01-01T00:00:00Z"]);
    assert_eq!(
        (before.len(), range(&["--to", "2099-01-01T00:00:00Z"]).len()),
        (0, range(&[]).len())
    );
    assert_eq!(range(&["--from", "2099-01-01T00:00:00Z"]).len(), 0);
    assert_eq!(range(&["--from", "2020-01-01T00:00:00Z"]), range(&[]));

    assert_eq!(
        counted(&system, &["--user", gone]),
        json!({
            "events": 1, "by_type": {"users.v1.deleted": 1}, "of_deleted": told - feed.len(),
        })
    );
    let all = counted(&system, &[]);
    assert_eq!(
        (&all["events"], &all["of_deleted"]),
        (&json!(feed.len()), &json!(told - feed.len()))
    );
    assert!(told > feed.len());
    for (wrong, code) in [
        (&["--type", "user.registered.v1"][..], 2),
        (&["--from", "yesterday"], 2),
        (&["--rate", "0"], 2),
        (&["--from", "9", "--to", "3"], 2),
        (&["--file", "x", "--to-subscriber", "y"], 2),
        (&["--to-subscriber", "nobody"], 1),
    ] {
        let mut command = vec!["replay"];
        command.extend(wrong);
        assert_eq!(system.roster(&command).status.code(), Some(code), "{wrong:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_whole_or_not_there_and_the_rate_is_kept() {
    let system = System::shared().await;
    tell(&system).await;
    let (file, partial) = (system.file("events.ndjson"), system.file("events.ndjson.partial"));
    // What a killed one left.
    std::fs::write(&partial, "{\"half\": ").unwrap();
    let write = ["replay", "--file", "events.ndjson", "--json"];
    let output = system.roster(&write);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
    let first = std::fs::read(&file).unwrap();
    assert_eq!(tally["events"], lines(&first).len());
    assert!(!partial.exists());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Killed while it writes: the file from before is as it was, and the next one begins anew.
    let slow = ["replay", "--file", "events.ndjson", "--rate", "2"];
    let mut writing = system.roster_in_the_background(&slow, "said");
    wait_for("some lines", || async {
        std::fs::read(&partial).is_ok_and(|bytes| !bytes.is_empty())
    })
    .await;
    writing.kill().unwrap();
    writing.wait().unwrap();
    assert!(partial.exists());
    assert_eq!(std::fs::read(&file).unwrap(), first);
    system.commands().register("more@example.com").await.expect(201);
    wait_for("the feed", || async { system.feed().await.len() > lines(&first).len() }).await;
    assert!(system.roster(&write).status.success());
    let second = std::fs::read(&file).unwrap();
    assert!(second.starts_with(&first) && second.len() > first.len() && !partial.exists());

    // So many events take so long, and no less.
    let events = u32::try_from(lines(&second).len()).unwrap();
    let started = Instant::now();
    assert_eq!(replayed(&system, &["--rate", "4"]).len(), events as usize);
    assert!(started.elapsed() >= Duration::from_millis(250) * (events - 1));

    // Whoever reads no further ends it, and that is no fault.
    let mut reading =
        system.roster_command(&["replay", "--rate", "20"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(reading.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(lines(line.as_bytes()).len(), 1);
    assert!(reading.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_is_for_one_subscriber_alone_and_erasure_reaches_it() {
    let system = System::shared_with(&[("ROSTER_ERASURE_SECOND_LOOK_S", "1")]).await;
    let Told { ids, .. } = tell(&system).await;
    let mut billing = system.subscriber("billing", &[]).await;
    let last = format!("users.v1.deleted.{}", ids[2]);
    let live = billing.take_until(|told| told.subject == last).await;
    system.subscriber("other", &["--from", "now"]).await;
    let only = ["--filter", "users.v1.deleted.*", "--from", "now"];
    system.subscriber("alarm", &only).await;

    let to = |name: &str| {
        let output = system.roster(&["replay", "--to-subscriber", name, "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let tally: Value = serde_json::from_slice(&output.stdout).unwrap();
        tally["events"].as_u64().unwrap()
    };
    // What it was told, with the same ids, positions and revisions; but for what is erased by now.
    let count = to("billing");
    assert_eq!(system.snapshots_waiting().await, count);
    let denied = denied(&system, "other", "feed.CONSUMER.MSG.NEXT.USER_SNAPSHOTS.billing").await;
    assert!(denied.contains("Permissions Violation"), "{denied}");
    let mut again = system.subscriber_again("billing", "USER_SNAPSHOTS").await;
    let replayed = again.take_until(|told| told.event == live.last().unwrap().event).await;
    assert_eq!(replayed.len() as u64, count);
    for told in &replayed {
        assert!(told.subject.starts_with("snapshot.v1.billing."), "{}", told.subject);
        assert!(live.iter().any(|live| live.event == told.event), "{told:?}");
    }
    assert!(again.hears_nothing().await);
    drop(again);

    // It is given nothing that its filters keep from it.
    assert_eq!(to("alarm"), 1);
    let mut alarm = system.subscriber_again("alarm", "USER_SNAPSHOTS").await;
    assert_eq!(alarm.take_until(|_| true).await[0].event, live.last().unwrap().event);

    // What waits of somebody who is deleted is erased; the deletion stays.
    to("billing");
    let (admin, _) = system.as_administrator().await;
    admin.delete(&format!("/api/v1/users/{}", ids[0])).await.expect(204);
    wait_for("the erasure", || async {
        system.roster(&["erase", "--verify", &ids[0]]).status.success()
    })
    .await;
    assert_eq!(to("billing"), replayed.len() as u64 - 1);
    assert!(system.roster(&["erase", "--verify", &ids[0]]).status.success());
    let mut again = system.subscriber_again("billing", "USER_SNAPSHOTS").await;
    let last = format!("snapshot.v1.billing.{}", ids[0]);
    let waited = again.take_until(|told| told.subject == last).await;
    assert_eq!(waited.last().unwrap().kind(), "users.deleted");
    assert!(again.hears_nothing().await);

    let audited = system.roster(&["audit", "list", "--command", "replay", "--json"]);
    let audited: Value = serde_json::from_slice(&audited.stdout).unwrap();
    assert_eq!(audited["items"].as_array().unwrap().len(), 8);
    assert_eq!(audited["items"][0]["data"]["arguments"]["subscriber"], "billing");
    assert_eq!(audited["items"][1]["data"]["result"]["events"], count);
}

/// What the server says against a request of a subscriber.
async fn denied(system: &System, name: &str, subject: &str) -> String {
    let (heard, mut reports) = mpsc::channel(8);
    let creds = std::fs::read_to_string(system.file(&format!("{name}.creds"))).unwrap();
    let client = ConnectOptions::with_credentials(&creds)
        .unwrap()
        .custom_inbox_prefix(format!("_INBOX_{name}"))
        .event_callback(move |event| {
            let heard = heard.clone();
            async move {
                if let Event::ServerError(error) = event {
                    let _ = heard.try_send(error.to_string());
                }
            }
        })
        .connect(system.nats_url().split(',').collect::<Vec<_>>())
        .await
        .unwrap();
    let reply = client.new_inbox();
    client.publish_with_reply(subject.to_owned(), reply, r#"{"batch":1}"#.into()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), reports.recv()).await.unwrap().unwrap()
}
