//! `roster verify`: it finds every kind of damage, names it, and finds nothing where there is none.

use std::collections::BTreeSet;

use e2e::{PASSWORD, System, rename};
use events::UserId;
use mongodb::bson::{Uuid, doc};
use serde_json::{Value, json};

use crate::damage::{Damage, HISTORY, SESSIONS, USERS, key};
use crate::workload::Workload;

pub fn verify(system: &System, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = vec!["verify", "--json"];
    command.extend(arguments);
    let output = system.roster(&command);
    let said = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout);
    (output.status.code(), answer.unwrap_or_else(|_| panic!("no answer: {said}")))
}

pub fn is_sound(system: &System, arguments: &[&str]) -> Value {
    let (code, answer) = verify(system, arguments);
    assert_eq!((code, &answer["differences"]), (Some(0), &json!([])), "{answer}");
    answer
}

/// Users with some history, some sessions, and some who are gone.
pub async fn some_users(system: &System, count: usize) -> Vec<UserId> {
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let mut users = Vec::new();
    for n in 0..count {
        let email = format!("user{n}@example.com");
        let user = commands.register(&email).await.expect(201);
        let path = user.header("location").unwrap().to_owned();
        let pair = commands.log_in(&email, PASSWORD).await;
        commands.refresh(&pair.refresh).await.expect(200);
        admin.patch(&path, &rename(&format!("User {n}"))).await.expect(200);
        admin.patch(&path, &json!({"roles": ["user", "auditor"]})).await.expect(200);
        users.push(user.body["id"].as_str().unwrap().parse().unwrap());
    }
    for n in 0..3 {
        let email = format!("gone{n}@example.com");
        let user = commands.register(&email).await.expect(201);
        let path = user.header("location").unwrap().to_owned();
        let pair = commands.log_in(&email, PASSWORD).await;
        admin.patch(&path, &rename("Gone")).await.expect(200);
        if n > 0 {
            commands.log_out_with(&pair.refresh).await.expect(204);
        }
        admin.delete(&path).await.expect(204);
    }
    // An address that changes hands.
    commands.register("gone0@example.com").await.expect(201);
    users
}

/// The header by which a record is told from what no command wrote.
fn of_a_command() -> async_nats::HeaderMap {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Roster-Command-Id", "01890a5d-ac96-774b-bcce-b302099a8057");
    headers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_damage_is_found_and_named() {
    let system = System::shared().await;
    let users = some_users(&system, 16).await;
    let answer = is_sound(&system, &[]);
    assert!(answer["looked_at"]["users"].as_u64() > Some(16), "{answer}");
    for looked in ["sessions", "events", "documents", "feed", "claims"] {
        assert!(answer["looked_at"][looked].as_u64() > Some(10), "{looked}: {answer}");
    }

    let damage = Damage::of(&system).await;
    let mut expected: BTreeSet<(&str, String, String)> = BTreeSet::new();
    let mut expect = |place, what: &str, user: UserId| {
        expected.insert((place, what.to_owned(), user.to_string()));
    };
    let event = async |user: UserId, n: usize| damage.events_of(user).await[n].sequence;
    let signed = |sequence: u64| i64::try_from(sequence).unwrap();

    // Views of users.
    damage.change(USERS, doc! {"_id": key(users[0])}, doc! {"full_name": "Mallory"}).await;
    expect("user-view", "different", users[0]);
    damage.drop(USERS, doc! {"_id": key(users[1])}).await;
    expect("user-view", "document missing", users[1]);
    let nobody: UserId = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
    damage.copy(USERS, doc! {"_id": key(users[0])}, key(nobody)).await;
    expect("user-view", "document without an event", nobody);
    let before = doc! {"last_login_at": mongodb::bson::DateTime::from_millis(1_000)};
    damage.change(USERS, doc! {"_id": key(users[2])}, before).await;
    expect("user-view", "different", users[2]);

    // Views of sessions, and of what happened.
    damage.change(SESSIONS, doc! {"user_id": key(users[3])}, doc! {"ip": "192.0.2.7"}).await;
    expect("session-view", "different", users[3]);
    damage.drop(SESSIONS, doc! {"user_id": key(users[4])}).await;
    expect("session-view", "document missing", users[4]);
    let other = Uuid::from_bytes([7; 16]);
    damage.copy(SESSIONS, doc! {"user_id": key(users[5])}, other).await;
    expect("session-view", "document without an event", users[5]);
    let at = signed(event(users[6], 1).await);
    damage.drop(HISTORY, doc! {"_id": at}).await;
    expect("history", "document missing", users[6]);
    let at = signed(event(users[7], 0).await);
    damage.change(HISTORY, doc! {"_id": at}, doc! {"actor": "system"}).await;
    expect("history", "different", users[7]);
    // No event stands where a credential does.
    damage.copy(HISTORY, doc! {"_id": at}, at - 1).await;
    expect("history", "document without an event", users[7]);

    // Claims.
    let claim = damage.claim_of(users[8]).await;
    damage.remove("USERS", claim.sequence).await;
    expect("claim", "the user does not hold the claim on the address", users[8]);
    let claim = damage.claim_of(users[9]).await;
    let stolen = json!({"user_id": users[10], "state": "held"}).to_string();
    damage.write(&claim.subject, of_a_command(), stolen.into()).await;
    expect("claim", "somebody else holds the claim on the address", users[9]);
    let free = format!("uq.email.{}", "5".repeat(64));
    let held = json!({"user_id": users[11], "state": "held"}).to_string();
    damage.write(&free, of_a_command(), held.into()).await;
    expect("claim", "a claim is held by a user who has not that address", users[11]);
    let record = damage.messages("USERS", "uq.role.admin").await.pop().unwrap();
    let mut holders = record.json();
    holders["holders"].as_array_mut().unwrap().push(json!(users[12]));
    damage.write(&record.subject, of_a_command(), holders.to_string().into()).await;
    expect("admins", "somebody is named who is no active administrator", users[12]);

    // The feed: an event of a user and one of a session are gone, one is told differently.
    let told = damage.messages("USER_EVENTS", &format!("users.v1.*.{}", users[13])).await;
    damage.remove("USER_EVENTS", told[1].sequence).await;
    expect("feed", "event of the user not told", users[13]);
    let told = damage.messages("USER_EVENTS", &format!("sessions.v1.*.{}", users[14])).await;
    damage.remove("USER_EVENTS", told[0].sequence).await;
    expect("feed", "event of a session not told", users[14]);
    let told = damage.messages("USER_EVENTS", "users.v1.*.*").await.pop().unwrap();
    let again = damage.write(&told.subject, told.headers_of_a_copy(), told.payload.clone()).await;
    let of: UserId = told.subject.rsplit('.').next().unwrap().parse().unwrap();
    expect("feed", "told twice, or out of order", of);

    // The log: an event is gone, and one carries a state that nobody decided.
    damage.remove("USERS", event(users[15], 1).await).await;
    expect("log", "an event before this one is missing", users[15]);
    expect("history", "document without an event", users[15]);
    expect("feed", "told without an event", users[15]);
    let wrong = damage.event_that_does_not_fold(users[0]).await;
    expect("log", "the carried state does not fold", users[0]);
    // The projector takes that event, and writes the document anew.
    expected.remove(&("user-view", "different".to_owned(), users[0].to_string()));
    damage.change(USERS, doc! {"_id": key(users[2])}, doc! {"full_name": "Mallory"}).await;

    let (code, answer) = verify(&system, &[]);
    assert_eq!(code, Some(1));
    let found: BTreeSet<(&str, String, String)> = answer["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            let text = |name: &str| one[name].as_str().unwrap_or_default();
            (text("where"), text("what").to_owned(), text("user_id").to_owned())
        })
        .collect();
    assert_eq!(found, expected, "{answer:#}");
    let one = |place: &str, user: UserId| {
        let all = answer["differences"].as_array().unwrap();
        let user = user.to_string();
        all.iter().find(|one| one["where"] == place && one["user_id"] == *user).unwrap()
    };
    assert_eq!(one("log", users[0])["position"], wrong);
    assert_eq!(one("log", users[0])["members"], json!(["full_name"]));
    assert_eq!(one("user-view", users[2])["members"], json!(["full_name", "last_login_at"]));
    assert_eq!(one("session-view", users[3])["members"], json!(["ip"]));
    assert_eq!(one("feed", of)["position"], again);
    // Nothing of a person is said.
    assert!(!answer.to_string().contains("example.com") && !answer.to_string().contains("Mallory"));

    // The same in words, cut.
    let output = system.roster(&["verify", "--max", "2"]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("and {} more: see --max", found.len() - 2)), "{said}");
}

/// No event of a user comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_false_record_at_the_end_of_the_log_is_found() {
    let system = System::shared().await;
    let users = some_users(&system, 3).await;
    is_sound(&system, &[]);
    let damage = Damage::of(&system).await;
    let found = || {
        let (code, answer) = verify(&system, &[]);
        assert_eq!(code, Some(1), "{answer}");
        let differences = answer["differences"].as_array().unwrap();
        let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
        let what = |one: &Value| (text(one, "what"), text(one, "user_id"));
        differences.iter().map(what).collect::<BTreeSet<_>>()
    };
    let claim = damage.claim_of(users[0]).await;
    let stolen = json!({"user_id": users[1], "state": "held"}).to_string();
    // As a service whose credentials were stolen could word it.
    damage.write(&claim.subject, claim.headers_of_a_copy(), stolen.clone().into()).await;
    let taken = ("somebody else holds the claim on the address".to_owned(), users[0].to_string());
    assert_eq!(found(), BTreeSet::from([taken.clone()]));

    let record = damage.messages("USERS", "uq.role.admin").await.pop().unwrap();
    let mut holders = record.json();
    holders["holders"].as_array_mut().unwrap().push(json!(users[2]));
    damage.write(&record.subject, record.headers_of_a_copy(), holders.to_string().into()).await;
    let named =
        ("somebody is named who is no active administrator".to_owned(), users[2].to_string());
    assert_eq!(found(), BTreeSet::from([taken.clone(), named.clone()]));

    // By hand: it is passed over, and reported.
    let other = damage.claim_of(users[2]).await;
    damage.write(&other.subject, async_nats::HeaderMap::new(), stolen.into()).await;
    let foreign = ("no service wrote this message".to_owned(), String::new());
    assert_eq!(found(), BTreeSet::from([taken, named, foreign]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_found_while_writers_race() {
    let system = System::shared().await;
    some_users(&system, 3).await;
    let workload = Workload::start(&system).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    // Beside registrations and renames: logins, ends of sessions, deletions.
    let others = tokio::spawn(async move {
        for n in 0..24 {
            let email = format!("other{n}@example.com");
            let user = commands.register(&email).await.expect(201);
            let path = user.header("location").unwrap().to_owned();
            let pair = commands.log_in(&email, PASSWORD).await;
            commands.refresh(&pair.refresh).await.expect(200);
            match n % 4 {
                0 => admin.delete(&path).await.expect(204),
                1 => admin.patch(&path, &json!({"roles": ["admin", "user"]})).await.expect(200),
                2 => admin.patch(&path, &json!({"status": "disabled"})).await.expect(200),
                _ => commands.log_out_with(&pair.refresh).await.expect(204),
            };
        }
    });
    let mut runs = 0;
    while !others.is_finished() || runs < 3 {
        is_sound(&system, &[]);
        runs += 1;
    }
    others.await.unwrap();
    workload.finish().await;
    let answer = is_sound(&system, &[]);
    let users = answer["looked_at"]["users"].as_u64().unwrap();
    assert!(users > 24 && answer["changed_meanwhile"] == 0, "{answer}");
    let sample = is_sound(&system, &["--sample", "10"]);
    let sampled = sample["looked_at"]["users"].as_u64().unwrap();
    assert!(sampled < users / 2, "{sampled} of {users}");
}

/// Views that stand still are no reason to compare them with a log that goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_stand_still_are_named_and_not_compared() {
    let mut system = System::shared().await;
    some_users(&system, 3).await;
    is_sound(&system, &[]);
    system.kill_projector();
    let commands = system.commands().with_header("prefer", "respond-async");
    commands.register("later@example.com").await.expect(201);
    let (code, answer) = verify(&system, &["--wait-s", "1"]);
    assert_eq!(code, Some(1));
    let places: Vec<&Value> =
        answer["differences"].as_array().unwrap().iter().map(|one| &one["where"]).collect();
    assert_eq!(places, ["user-view", "feed"], "{answer}");
    system.start_projector();
    is_sound(&system, &[]);
}
