//! The examples of subscribers, as docs/feed.md has them run: killed in the middle, and so is the server.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Command;
use std::time::Duration;

use e2e::examples::{Running, Said, example, examples, javascript, python};
use e2e::{FeedBus, System, wait_for};
use events::feed::{
    DeletedUser, DeletedUserData, FeedEvent, Happened, ProfileChange, PublicUser, Status,
    UserChanged, UserData,
};
use events::{Actor, Position, Revision, Timestamp, UserId};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::importing::import;

/// Users that there are from the start, and how many events come of each.
const USERS: u128 = 100;
const EVENTS_EACH: u64 = 20;
const NAME: &str = "copy";
/// Lines after which the subscriber is killed, and the server.
const KILLS_AT: [usize; 3] = [50, 700, 1_500];
const SERVER_KILLED_AT: usize = 1_100;

fn user(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(0x0190_a1b2_c3d4_7000_8000_0000_0000_0000 | n))
}

fn event(n: u128, revision: u64, happened: impl FnOnce(PublicUser) -> Happened) -> FeedEvent {
    let at = Timestamp::try_from("2026-01-31T12:00:00.250Z".to_owned()).unwrap();
    let user = PublicUser {
        id: user(n),
        email: format!("u{n}@example.com"),
        email_verified: true,
        full_name: Some(format!("Name {revision}")),
        roles: vec!["user".to_owned()],
        status: Status::Active,
        metadata: Map::new(),
        created_at: at,
        updated_at: at,
    };
    FeedEvent {
        id: Uuid::from_u128(n << 64 | u128::from(revision)),
        time: at,
        revision: Revision(revision),
        position: Position(revision),
        actor: Actor::System,
        command_id: None,
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        data_schema: None,
        happened: happened(user),
    }
}

fn renamed(user: PublicUser) -> Happened {
    let changed = ProfileChange { full_name: Some(user.full_name.clone()), metadata: None };
    Happened::ProfileChanged(UserChanged { changed, user })
}

/// A state of every user at revision 1, 2,000 changes, a type that nobody knows, and the end of user 0.
async fn tell(bus: &FeedBus) {
    for n in 0..USERS {
        let state = |user| Happened::Snapshot(UserData { user });
        bus.publish_snapshot(&event(n, 1, state)).await;
    }
    for revision in 2..2 + EVENTS_EACH {
        for n in 0..USERS {
            bus.publish(&event(n, revision, renamed)).await;
        }
    }
    let unknown = event(1, 2 + EVENTS_EACH, |user| Happened::Other {
        kind: "users.v1.promoted".to_owned(),
        subject: user.id.to_string(),
        data: json!({ "to": "admiral" }).as_object().unwrap().clone(),
    });
    bus.publish_as(&format!("users.v1.promoted.{}", user(1)), &unknown).await;
    let gone = |user: PublicUser| {
        let user = DeletedUser { id: user.id, deleted_at: user.updated_at };
        Happened::Deleted(DeletedUserData { user })
    };
    bus.publish(&event(0, 2 + EVENTS_EACH, gone)).await;
}

/// Runs a subscriber to the end of the feed, through everything that can happen to it.
async fn survives(bus: &FeedBus, command: impl Fn() -> Command) -> Vec<String> {
    tell(bus).await;
    let said = Said::default();
    let mut running = Running::start(command(), &said);
    let mut kills = KILLS_AT.to_vec();
    kills.push(SERVER_KILLED_AT);
    kills.sort_unstable();
    for at in kills {
        said.has(at).await;
        if at == SERVER_KILLED_AT {
            bus.server.kill().unwrap();
            bus.server.restart().unwrap();
        } else {
            running.kill();
            running = Running::start(command(), &said);
        }
    }
    wait_for("everything to be acknowledged", || bus.is_done()).await;
    assert!(running.end().success());
    let lines = said.lines();
    ends_without_its_consumer(bus, command()).await;
    lines
}

/// An operator removes the subscriber while it runs: it says so and ends, and does not try for ever.
async fn ends_without_its_consumer(bus: &FeedBus, mut command: Command) {
    let errors = bus.file("errors");
    command.stderr(File::create(&errors).unwrap());
    let mut running = Running::start(command, &Said::default());
    // It asks for the next message: only then is it there.
    wait_for("the subscriber to ask", || bus.is_asked()).await;
    bus.remove_subscriber().await;
    let mut ended = None;
    wait_for("the end of the subscriber", || {
        ended = ended.or_else(|| running.ended());
        let is_over = ended.is_some();
        async move { is_over }
    })
    .await;
    assert_eq!(ended.unwrap().code(), Some(1));
    let errors = fs::read_to_string(&errors).unwrap();
    assert!(errors.contains("is gone: ask the operator (roster subscribers list)"), "{errors}");
}

/// The revisions that lines `TYPE SUBJECT REVISION MORE` tell of each user, those that came again left out.
fn revisions(lines: &[String]) -> BTreeMap<String, Vec<u64>> {
    let mut revisions: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0].starts_with("users.v1.") && words.get(3) != Some(&"again") {
            revisions.entry(words[1].to_owned()).or_default().push(words[2].parse().unwrap());
        }
    }
    revisions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_has_every_effect_exactly_once() {
    let bus = FeedBus::with_subscriber(NAME, Duration::from_secs(2)).await;
    let python = python();
    let lines = survives(&bus, || {
        let mut command = Command::new(&python);
        command.arg(examples().join("subscriber.py")).arg(NAME);
        command.env("NATS_URL", bus.server.url()).current_dir(bus.file(""));
        command
    })
    .await;
    for (user, told) in revisions(&lines) {
        assert!(told.windows(2).all(|pair| pair[0] < pair[1]), "{user}: {told:?}");
    }
    // What it prints may be cut off by its death; what it wrote may not.
    let query = "import json, sqlite3; database = sqlite3.connect('copy.db'); print(json.dumps(\
        database.execute('SELECT id, full_name, events FROM users ORDER BY id').fetchall()))";
    let output = Command::new(&python).args(["-c", query]).current_dir(bus.file("")).output();
    let rows: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let last = format!("Name {}", 1 + EVENTS_EACH);
    // The first user is deleted, here too.
    let wanted: Vec<Value> = (1..USERS).map(|n| json!([user(n), last, 1 + EVENTS_EACH])).collect();
    assert_eq!(rows, Value::Array(wanted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_javascript_misses_nothing_and_keeps_the_order() {
    let bus = FeedBus::with_subscriber(NAME, Duration::from_secs(2)).await;
    let script = javascript();
    let lines = survives(&bus, || {
        let mut command = Command::new("node");
        command.arg(&script).arg(NAME);
        command.env("NATS_URL", bus.server.url()).current_dir(bus.file(""));
        command
    })
    .await;
    let told = revisions(&lines);
    assert_eq!(told.len(), usize::try_from(USERS).unwrap());
    let mut twice = 0;
    for (user, told) in told {
        assert!(told.windows(2).all(|pair| pair[0] <= pair[1]), "{user}: {told:?}");
        let mut once = told.clone();
        once.dedup();
        twice += told.len() - once.len();
        let last = once.len() as u64;
        assert_eq!(once, (1..=last).collect::<Vec<_>>(), "{user}");
        assert!(last > EVENTS_EACH, "{user}");
    }
    // The gap between the work and the file, once per death.
    assert!(twice <= KILLS_AT.len(), "{twice} came twice");
    assert!(lines.iter().all(|line| !line.contains("promoted")));
}

/// With a whole Roster, as README.md and docs/feed.md say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_welcome_mailer_greets_who_registers_and_nobody_else() {
    let system = System::shared().await;
    let commands = system.commands();
    let (admin, _) = system.as_administrator().await;
    let early = commands.register("early@example.com").await.expect(201);
    let output = system.roster(&["subscribers", "add", "welcome", "--filter", "users"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    import(&admin, "{\"email\": \"moved@example.com\"}\n").await.expect(200);
    let late = commands.register("late@example.com").await.expect(201);

    let said = Said::default();
    let command = || {
        let mut command = Command::new(example("welcome-mailer"));
        command.arg("welcome").env("NATS_URL", system.nats_url());
        command.current_dir(system.file(""));
        command
    };
    let running = Running::start(command(), &said);
    let mail = |of: &Value| system.file("mails").join(format!("{}.eml", of.as_str().unwrap()));
    let (first, second) = (mail(&early.body["id"]), mail(&late.body["id"]));
    wait_for("both mails", || async { first.exists() && second.exists() }).await;
    assert!(running.end().success());
    let third = commands.register("third@example.com").await.expect(201);
    let running = Running::start(command(), &said);
    wait_for("the third mail", || async { mail(&third.body["id"]).exists() }).await;
    admin
        .delete(&format!("/api/v1/users/{}", early.body["id"].as_str().unwrap()))
        .await
        .expect(204);
    wait_for("a deletion to reach its copies", || async { !first.exists() }).await;
    assert!(running.end().success());
    assert_eq!(fs::read_dir(system.file("mails")).unwrap().count(), 2 + 1, "and the administrator");
    let text = fs::read_to_string(second).unwrap();
    assert!(text.starts_with("To: late@example.com\n"), "{text}");
}
