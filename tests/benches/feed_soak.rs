//! Two subscribers in other languages through a hundred thousand events, while everything is killed.
//!
//! `cargo bench -p e2e --bench feed_soak [-- EVENTS]`
//!
//! The subscribers are the examples in Python (nats-py) and in JavaScript (nats.js). The events are registrations,
//! changes of name and of roles, and deletions, mixed, out of imports and commands over HTTP. Meanwhile the projector,
//! both subscribers and nats-server are killed with SIGKILL in turn, again and again. In the end every event of the
//! log must have come to both, per user in order, and none twice at one revision once the helper of the example has
//! looked at it. The reactor is down meanwhile: it would erase what was told of deleted users before a subscriber
//! that was killed could read it, and then nobody could tell what was missed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, speaks to whoever runs it, and owns its tasks"
)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::examples::{Running, Said, examples, javascript, python};
use e2e::{Client, System, rename};
use events::UserState;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

const EVENTS_DEFAULT: u64 = 100_000;
/// Users in one import.
const IMPORT_LINES: u64 = 500;
/// Commands at once.
const WRITERS: u64 = 8;
/// Time between two kills.
const KILL_EVERY: Duration = Duration::from_secs(12);
/// Time for the subscribers to take what is left.
const REST_MAX: Duration = Duration::from_secs(1_800);

fn main() {
    let events = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(soak(events.unwrap_or(EVENTS_DEFAULT)));
}

async fn soak(events: u64) {
    let room = (4_u64 << 30).to_string();
    let mut system = System::own_with(&[
        ("ROSTER_LOG_BYTES_MAX", &room),
        ("ROSTER_FEED_BYTES_MAX", &room),
        ("ROSTER_TOKENS_ACCESS_LIFETIME_S", "3600"),
    ])
    .await;
    system.kill_reactor();
    for name in ["python", "node"] {
        let output = system.roster(&["subscribers", "add", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (python, script) = (python(), javascript());
    let (nats, folder) = (system.nats_url().to_owned(), system.file(""));
    let command = |name: &str| {
        let mut command = match name {
            "python" => {
                let mut command = Command::new(&python);
                command.arg(examples().join("subscriber.py"));
                command
            }
            _ => {
                let mut command = Command::new("node");
                command.arg(&script);
                command
            }
        };
        command.arg(name).env("NATS_URL", &nats).current_dir(&folder);
        command
    };
    let said = HashMap::from([("python", Said::default()), ("node", Said::default())]);
    let start = |name: &str| Running::start(command(name), &said[name]);
    let mut running = HashMap::from([("python", start("python")), ("node", start("node"))]);

    let (admin, _) = system.as_administrator().await;
    let admin = admin.with_header("prefer", "respond-async");
    let (told, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let writing = {
        let (told, over) = (Arc::clone(&told), Arc::clone(&over));
        tokio::spawn(async move {
            write(&admin, events, &told).await;
            over.store(true, Ordering::Relaxed);
        })
    };
    let mut kills: BTreeMap<&str, u32> = BTreeMap::new();
    let mut turn = ["projector", "python", "nats-server", "node"].into_iter().cycle();
    while !over.load(Ordering::Relaxed) {
        sleep(KILL_EVERY).await;
        let victim = turn.next().unwrap();
        *kills.entry(victim).or_default() += 1;
        match victim {
            "projector" => {
                system.kill_projector();
                system.start_projector();
            }
            "nats-server" => {
                system.nats().kill().unwrap();
                system.nats().restart().unwrap();
            }
            name => {
                running.remove(name).unwrap().kill();
                running.insert(name, start(name));
            }
        }
    }
    writing.await.unwrap();
    println!(
        "{} events in {:.0} s, killed meanwhile: {kills:?}",
        told.load(Ordering::Relaxed),
        began.elapsed().as_secs_f64()
    );

    wait_for_the_rest(&system).await;
    println!("all acknowledged {:.0} s after the first", began.elapsed().as_secs_f64());
    for (name, subscriber) in running {
        assert!(subscriber.end().success(), "{name} ends");
    }
    judge(&system, &said).await;
}

/// Makes events until there are so many: of ten, four registrations, three changes of name, two of roles and
/// one deletion.
async fn write(admin: &Client, events: u64, told: &Arc<AtomicU64>) {
    let mut number = 0;
    while told.load(Ordering::Relaxed) < events {
        let ids = import(admin, number).await;
        number += IMPORT_LINES;
        told.fetch_add(IMPORT_LINES, Ordering::Relaxed);
        let (ids, mut writers) = (Arc::new(ids), JoinSet::new());
        for writer in 0..WRITERS {
            let (admin, ids, told) = (admin.clone(), Arc::clone(&ids), Arc::clone(told));
            writers.spawn(async move {
                for (n, id) in ids.iter().enumerate().filter(|(n, _)| *n as u64 % WRITERS == writer)
                {
                    let path = format!("/api/v1/users/{id}");
                    if n % 4 != 3 {
                        patch(&admin, &path, &rename(&format!("Name {n}"))).await;
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                    if n % 2 == 0 {
                        patch(&admin, &path, &json!({ "roles": ["user", "auditor"] })).await;
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                    if n % 4 == 1 {
                        insist(|| admin.try_send("DELETE", &path, None), &[204]).await;
                        told.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        writers.join_all().await;
    }
}

async fn patch(admin: &Client, path: &str, change: &Value) {
    let body = || Some(("application/json", change.to_string().into_bytes()));
    insist(|| admin.try_send("PATCH", path, body()), &[200]).await;
}

/// Sends a command until it is answered as it must be: it changes nothing when it was done before.
async fn insist<F, Fut>(send: F, wanted: &[u16]) -> e2e::Answer
where
    F: Fn() -> Fut,
    Fut: Future<Output = Option<e2e::Answer>>,
{
    loop {
        match send().await {
            Some(answer) if wanted.contains(&answer.status) => return answer,
            Some(answer) if answer.status != 503 => panic!("{answer:?}"),
            Some(_) | None => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn import(admin: &Client, from: u64) -> Vec<String> {
    let line = |n| json!({ "email": format!("soak{n}@example.com") }).to_string();
    let body = (from..from + IMPORT_LINES).map(line).collect::<Vec<_>>().join("\n").into_bytes();
    loop {
        let body = || Some(("application/x-ndjson", body.clone()));
        let path = "/api/v1/users/import";
        let answer = insist(|| admin.try_send("POST", path, body()), &[200]).await;
        let ids = answer.lines().into_iter().map(|line| line["id"].as_str().map(str::to_owned));
        // A line whose outcome is not known is sent again, and is there already or not.
        if let Some(ids) = ids.collect::<Option<Vec<String>>>() {
            return ids;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

async fn wait_for_the_rest(system: &System) {
    let deadline = Instant::now() + REST_MAX;
    loop {
        let output = system.roster(&["subscribers", "lag", "--json"]);
        let lag: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let left =
            |of: &Value| of["pending"].as_u64().unwrap() + of["unacknowledged"].as_u64().unwrap();
        let left: u64 = lag["items"].as_array().unwrap().iter().map(left).sum();
        if left == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "{left} are left");
        sleep(Duration::from_secs(1)).await;
    }
}

/// What each subscriber must have, against what it has.
async fn judge(system: &System, said: &HashMap<&str, Said>) {
    let fold = system.fold().await;
    let wanted: HashMap<String, u64> =
        fold.users.iter().map(|(id, state)| (id.to_string(), state.revision().0)).collect();
    let gone = fold.users.values().filter(|s| matches!(s, UserState::Deleted(_))).count();
    let events: u64 = wanted.values().sum();
    println!("the log: {} users, {gone} of them deleted, {events} events", wanted.len());
    for (name, said) in said {
        let mut told: HashMap<String, Vec<u64>> = HashMap::new();
        // What came: a subscriber may be killed between its work and the line that tells of it, and then says only
        // that the event came again.
        let mut came: HashMap<String, HashSet<u64>> = HashMap::new();
        let (mut again, mut lines) = (0_u64, 0_u64);
        for line in said.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            // The last line of one that was killed may be cut off: that event comes again.
            if !words[0].starts_with("users.v1.") || words.len() < 3 {
                continue;
            }
            lines += 1;
            let (user, revision) = (words[1].to_owned(), words[2].parse().unwrap());
            came.entry(user.clone()).or_default().insert(revision);
            if words.get(3) == Some(&"again") {
                again += 1;
            } else {
                told.entry(user).or_default().push(revision);
            }
        }
        let (mut missing, mut out_of_order, mut twice, mut received) = (0, 0, 0, 0);
        for (user, last) in &wanted {
            let revisions = told.remove(user).unwrap_or_default();
            let came = came.remove(user).unwrap_or_default();
            received += came.len();
            out_of_order += revisions.windows(2).filter(|pair| pair[0] > pair[1]).count();
            twice += revisions.windows(2).filter(|pair| pair[0] == pair[1]).count();
            missing += (1..=*last).filter(|revision| !came.contains(revision)).count();
        }
        println!(
            "{name}: {received} events in {lines} lines; missing {missing}, out of order {out_of_order}, \
             twice {twice}, said to come again {again}"
        );
        assert!(came.is_empty(), "{} users that nobody knows", came.len());
        assert_eq!((missing, out_of_order), (0, 0), "{name}");
    }
}
