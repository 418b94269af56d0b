//! `roster rebuild`: another generation of the views beside the live one, and nobody notices.

use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::{Client, PASSWORD, System, digest, rename, wait_for};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::damage::{Damage, HISTORY, SESSIONS, USERS, key};
use crate::failures::nothing_is_lost;
use crate::verifying::{is_sound, some_users, verify};
use crate::workload::Workload;

/// Those who write, and read what they wrote.
const CHECKERS: usize = 8;

fn answer_of(output: &Output) -> (Option<i32>, Value) {
    let said = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!(said));
    (output.status.code(), answer)
}

/// A system whose queries follow a switch sooner, so that a rebuild waits 12 s for them and not 30.
async fn quick() -> System {
    System::shared_with(&[("ROSTER_VIEWS_GENERATIONS_KNOWN_S", "4")]).await
}

fn rebuild(system: &System, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = vec!["rebuild"];
    command.extend(arguments);
    command.push("--json");
    answer_of(&system.roster(&command))
}

fn rebuilt(system: &System, arguments: &[&str]) -> Value {
    let (code, answer) = rebuild(system, arguments);
    assert_eq!(code, Some(0), "{answer}");
    answer
}

fn generations(system: &System) -> Value {
    rebuilt(system, &["all", "--status"])["generations"].take()
}

/// Generations that are at the end of the log say what a projector makes of the log that has never seen others.
async fn equal_a_fresh_fold(system: &mut System, users: u32, sessions: u32) {
    let rebuilt = digest(&system.views().await, users, sessions).await;
    system.kill_projector();
    system.start_projector_in("fresh");
    let fresh = system.views().await;
    wait_for("a fresh fold to say the same", || async { digest(&fresh, 1, 1).await == rebuilt })
        .await;
}

/// Clients that rename themselves, log in, and look whether it shows.
struct Checkers {
    stop: Arc<AtomicBool>,
    checked: Arc<AtomicUsize>,
    pending: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

/// Whether the end of a user's history tells of a name.
async fn has_in_history(queries: &Client, path: &str, name: &str) -> bool {
    let first = format!("{path}/history?page_size=200");
    let mut page = queries.get(&first).await.expect(200).body;
    while let Some(cursor) = page["next_cursor"].as_str() {
        page = queries.get(&format!("{first}&cursor={cursor}")).await.expect(200).body;
    }
    page.to_string().contains(name)
}

impl Checkers {
    async fn start(system: &System) -> Self {
        let (admin, queries) = system.as_administrator().await;
        let mut checkers = Self {
            stop: Arc::default(),
            checked: Arc::default(),
            pending: Arc::default(),
            tasks: JoinSet::new(),
        };
        for checker in 0..CHECKERS {
            let email = format!("checker{checker}@example.com");
            let user = admin.register(&email).await.expect(201);
            let path = user.header("location").unwrap().to_owned();
            let (admin, queries) = (admin.clone(), queries.clone());
            let commands = system.commands();
            let (stop, checked) = (Arc::clone(&checkers.stop), Arc::clone(&checkers.checked));
            let pending = Arc::clone(&checkers.pending);
            checkers.tasks.spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("name {n}");
                    let written = admin.patch(&path, &rename(&name)).await.expect(200);
                    if written.header("roster-pending").is_none() {
                        let read = queries.get(&path).await.expect(200);
                        assert_eq!(read.body["full_name"], *name, "stale after {written:?}");
                        let listed = queries.get(&format!("/api/v1/users?email={email}")).await;
                        assert_eq!(listed.expect(200).body["items"][0]["full_name"], *name);
                        assert!(has_in_history(&queries, &path, &name).await, "{name}");
                        checked.fetch_add(1, Ordering::Relaxed);
                    } else {
                        pending.fetch_add(1, Ordering::Relaxed);
                    }
                    if n % 8 == 0 {
                        logs_in(&commands, &queries, &email).await;
                    }
                    n += 1;
                }
            });
        }
        checkers
    }

    async fn finish(mut self) -> (usize, usize) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        (self.checked.load(Ordering::Relaxed), self.pending.load(Ordering::Relaxed))
    }
}

/// A login shows among the user's sessions, and is over when it is ended.
async fn logs_in(commands: &Client, queries: &Client, email: &str) {
    let body = json!({"email": email, "password": PASSWORD});
    let login = commands.post("/api/v1/auth/login", &body).await.expect(200);
    let as_user = queries.with_token(login.body["access_token"].as_str().unwrap());
    if login.header("roster-pending").is_none() {
        let sessions = as_user.get("/api/v1/auth/sessions").await.expect(200);
        let is_this = |session: &&Value| session["current"] == true;
        let listed = sessions.body["items"].as_array().unwrap().iter().any(|it| is_this(&it));
        assert!(listed, "the session is not there: {sessions:?}");
    }
    let refresh = login.body["refresh_token"].as_str().unwrap();
    commands.log_out_with(refresh).await.expect(204);
}

/// Runs a command of the operator while everything else goes on.
async fn beside(system: &System, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = vec!["rebuild"];
    command.extend(arguments);
    command.push("--json");
    let mut child = system.roster_in_the_background(&command, "rebuild.json");
    let mut code = None;
    wait_for_long("the rebuild to end", || {
        code = child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    let said = std::fs::read(system.file("rebuild.json")).unwrap();
    (code.unwrap().code(), serde_json::from_slice(&said).unwrap_or(Value::Null))
}

/// Longest wait for a whole rebuild: what was live is waited for 12 s.
const REBUILD_MAX: Duration = Duration::from_secs(300);

async fn wait_for_long(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + REBUILD_MAX;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_writers_and_readers_no_answer_fails_and_none_is_stale() {
    let mut system = quick().await;
    some_users(&system, 6).await;
    let (workload, checkers) = (Workload::start(&system).await, Checkers::start(&system).await);
    workload.more(10).await;
    let (code, answer) = beside(&system, &["all"]).await;
    assert_eq!(code, Some(0), "{answer}");
    workload.more(10).await;
    let acknowledged = workload.finish().await;
    let (checked, pending) = checkers.finish().await;
    assert!(acknowledged.refusals.is_empty(), "{:?}", acknowledged.refusals);
    assert!(checked > 50, "{checked} answers were looked at, {pending} commands did not wait");
    assert_eq!(
        answer["generations"],
        json!({
            "users": {"live": 2, "beside": {"number": 1, "phase": "old"}},
            "sessions": {"live": 2, "beside": {"number": 1, "phase": "old"}},
        })
    );
    assert!(answer["looked_at"]["users"].as_u64() > Some(10), "{answer}");

    // query-api follows without a restart.
    let private = Client::new(&system.query_api.value("private"));
    for views in ["users", "sessions"] {
        let live = private.scrape().await.value("roster_views_generation", &[("views", views)]);
        assert_eq!(live, Some(2.0), "{views}");
    }
    nothing_is_lost(&system, &acknowledged).await;
    is_sound(&system, &[]);
    let views = system.views().await;
    // The one that was live is kept up to date.
    let new = digest(&views, 2, 2).await;
    wait_for("the old generation to be as new", || async { digest(&views, 1, 1).await == new })
        .await;
    equal_a_fresh_fold(&mut system, 2, 2).await;
}

/// Whatever is killed at whatever point, and with two projectors: repeated, it comes to the same end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_comes_to_the_same_end() {
    let mut system = quick().await;
    some_users(&system, 12).await;
    let mut second = Some(system.another("projector"));
    let checkers = Checkers::start(&system).await;
    for round in 0..8_u64 {
        let mut command = system.roster_in_the_background(&["rebuild", "all"], "killed.json");
        // Not a wait for a state: that the points are arbitrary is what is tried.
        sleep(Duration::from_millis(40 + 160 * round)).await;
        match round % 3 {
            0 => second.replace(system.another("projector")).unwrap().kill(),
            1 => {
                system.kill_projector();
                system.start_projector();
            }
            _ => {}
        }
        command.kill().unwrap();
        command.wait().unwrap();
    }
    let (code, answer) = beside(&system, &["all"]).await;
    assert_eq!(code, Some(0), "{answer}");
    let (checked, pending) = checkers.finish().await;
    assert!(checked > 20, "{checked} answers were looked at, {pending} commands did not wait");
    assert_eq!(answer["generations"]["users"]["live"], 2, "it went on with what it had begun");
    second.take().unwrap().kill();
    is_sound(&system, &[]);
    equal_a_fresh_fold(&mut system, 2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_a_way_back_and_a_way_out() {
    let system = quick().await;
    some_users(&system, 4).await;
    let commands = system.commands();
    let users = |live: u32, beside: Value| json!({"live": live, "beside": beside});
    let (code, refused) = rebuild(&system, &["users", "--rollback"]);
    assert_eq!(code, Some(1), "nothing is there to go back to: {refused}");
    rebuilt(&system, &["users"]);
    let checkers = Checkers::start(&system).await;
    let (code, answer) = beside(&system, &["users", "--rollback"]).await;
    assert_eq!(code, Some(0), "{answer}");
    checkers.finish().await;
    let old = json!({"number": 2, "phase": "old"});
    assert_eq!(generations(&system)["users"], users(1, old.clone()));
    assert_eq!(generations(&system)["sessions"], users(1, Value::Null), "not asked for");
    let (code, _) = rebuild(&system, &["users", "--rollback"]);
    assert_eq!((code, &generations(&system)["users"]), (Some(1), &users(1, old)), "once");
    is_sound(&system, &[]);

    let views = system.views().await;
    rebuilt(&system, &["users", "--discard"]);
    assert_eq!(generations(&system)["users"], users(1, Value::Null));
    wait_for("nothing to be left of it", || async {
        commands.register("beside@example.com").await;
        let names = views.list_collection_names().await.unwrap();
        names.iter().all(|name| !name.ends_with("_2"))
    })
    .await;
    let left = views.collection::<Document>("checkpoints");
    let left = left.count_documents(doc! {"_id": {"$regex": "users_2"}}).await.unwrap();
    assert_eq!(left, 0);
    // Back at once, while what was live is still waited for.
    let mut command = system.roster_in_the_background(&["rebuild", "users"], "third.json");
    wait_for("the switch", || async { generations(&system)["users"]["live"] == 3 }).await;
    command.kill().unwrap();
    command.wait().unwrap();
    let leaving = json!({"number": 1, "phase": "leaving"});
    assert_eq!(generations(&system)["users"], users(3, leaving), "no number is given twice");
    rebuilt(&system, &["users", "--rollback"]);
    let old = json!({"number": 3, "phase": "old"});
    assert_eq!(generations(&system)["users"], users(1, old));
    is_sound(&system, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_user_is_gone_from_every_generation() {
    let mut system = quick().await;
    some_users(&system, 2).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let mut users = Vec::new();
    for n in 0..2 {
        let email = format!("leaves{n}@example.com");
        let user = commands.register(&email).await.expect(201);
        let path = user.header("location").unwrap().to_owned();
        admin.patch(&path, &rename("Leaves")).await.expect(200);
        commands.log_in(&email, PASSWORD).await;
        users.push((user.body["id"].as_str().unwrap().to_owned(), path));
    }
    // One is deleted while a generation is begun and nobody fills it.
    system.kill_projector();
    let mut command = system.roster_in_the_background(&["rebuild", "all"], "begun.json");
    wait_for("a generation to be begun", || async {
        generations(&system)["users"]["beside"]["phase"] == "filling"
    })
    .await;
    admin.with_header("prefer", "respond-async").delete(&users[0].1).await.expect(204);
    command.kill().unwrap();
    command.wait().unwrap();
    system.start_projector();
    system.ready().await;
    let (code, answer) = beside(&system, &["all"]).await;
    assert_eq!(code, Some(0), "{answer}");
    // The other one while there is an old generation.
    admin.delete(&users[1].1).await.expect(204);

    let views = system.views().await;
    for (id, _) in &users {
        wait_for_erasure(&system, id).await;
        let of = key(id.parse().unwrap());
        for generation in [1, 2] {
            let count = async |kind: &str, member: &str| {
                let collection = views.collection::<Document>(&format!("{kind}_{generation}"));
                collection.count_documents(doc! { member: of.clone() }).await.unwrap()
            };
            let there = (
                count("users", "_id").await,
                count("user_history", "user_id").await,
                count("sessions", "user_id").await,
            );
            assert_eq!(there, (1, 1, 0), "tombstone and deletion in generation {generation}");
        }
    }
}

async fn wait_for_erasure(system: &System, user: &str) {
    // The eraser looks a second time after a minute; what is asked here is what the views have.
    let mut left = Value::Null;
    for _ in 0..1_000 {
        let (_, answer) = answer_of(&system.roster(&["erase", "--verify", "--json", user]));
        let of_views = |left: &Value| left["collection"].is_string();
        let documents = answer["left"].as_array().is_some_and(|left| left.iter().any(of_views));
        let waits = answer["waits_for"].to_string().contains("the views");
        if !documents && !waits {
            return;
        }
        left = answer;
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_to_the_views_is_healed_and_damage_to_the_new_ones_refused() {
    let system = quick().await;
    let users = some_users(&system, 6).await;
    is_sound(&system, &[]);
    let damage = Damage::of(&system).await;
    damage.change(USERS, doc! {"_id": key(users[0])}, doc! {"full_name": "Mallory"}).await;
    damage.drop(USERS, doc! {"_id": key(users[1])}).await;
    damage.drop(SESSIONS, doc! {"user_id": key(users[2])}).await;
    damage.copy(HISTORY, doc! {"user_id": key(users[3])}, 1_i64).await;
    assert_eq!(verify(&system, &[]).0, Some(1));
    rebuilt(&system, &["all"]);
    is_sound(&system, &[]);

    // A generation that is filled, and then somebody lays hands on it.
    let mut command = system.roster_in_the_background(&["rebuild", "users"], "damaged.json");
    let views = system.views().await;
    wait_for("the third generation to be live", || async {
        generations(&system)["users"]["live"] == 3
    })
    .await;
    command.kill().unwrap();
    command.wait().unwrap();
    rebuilt(&system, &["users"]);
    let second = views.collection::<Document>("users_2");
    let filter = doc! {"_id": key(users[4])};
    second.update_one(filter, doc! {"$set": {"full_name": "Mallory"}}).await.unwrap();
    let (code, answer) = rebuild(&system, &["users", "--rollback"]);
    assert_eq!((code, &answer["differences_total"]), (Some(1), &json!(1)), "{answer}");
    assert_eq!(answer["differences"][0]["where"], "user-view");
    assert_eq!(answer["differences"][0]["members"], json!(["full_name"]));
    assert_eq!(
        generations(&system)["users"],
        json!({"live": 3, "beside": {"number": 2, "phase": "old"}}),
        "nobody waits for it"
    );
    is_sound(&system, &[]);
    rebuilt(&system, &["users", "--discard"]);
    is_sound(&system, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_projector_it_says_so_and_goes_on_later() {
    let mut system = quick().await;
    some_users(&system, 2).await;
    system.kill_projector();
    let (code, answer) = beside(&system, &["sessions"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(answer, Value::Null, "the reason goes to standard error");
    assert_eq!(generations(&system)["sessions"]["beside"]["phase"], "filling");
    system.start_projector();
    system.ready().await;
    rebuilt(&system, &["sessions"]);
    assert_eq!(generations(&system)["sessions"]["live"], 2);
    is_sound(&system, &[]);
}
