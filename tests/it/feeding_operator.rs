//! `roster subscribers`: where one begins, how far it is, and that removing it is the end of it.

use std::collections::{BTreeMap, HashSet};

use e2e::{System, rename};
use events::UserState;
use events::feed::Happened;
use serde_json::Value;

fn json_of(output: &std::process::Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_begins_where_the_operator_says() {
    let system = System::shared().await;
    let commands = system.commands();
    let mut positions = Vec::new();
    for n in 0..6 {
        let user = commands.register(&format!("begin{n}@example.com")).await.expect(201);
        positions.push((user.position(), user.body["id"].as_str().unwrap().to_owned()));
    }
    let feed = system.feed().await;
    let of =
        |n: usize| feed.iter().find(|(subject, _)| subject.ends_with(&positions[n].1)).unwrap();

    let mut start = system.subscriber("start", &[]).await;
    assert_eq!(start.take_until(|_| true).await[0].sequence, 1);
    let third = format!("position:{}", positions[3].0);
    let mut position = system.subscriber("position", &["--from", &third]).await;
    assert_eq!(position.take_until(|_| true).await[0].event, of(3).1);
    // A position between two: of a claim, or of a credential.
    let between = (positions[3].0 + 1).to_string();
    let mut next = system.subscriber("between", &["--from", &between]).await;
    assert_eq!(next.take_until(|_| true).await[0].event, of(4).1);
    let after = (positions[5].0 + 1).to_string();
    let mut after = system.subscriber("after", &["--from", &after]).await;
    let mut now = system.subscriber("nowadays", &["--from", "now"]).await;
    let beginning = format!("time:{}", of(0).1.time);
    let mut time = system.subscriber("time", &["--from", &beginning]).await;
    assert!(time.take_until(|_| true).await[0].event.time >= of(0).1.time);

    let later = commands.register("later@example.com").await.expect(201);
    for subscriber in [&mut after, &mut now] {
        let told = subscriber.take_until(|_| true).await;
        assert!(told[0].subject.ends_with(later.body["id"].as_str().unwrap()));
    }
}

/// While users come, change and go: each user of the snapshot is told once, and what happens to them from there
/// on without one missing or coming twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_what_follows_is_every_user_without_gap_or_overlap() {
    const USERS: usize = 40;
    let mut system = System::shared().await;
    // What was told of the deleted must stay, to be counted.
    system.kill_reactor();
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let mut paths = Vec::new();
    for n in 0..USERS {
        let user = commands.register(&format!("snap{n}@example.com")).await.expect(201);
        paths.push(user.header("location").unwrap().to_owned());
        if n % 3 == 0 {
            admin.patch(&paths[n], &rename("before")).await.expect(200);
        }
    }
    admin.delete(&paths[1]).await.expect(204);
    let writer = {
        let (admin, commands, paths) = (admin.clone(), commands.clone(), paths.clone());
        tokio::spawn(async move {
            for (n, path) in paths.iter().enumerate().skip(2) {
                match n % 4 {
                    0 => admin.delete(path).await.expect(204),
                    1 => commands.register(&format!("more{n}@example.com")).await.expect(201),
                    _ => admin.patch(path, &rename("meanwhile")).await.expect(200),
                };
            }
        })
    };
    let mut live = system.subscriber("search", &["--from", "snapshot"]).await;
    writer.await.unwrap();
    let last = commands.register("last@example.com").await.expect(201);
    let last = last.body["id"].as_str().unwrap().to_owned();

    let mut revisions: BTreeMap<String, u64> = BTreeMap::new();
    let mut snapshot = system.subscriber_again("search", "USER_SNAPSHOTS").await;
    let waiting = system.snapshots_waiting().await;
    assert!(waiting > 0);
    for _ in 0..waiting {
        let (told, message) = snapshot.next().await;
        snapshot.done(&message).await;
        assert!(matches!(told.event.happened, Happened::Snapshot(_)), "{told:?}");
        let user = told.event.happened.user_id().unwrap().to_string();
        assert!(told.subject.ends_with(&user));
        let before = revisions.insert(user, told.event.revision.0);
        assert_eq!(before, None, "a state came twice");
    }
    let mut gone = HashSet::new();
    for told in live.take_until(|told| told.subject.ends_with(&last)).await {
        let user = told.event.happened.user_id().unwrap().to_string();
        let before = revisions.insert(user.clone(), told.event.revision.0).unwrap_or_default();
        let is_deletion = matches!(told.event.happened, Happened::Deleted(_));
        // Who was deleted while the states were written is told to be gone, and their state is not.
        let never_told = is_deletion && before == 0;
        assert!(never_told || told.event.revision.0 == before + 1, "{told:?}");
        if is_deletion {
            gone.insert(user);
        }
    }
    // All of it together is the log, but for those who were gone before there was a snapshot.
    let fold = system.fold().await;
    assert!(revisions.len() > USERS / 2 && revisions.len() < fold.users.len());
    for (user, state) in &fold.users {
        match revisions.get(&user.to_string()) {
            Some(revision) => assert_eq!(*revision, state.revision().0, "{user}"),
            None => assert!(matches!(state, UserState::Deleted(_)), "{user} is missing"),
        }
    }
    assert!(!gone.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_sees_how_far_subscribers_are_and_removes_them() {
    let system = System::shared().await;
    let ends_with = |expected: i32, arguments: &[&str], why: &str| {
        let mut command = vec!["subscribers"];
        command.extend(arguments);
        let output = system.roster(&command);
        assert_eq!(output.status.code(), Some(expected), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(why), "{said}");
    };
    let wrong = |arguments: &[&str], why: &str| ends_with(2, arguments, why);
    let refused = |arguments: &[&str], why: &str| ends_with(1, arguments, why);
    wrong(&["add", "Billing"], "lower case");
    wrong(&["add", "billing-service"], "-service");
    wrong(&["add", "billing", "--filter", "ev.user.*"], "--filter");
    wrong(&["add", "billing", "--from", "yesterday"], "--from");
    let some = ["add", "billing", "--from", "snapshot", "--filter", "users.v1.deleted.*"];
    wrong(&some, "snapshot");
    let audit = json_of(&system.roster(&["audit", "list", "--json"]));
    let is_of_subscribers = |one: &&Value| one["subject"].to_string().contains("subscribers");
    let items = audit["items"].as_array().unwrap();
    assert_eq!(items.iter().find(is_of_subscribers), None, "what is wrong does not begin");
    refused(&["lag", "billing"], "no subscriber");
    refused(&["remove", "billing"], "no subscriber");
    assert!(!system.file("billing.creds").exists(), "refused, and yet there are credentials");

    let mut billing =
        system.subscriber("billing", &["--in-flight", "5", "--ack-wait-s", "7"]).await;
    refused(&["add", "billing", "--creds", "other.creds"], "already");
    refused(&["creds", "billing"], "billing.creds is there already");
    system.commands().register("one@example.com").await.expect(201);
    let listed = json_of(&system.roster(&["subscribers", "list", "--json"]));
    assert_eq!(listed["items"][0]["name"], "billing");
    assert_eq!(listed["items"][0]["filters"], serde_json::json!(["users.v1.*.*"]));
    assert_eq!(listed["items"][0]["in_flight"], 5);
    assert_eq!(listed["items"][0]["ack_wait_s"], 7);

    let lag = || {
        json_of(&system.roster(&["subscribers", "lag", "billing", "--json"]))["items"][0].clone()
    };
    // It asks, and may have both at once.
    e2e::wait_for("both events to be given", || async { lag()["unacknowledged"] == 2 }).await;
    assert!(lag()["oldest_age_s"].is_u64());
    let (_, first) = billing.next().await;
    let (_, second) = billing.next().await;
    billing.done(&first).await;
    billing.done(&second).await;
    e2e::wait_for("the acknowledgements", || async { lag()["unacknowledged"] == 0 }).await;
    assert_eq!((lag()["pending"].clone(), lag()["oldest_age_s"].clone()), (0.into(), Value::Null));

    // New credentials are as good, and those from before are revoked.
    let made = ["subscribers", "creds", "billing", "--creds", "again.creds", "--json"];
    let made = json_of(&system.roster(&made));
    assert!(made["user"].as_str().unwrap().starts_with('U'), "{made}");
    assert_eq!(made["revoked"].as_array().unwrap().len(), 1, "{made}");
    assert_ne!(made["revoked"][0], made["user"]);
    std::fs::rename(system.file("again.creds"), system.file("billing.creds")).unwrap();
    let mut again = system.subscriber_again("billing", "USER_EVENTS").await;
    system.commands().register("two@example.com").await.expect(201);
    drop(billing);
    again.take_until(|_| true).await;

    let removed = json_of(&system.roster(&["subscribers", "remove", "billing", "--json"]));
    assert_eq!(removed["revoked"], serde_json::json!([made["user"]]));
    system.commands().register("three@example.com").await.expect(201);
    assert!(again.hears_nothing().await, "removed, and yet it is told");
    assert_eq!(
        json_of(&system.roster(&["subscribers", "list", "--json"]))["items"],
        serde_json::json!([])
    );
}

/// Who is not told of deletions keeps what must be erased; and a short time to acknowledge brings back soon what a
/// killed one had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_without_deletions_is_warned_of_and_a_killed_subscriber_need_not_wait() {
    let system = System::shared().await;
    let warned = |name: &str, arguments: &[&str]| {
        let mut command = vec!["subscribers", "add", name];
        command.extend(arguments);
        let output = system.roster(&command);
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).contains("users.v1.deleted.*")
    };
    assert!(warned("alarm", &["--filter", "sessions"]));
    assert!(warned("greeter", &["--filter", "users.v1.registered.*"]));
    let with = ["--filter", "users.v1.registered.*", "--filter", "users.v1.deleted.*"];
    assert!(!warned("careful", &with) && !warned("all", &[]));
    for wrong in ["0", "3601"] {
        let output = system.roster(&["subscribers", "add", "quick", "--ack-wait-s", wrong]);
        assert_eq!(output.status.code(), Some(2));
    }

    let mut first = system.subscriber("quick", &["--ack-wait-s", "1"]).await;
    let (told, _) = first.next().await;
    drop(first);
    let began = std::time::Instant::now();
    let mut second = system.subscriber_again("quick", "USER_EVENTS").await;
    let (again, _) = second.next().await;
    assert_eq!((again.sequence, again.deliveries), (told.sequence, 2));
    assert!(began.elapsed().as_secs() < 20, "it waited for {:?}", began.elapsed());
}
