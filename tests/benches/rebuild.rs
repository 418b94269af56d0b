//! Rebuilding the views of a large log while commands and queries go on, and how that compares with reading the log
//! and with writing to the database, each alone.
//!
//! `cargo bench -p e2e --bench rebuild [-- USERS [KILLS]]`
//!
//! A generator writes five events for each user straight into the log, and a session for every tenth. Then views
//! and feed are let come to the end of it, and the two ceilings are measured. The rebuild runs beside 100 commands
//! a second, each of which is read back at once, and 16 readers with 320 reads a second. At last it is
//! killed at random points, repeated, and compared with what a projector makes of the log that has never seen
//! another generation.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on has failed, speaks to whoever runs it, and owns its tasks"
)]

#[path = "rebuild/ceilings.rs"]
mod ceilings;
#[path = "rebuild/generator.rs"]
mod generator;
#[path = "rebuild/load.rs"]
mod load;

use std::time::{Duration, Instant};

use e2e::{System, digest};
use mongodb::bson::{Document, doc};
use serde_json::Value;
use tokio::time::sleep;

use generator::EVENTS_PER_USER;
use load::Load;

const USERS_DEFAULT: u64 = 200_000;
const KILLS_DEFAULT: u64 = 10;
/// How long the load runs alone, to be compared with.
const ALONE: Duration = Duration::from_secs(20);
/// Time for anything that must come to an end.
const END_MAX: Duration = Duration::from_secs(3_600);

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let users = numbers.next().unwrap_or(USERS_DEFAULT);
    let kills = numbers.next().unwrap_or(KILLS_DEFAULT);
    tokio::runtime::Runtime::new().unwrap().block_on(measure(users, kills));
}

async fn measure(users: u64, kills: u64) {
    let room = (4_u64 << 30).to_string();
    let mut system = System::own_with(&[
        ("ROSTER_LOG_BYTES_MAX", &room),
        ("ROSTER_FEED_BYTES_MAX", &room),
        ("ROSTER_TOKENS_ACCESS_LIFETIME_S", "3600"),
        // Nobody waits for the feed here.
        ("ROSTER_PROJECTOR_LAG_MAX_MS", "3600000"),
    ])
    .await;
    give_cache(&system).await;
    // It would read the whole log for users to be erased, of whom there are none.
    system.kill_reactor();
    let events = users * EVENTS_PER_USER;
    let began = Instant::now();
    generator::fill(&system, users).await;
    rate("events into the log, in batches", events, began.elapsed());
    let began = Instant::now();
    wait_until("the views to be there", || async { behind(&system, "views of").await == 0 }).await;
    rate("events folded by the projector that was live meanwhile", events, began.elapsed());
    wait_until("the feed to be there", || async { behind(&system, "feed").await == 0 }).await;

    let read = ceilings::read_the_log(&system, events).await;
    let written = ceilings::write_documents(&system).await;

    // Another process, so that its largest size is that of the rebuild.
    system.kill_projector();
    system.start_projector();
    system.ready().await;
    let load = Load::start(&system, users).await;
    sleep(ALONE).await;
    load.finish().await.show("the load alone");
    let load = Load::start(&system, users).await;
    let began = Instant::now();
    let answer = rebuilt(&system, "all").await;
    let took = began.elapsed();
    let seen = load.finish().await;
    let size = largest_size_mb(system.projector.as_ref().unwrap().pid()).unwrap();
    seen.show("beside the rebuild");
    let filled = Duration::from_secs_f64(answer["filled_s"].as_f64().unwrap());
    let compared = Duration::from_secs_f64(answer["compared_s"].as_f64().unwrap());
    rate("events into the new generation, beside the load", events, filled);
    let per_s = events as f64 / filled.as_secs_f64();
    println!(
        "  {:.2} of reading the log alone, {:.2} of writing alone",
        per_s / read,
        per_s / written
    );
    rate("events compared with it", events, compared);
    println!(
        "the command took {:.0} s, 30 s of it waiting for readers of the old one",
        took.as_secs_f64()
    );
    println!("largest size of the projector: {size} MB");
    killed(&mut system, kills, filled).await;
    assert!(seen.failed.is_empty() && seen.stale == 0, "answers failed or were stale");
}

/// The servers of tests have a cache of 256 MB, which is less than the views of this log. Unless it is told
/// otherwise the database takes half of what the machine has.
async fn give_cache(system: &System) {
    let admin = system.views().await.client().database("admin");
    let cache = doc! {"setParameter": 1, "wiredTigerEngineRuntimeConfig": "cache_size=4G"};
    admin.run_command(cache).await.unwrap();
}

/// Kills at random points of a rebuild, and a last run to its end.
async fn killed(system: &mut System, kills: u64, filled: Duration) {
    let mut random = generator::Random::new(7);
    for kill in 0..kills {
        let mut command = system.roster_in_the_background(&["rebuild", "all"], "killed.json");
        let millis = u64::try_from(filled.as_millis()).unwrap();
        // Without the load it is filled faster: they end where it is compared, before it is switched in.
        let at = Duration::from_millis(random.next() % (millis / kills.max(1)).max(1));
        sleep(at).await;
        command.kill().unwrap();
        command.wait().unwrap();
        let victim = if kill % 2 == 0 { "command and projector" } else { "command" };
        if kill % 2 == 0 {
            system.kill_projector();
            system.start_projector();
        }
        println!("killed {victim} after {:.1} s", at.as_secs_f64());
    }
    let answer = rebuilt(system, "all").await;
    let of =
        |kind: &str| u32::try_from(answer["generations"][kind]["live"].as_u64().unwrap()).unwrap();
    let (users, sessions) = (of("users"), of("sessions"));
    let rebuilt = digest(&system.views().await, users, sessions).await;
    system.kill_projector();
    system.start_projector_in("fresh");
    wait_until("a fresh fold", || async { behind(system, "views of").await == 0 }).await;
    wait_until("its logins", || async { behind(system, "logins").await == 0 }).await;
    let fresh = digest(&system.views().await, 1, 1).await;
    assert_eq!(rebuilt, fresh, "a rebuild that was killed is not what a fresh fold is");
    println!("killed {kills} times and repeated: the digest is that of a fresh fold: {fresh:?}");
}

fn rate(what: &str, events: u64, took: Duration) {
    let (seconds, per_s) = (took.as_secs_f64(), events as f64 / took.as_secs_f64());
    println!("{what}: {events} in {seconds:.1} s, {per_s:.0}/s");
}

async fn rebuilt(system: &System, what: &str) -> Value {
    let arguments = ["rebuild", what, "--json"];
    let mut command = system.roster_in_the_background(&arguments, "rebuild.json");
    let mut size = None;
    wait_until("the rebuild to end", || {
        let ended = command.try_wait().unwrap().is_some();
        size = largest_size_mb(command.id()).max(size);
        async move { ended }
    })
    .await;
    let answer = std::fs::read(system.file("rebuild.json")).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    if answer["switched"] != true {
        let log = std::fs::read_to_string(system.file("projector")).unwrap();
        let end: Vec<&str> = log.lines().rev().take(40).collect();
        panic!("not switched: {answer}; the projector, last line first: {end:#?}");
    }
    println!("largest size of the command: {} MB", size.unwrap());
    answer
}

/// How many events some of those lack who follow the log.
async fn behind(system: &System, names: &str) -> u64 {
    let output = system.roster(&["lag", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |item: &&Value| item["name"].as_str().unwrap().starts_with(names);
    answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(of)
        .map(|it| it["behind"].as_u64().unwrap())
        .sum()
}

async fn wait_until<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + END_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(500)).await;
    }
}

/// The most memory that a process has had; `None` when it has ended.
fn largest_size_mb(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1_024)
}

/// The indexes of a collection, to be made on another one.
pub(crate) async fn indexes_of(
    collection: &mongodb::Collection<Document>,
) -> Vec<mongodb::IndexModel> {
    use futures::TryStreamExt;
    let all: Vec<mongodb::IndexModel> =
        collection.list_indexes().await.unwrap().try_collect().await.unwrap();
    all.into_iter().filter(|index| index.keys != doc! {"_id": 1}).collect()
}
