//! What goes on meanwhile: commands that are read back at once, and readers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use e2e::{Answer, Client, System, Times, rename};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::generator::{Random, user_id};

/// Commands a second.
const COMMANDS: u32 = 100;
const READERS: u64 = 16;
/// Reads of each a second. Readers without a pause would only show that a machine can be filled up.
const READS: u32 = 20;

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    reads: AtomicU64,
    pending: AtomicU64,
    failed: Mutex<BTreeMap<String, u64>>,
    stale: AtomicU64,
    commands: Mutex<Times>,
    queries: Mutex<Times>,
}

impl Counts {
    /// The answer, if it is the one that there should be.
    fn fine(&self, what: &str, answer: Option<Answer>) -> Option<Answer> {
        let how = match answer {
            Some(answer) if answer.status == 200 => return Some(answer),
            Some(answer) => format!("{what}: {} {}", answer.status, answer.code()),
            None => format!("{what}: no answer"),
        };
        *self.failed.lock().unwrap().entry(how).or_default() += 1;
        None
    }
}

pub struct Load {
    counts: Arc<Counts>,
    tasks: JoinSet<()>,
    began: Instant,
}

/// What was seen.
pub struct Seen {
    pub failed: BTreeMap<String, u64>,
    pub stale: u64,
    pending: u64,
    reads: u64,
    seconds: f64,
    commands: Times,
    queries: Times,
}

impl Seen {
    pub fn show(&self, name: &str) {
        let (mut commands, mut queries) = (self.commands.clone(), self.queries.clone());
        println!(
            "{name}: {:.0} commands/s (p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms), {} of them did not wait for the \
             views; {:.0} reads/s (p50 {:.1} ms, p99 {:.1} ms); failed: {:?}; {} stale",
            commands.len() as f64 / self.seconds,
            commands.ms(0.5),
            commands.ms(0.99),
            commands.ms(1.0),
            self.pending,
            self.reads as f64 / self.seconds,
            queries.ms(0.5),
            queries.ms(0.99),
            self.failed,
            self.stale
        );
    }
}

impl Load {
    pub async fn start(system: &System, users: u64) -> Self {
        let (admin, queries) = system.as_administrator().await;
        let (counts, mut tasks) = (Arc::new(Counts::default()), JoinSet::new());
        tasks.spawn(commands(Arc::clone(&counts), admin, queries.clone(), users));
        for reader in 0..READERS {
            tasks.spawn(reads(Arc::clone(&counts), queries.clone(), users, reader));
        }
        Self { counts, tasks, began: Instant::now() }
    }

    pub async fn finish(self) -> Seen {
        let seconds = self.began.elapsed().as_secs_f64();
        self.counts.over.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let counts = &self.counts;
        Seen {
            failed: counts.failed.lock().unwrap().clone(),
            stale: count(&counts.stale),
            pending: count(&counts.pending),
            reads: count(&counts.reads),
            seconds,
            commands: counts.commands.lock().unwrap().clone(),
            queries: counts.queries.lock().unwrap().clone(),
        }
    }
}

/// So many a second, whatever becomes of those before. No user is changed by two at once.
async fn commands(counts: Arc<Counts>, admin: Client, queries: Client, users: u64) {
    let mut due = interval(Duration::from_secs(1) / COMMANDS);
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    for n in 0_u64.. {
        due.tick().await;
        if counts.over.load(Ordering::Relaxed) {
            break;
        }
        let (counts, admin, queries) = (Arc::clone(&counts), admin.clone(), queries.clone());
        let path = format!("/api/v1/users/{}", user_id((n * 7_919) % users));
        calls.spawn(async move {
            let name = format!("Changed {} {n}", uuid::Uuid::now_v7().simple());
            let began = Instant::now();
            let written = admin
                .try_send(
                    "PATCH",
                    &path,
                    Some(("application/merge-patch+json", rename(&name).to_string().into_bytes())),
                )
                .await;
            counts.commands.lock().unwrap().push(began.elapsed());
            let Some(written) = counts.fine("command", written) else { return };
            if written.header("roster-pending").is_some() {
                counts.pending.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let read = queries.try_send("GET", &path, None).await;
            let Some(read) = counts.fine("read of what was written", read) else { return };
            if read.body["full_name"] != *name {
                counts.stale.fetch_add(1, Ordering::Relaxed);
            }
        });
        while calls.try_join_next().is_some() {}
    }
    calls.join_all().await;
}

async fn reads(counts: Arc<Counts>, queries: Client, users: u64, reader: u64) {
    let mut random = Random::new(reader);
    let mut due = interval(Duration::from_secs(1) / READS);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !counts.over.load(Ordering::Relaxed) {
        due.tick().await;
        let path = match random.next() % 10 {
            0 => "/api/v1/users?page_size=50&role=clerk".to_owned(),
            _ => format!("/api/v1/users/{}", user_id(random.next() % users)),
        };
        let began = Instant::now();
        let answer = queries.try_send("GET", &path, None).await;
        counts.queries.lock().unwrap().push(began.elapsed());
        counts.reads.fetch_add(1, Ordering::Relaxed);
        counts.fine("read", answer);
    }
}
