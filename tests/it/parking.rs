//! Events that cannot be read: parked with their users and sessions, seen, and healed in order.

use std::fmt::Write as _;

use async_nats::HeaderMap;
use e2e::{Client, PASSWORD, System, rename, wait_for};
use events::UserId;
use serde_json::{Value, json};

use crate::damage::Damage;

/// A user with two events, as the API made them.
async fn user(system: &System, admin: &Client, n: usize) -> UserId {
    let registered = system.commands().register(&format!("user{n}@example.com")).await.expect(201);
    let id = registered.body["id"].as_str().unwrap();
    admin.patch(&format!("/api/v1/users/{id}"), &rename("Before")).await.expect(200);
    id.parse().unwrap()
}

/// The event that comes next for a user, as a service would have written it.
async fn next_event(damage: &Damage, user: UserId, behind: u64, change: Change) -> Value {
    let first = damage.events_of(user).await.remove(0).json();
    let last = damage.events_of(user).await;
    let last = last.iter().filter_map(|message| serde_json::from_slice(&message.payload).ok());
    let last: Value = last.rev().find(|event: &Value| event["specversion"] == "1.0").unwrap();
    let mut event = last.clone();
    event["id"] = uuid::Uuid::now_v7().to_string().into();
    event["revision"] = behind.into();
    match change {
        Change::Name(name) => {
            event["type"] = "user.profile_changed.v1".into();
            event["data"]["changed"] = json!({ "full_name": name });
            event["data"]["user"]["full_name"] = name.into();
            event["data"]["user"]["revision"] = behind.into();
        }
        Change::Deletion => {
            event["type"] = "user.deleted.v1".into();
            let gone =
                json!({"id": first["subject"], "revision": behind, "deleted_at": event["time"]});
            event["data"] = json!({ "user": gone });
        }
    }
    event
}

enum Change {
    Name(&'static str),
    Deletion,
}

async fn write(damage: &Damage, user: UserId, event: &Value) -> u64 {
    let mut headers = HeaderMap::new();
    headers.insert("Roster-Event-Type", event["type"].as_str().unwrap());
    let payload = serde_json::to_vec(event).unwrap();
    damage.write(&format!("ev.user.{user}"), headers, payload).await
}

/// The header by which an event is told from what no service wrote.
fn of_a_writer() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("Roster-Event-Type", "user.profile_changed.v1");
    headers
}

/// Five kinds of what cannot be read.
async fn poison(damage: &Damage, kind: &str, user: UserId) -> u64 {
    let mut event = next_event(damage, user, 3, Change::Name("Never")).await;
    match kind {
        "bad JSON" => {
            let subject = format!("ev.user.{user}");
            return damage
                .write(&subject, of_a_writer(), b"{\"specversion\":\"1.0\"".to_vec())
                .await;
        }
        "unknown type" => event["type"] = "user.beamed_up.v1".into(),
        "newer version" => event["type"] = "user.profile_changed.v2".into(),
        "state that does not fold" => event["data"]["user"]["full_name"] = "another".into(),
        "1 MB" => {
            let long = "x".repeat(900_000);
            event["data"]["user"]["full_name"] = long.clone().into();
            event["data"]["changed"]["full_name"] = long.into();
            event["data"]["user"].as_object_mut().unwrap().remove("full_name").unwrap();
        }
        other => panic!("{other}"),
    }
    write(damage, user, &event).await
}

const KINDS: [&str; 5] =
    ["bad JSON", "unknown type", "newer version", "state that does not fold", "1 MB"];

/// The users and sessions that are parked. A mail to one of them may be parked as well, when it is looked at after the
/// poison came.
fn parked(system: &System) -> Vec<Value> {
    let output = system.roster(&["parked", "list", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut items = answer["items"].as_array().unwrap().clone();
    assert_eq!(output.status.code(), Some(i32::from(!items.is_empty())));
    items.retain(|item| item["kind"] == "event");
    items
}

fn command(system: &System, arguments: &[&str]) -> (Option<i32>, String) {
    let output = system.roster(arguments);
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    write!(said, "{}", String::from_utf8_lossy(&output.stderr)).unwrap();
    (output.status.code(), said)
}

async fn not_ready(system: &System, reason: &str) {
    let projector = Client::new(&system.projector.as_ref().unwrap().value("private"));
    wait_for(reason, || async {
        let ready = projector.get("/readyz").await;
        ready.status == 503 && ready.body.to_string().contains(reason)
    })
    .await;
}

async fn metric(system: &System, stream: &str) -> f64 {
    let scrape = Client::new(&system.projector.as_ref().unwrap().value("private")).scrape().await;
    scrape.value("roster_projector_parked", &[("stream", stream)]).unwrap()
}

/// Names and revisions that the feed tells of a user.
async fn told(system: &System, user: UserId) -> Vec<(u64, Option<String>)> {
    let feed = system.feed().await;
    let of = feed.iter().filter(|(subject, _)| {
        subject.starts_with("users.") && subject.ends_with(&user.to_string())
    });
    of.map(|(_, event)| {
        let json: Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
        let name = json["data"]["user"]["full_name"].as_str().map(str::to_owned);
        (event.revision.0, name)
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_of_five_kinds_is_parked_while_the_rest_flows_and_heals_in_order() {
    let mut system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let damage = Damage::of(&system).await;
    let mut users = Vec::new();
    for (n, kind) in KINDS.into_iter().enumerate() {
        let user = user(&system, &admin, n).await;
        let at = poison(&damage, kind, user).await;
        // What waits behind it.
        for (revision, name) in [(3, "Third"), (4, "Fourth")] {
            let event = next_event(&damage, user, revision, Change::Name(name)).await;
            write(&damage, user, &event).await;
        }
        users.push((kind, user, at));
    }

    // Everything else flows.
    let other = user(&system, &admin, 99).await;
    let path = format!("/api/v1/users/{other}");
    let renamed = admin.patch(&path, &rename("Flows")).await.expect(200);
    assert_eq!(renamed.header("roster-pending"), None);
    wait_for("the feed", || async { told(&system, other).await.len() == 3 }).await;

    // They are seen: as what stands still, by number, and each with its reason.
    not_ready(&system, "5 parked: see `roster parked list`").await;
    assert_eq!((metric(&system, "USERS").await, metric(&system, "USER_EVENTS").await), (5.0, 5.0));
    let items = parked(&system);
    assert_eq!(items.len(), 5, "{items:?}");
    for (kind, user, at) in &users {
        let item = items.iter().find(|item| item["position"] == json!(at)).unwrap();
        assert_eq!(item["id"], json!(format!("users-{at}")), "{kind}");
        assert_eq!(item["aggregate"], json!(user.to_string()), "{kind}");
        let lacking = item["lacking"].as_array().unwrap();
        assert!(lacking.len() == 2 && lacking.contains(&json!("feed")), "{kind}: {item}");
        let path = format!("/api/v1/users/{user}");
        let seen = queries.get(&path).await.expect(200);
        assert_eq!(seen.body["full_name"], "Before", "{kind}: nothing behind it is shown");
        assert_eq!(told(&system, *user).await.len(), 2, "{kind}: nothing behind it is told");
    }
    let (code, shown) = command(&system, &["parked", "show", &format!("users-{}", users[0].2)]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((code, &shown["waiting"]), (Some(0), &json!(2)), "{shown}");
    for item in &items {
        assert!(!item.to_string().contains("example.com"), "nothing personal: {item}");
    }

    // Tried again without a mend they stay, also after a crash and by another projector.
    let (code, said) = command(&system, &["parked", "retry", &format!("users-{}", users[1].2)]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unknown event type"), "{said}");
    system.kill_projector();
    system.start_projector();
    let second = system.another("projector");
    not_ready(&system, "5 parked").await;
    assert_eq!(parked(&system).len(), 5);

    // The mend: one event is removed by hand, and the rest is dropped by the operator.
    let (_, first, at) = users[0];
    damage.remove("USERS", at).await;
    let (code, said) = command(&system, &["parked", "retry"]);
    assert_eq!(code, Some(1), "the other four stay: {said}");
    // The command released it, or the projector's own retry, every 30 s, was faster.
    assert!(!said.contains(&format!("still parked: users-{at} ")), "{said}");
    assert_eq!(parked(&system).len(), 4, "{said}");
    for (kind, user, at) in &users {
        if *user != first {
            let (code, said) = command(&system, &["parked", "drop", &format!("users-{at}")]);
            assert_eq!(code, Some(0), "{kind}: {said}");
        }
        let path = format!("/api/v1/users/{user}");
        let seen = queries.get(&path).await.expect(200);
        assert_eq!(
            (&seen.body["full_name"], seen.header("etag")),
            (&json!("Fourth"), Some("W/\"4\""))
        );
        let name = |name: &str| Some(name.to_owned());
        let expected = vec![
            (1, name("Test User")),
            (2, name("Before")),
            (3, name("Third")),
            (4, name("Fourth")),
        ];
        wait_for("what waited is told", || async { told(&system, *user).await.len() >= 4 }).await;
        assert_eq!(told(&system, *user).await, expected, "{kind}: in order, each once");
        // The user is as good as any other.
        admin.patch(&path, &rename("After")).await.expect(200);
    }
    drop(second);
    system.ready().await;
    assert_eq!(parked(&system), Vec::<Value>::new());
    let answer = system.roster(&["verify", "--json"]);
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(answer["differences"], json!([]), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_ends_what_is_parked_and_more_than_a_few_stop_the_projector() {
    let mut system = System::shared_with(&[("ROSTER_PROJECTOR_PARKED_MAX", "1")]).await;
    system.kill_reactor();
    let (admin, queries) = system.as_administrator().await;
    let damage = Damage::of(&system).await;
    let gone = user(&system, &admin, 0).await;
    let second = user(&system, &admin, 1).await;
    poison(&damage, "bad JSON", gone).await;
    not_ready(&system, "1 parked").await;

    // A second one is too many: what comes before it is applied, what comes behind it is not.
    let before = user(&system, &admin, 2).await;
    let at = poison(&damage, "unknown type", second).await;
    not_ready(&system, &format!("the event at position {at} cannot be read")).await;
    not_ready(&system, "projector.parked_max").await;
    queries.get(&format!("/api/v1/users/{before}")).await.expect(200);
    let late = system.commands().register("late@example.com").await.expect(201);
    assert_eq!(late.header("roster-pending"), Some("true"));
    let (code, said) = command(&system, &["parked", "list"]);
    assert_eq!(code, Some(1), "{said}");

    // The deletion stands behind it, so the second one has to go first.
    let deletion = next_event(&damage, gone, 3, Change::Deletion).await;
    write(&damage, gone, &deletion).await;
    damage.remove("USERS", at).await;
    system.ready().await;
    queries.get(&format!("/api/v1/users/{gone}")).await.expect(404);
    assert_eq!(parked(&system), Vec::<Value>::new());
    let of_gone = || async {
        let feed = system.feed().await;
        feed.into_iter()
            .filter(|(subject, _)| subject.ends_with(&gone.to_string()))
            .map(|(subject, _)| subject.split('.').nth(2).unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    wait_for("the deletion", || async { of_gone().await.len() >= 3 }).await;
    assert_eq!(of_gone().await, ["registered", "profile_changed", "deleted"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_parked_alone() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let damage = Damage::of(&system).await;
    let user = user(&system, &admin, 0).await;
    let commands = system.commands();
    let pair = commands.log_in("user0@example.com", PASSWORD).await;
    let session = damage.messages("SESSIONS", &format!("ev.session.{user}.*")).await.remove(0);
    let at = damage.write(&session.subject, of_a_writer(), b"no event".to_vec()).await;
    not_ready(&system, "1 parked").await;
    let other = commands.log_in("user0@example.com", PASSWORD).await;
    commands.refresh(&other.refresh).await.expect(200);
    let (code, said) = command(&system, &["parked", "drop", &format!("sessions-{at}")]);
    assert_eq!(code, Some(0), "{said}");
    commands.refresh(&pair.refresh).await.expect(200);
    system.ready().await;
    assert_eq!(parked(&system), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_an_unreadable_event_can_be_deleted() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let damage = Damage::of(&system).await;
    for (n, kind) in ["bad JSON", "newer version"].into_iter().enumerate() {
        let poisoned = user(&system, &admin, n).await;
        let path = format!("/api/v1/users/{poisoned}");
        poison(&damage, kind, poisoned).await;
        let refused = admin.patch(&path, &rename("After")).await.expect(409);
        assert_eq!(refused.code(), "unreadable-record", "{kind}: {refused:?}");
        assert!(refused.body["detail"].as_str().unwrap().contains("roster parked list"));
        admin.delete(&path).await.expect(204);
        queries.get(&path).await.expect(404);
        system.commands().register(&format!("user{n}@example.com")).await.expect(201);
    }
    system.ready().await;
    assert_eq!(parked(&system), Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_free_when_its_registration_was_dropped() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let damage = Damage::of(&system).await;
    let before = user(&system, &admin, 0).await;
    let claim = damage.claim_of(before).await.subject;
    admin.delete(&format!("/api/v1/users/{before}")).await.expect(204);
    // Registered anew, with an event that nobody can read.
    let id = uuid::Uuid::now_v7();
    let held = json!({"user_id": id, "state": "held"}).to_string();
    damage.write(&claim, of_a_writer(), held.into_bytes()).await;
    let at = damage.write(&format!("ev.user.{id}"), of_a_writer(), b"no event".to_vec()).await;
    wait_for("the user to be parked", || async { parked(&system).len() == 1 }).await;
    let taken = system.commands().register("user0@example.com").await.expect(409);
    assert_eq!(taken.code(), "email-taken");

    let (code, said) = command(&system, &["parked", "drop", &format!("users-{at}")]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("dropped users-{at}")), "{said}");
    system.commands().register("user0@example.com").await.expect(201);
}

/// An earlier version let a caller say so, and wrote what it could not read itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_year_that_an_earlier_version_wrote_is_read_as_the_first_there_is() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let damage = Damage::of(&system).await;
    let model = user(&system, &admin, 0).await;
    let id = uuid::Uuid::now_v7().to_string();
    let long_ago = "-0001-12-31T23:00:00.000Z";
    let mut event = damage.events_of(model).await.remove(0).json();
    event["id"] = uuid::Uuid::now_v7().to_string().into();
    event["subject"] = id.clone().into();
    let state = &mut event["data"]["user"];
    (state["id"], state["created_at"]) = (id.clone().into(), long_ago.into());
    state["email"] = "old@example.com".into();
    let changed = &mut event["data"]["changed"];
    (changed["imported"], changed["email"]) = (long_ago.into(), "old@example.com".into());
    let at = write(&damage, id.parse().unwrap(), &event).await;

    let path = format!("/api/v1/users/{id}");
    let queries = queries.with_header("Roster-Position", &at.to_string());
    let seen = queries.get(&path).await.expect(200);
    assert_eq!(seen.body["created_at"], "0001-01-01T00:00:00.000Z");
    let listed = queries.get("/api/v1/users?email=old@example.com").await.expect(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    admin.delete(&path).await.expect(204);
    queries.get(&path).await.expect(404);
}
