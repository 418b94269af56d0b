//! A plain user who writes as fast as they can: commands of others keep their pace, the log grows by no more
//! than the limit on writes allows, and an administrator can disable the user in the middle of it.
//!
//! `cargo bench -p e2e --bench busy_user [-- SECONDS]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has failed, and it speaks to whoever runs it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use e2e::{Client, PASSWORD, System, Times, rename, wait_for};
use futures::TryStreamExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::sleep;

const SECONDS_DEFAULT: u64 = 600;
/// Connections that the busy user writes over.
const CONNECTIONS: usize = 8;
/// Between two commands of the others.
const PACE: Duration = Duration::from_millis(250);
/// How long the others are measured alone.
const IDLE: Duration = Duration::from_secs(30);
/// `throttle.writes_per_minute_max`, which a process may exceed by a tenth (docs/security.md).
const WRITES_PER_MINUTE_MAX: u64 = 30;

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let busy = Duration::from_secs(seconds.unwrap_or(SECONDS_DEFAULT));
    tokio::runtime::Runtime::new().unwrap().block_on(run(busy));
}

async fn run(busy: Duration) {
    let limit = WRITES_PER_MINUTE_MAX.to_string();
    let settings = [
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_WRITES_PER_MINUTE_MAX", limit.as_str()),
        // One token for the whole run: what is written counts here.
        ("ROSTER_TOKENS_ACCESS_LIFETIME_S", "3600"),
        ("ROSTER_THROTTLE_WRITES_PER_DAY_MAX", "1000"),
    ];
    let system = System::shared_with(&settings).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let other = commands.register("other@example.com").await.expect(201);
    let other = other.header("location").unwrap().to_owned();
    let registered = commands.register("busy@example.com").await.expect(201);
    let user = registered.header("location").unwrap().to_owned();
    let token = commands.login("busy@example.com", PASSWORD).await;
    let busy_user = commands.with_token(&token).with_header("prefer", "respond-async");

    let stop = Arc::new(AtomicBool::new(false));
    let mut idle = others(&admin, &other, IDLE).await;
    let before = log_bytes(&system).await;
    let mut writers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        writers.spawn(write(busy_user.clone(), Arc::clone(&stop)));
    }
    let mut meanwhile = others(&admin, &other, busy).await;
    let grown = log_bytes(&system).await - before;

    let disabling = Instant::now();
    admin.send("POST", &format!("{user}/disable"), None).await.expect(200);
    println!("disabled in the middle of it: {} ms", disabling.elapsed().as_millis());
    let refused = busy_user.clone();
    wait_for("the busy user to be put out", || {
        let refused = refused.clone();
        async move { refused.patch("/api/v1/auth/me", &rename("in vain")).await.status == 401 }
    })
    .await;
    println!("and put out: {} ms", disabling.elapsed().as_millis());
    stop.store(true, Ordering::Relaxed);
    let mut answers: BTreeMap<u16, u64> = BTreeMap::new();
    for counted in writers.join_all().await {
        for (status, count) in counted {
            *answers.entry(status).or_default() += count;
        }
    }

    let written = events_of(&system, user.rsplit('/').next().unwrap()).await - 2;
    // Windows begin with their first write, so one more of them may have begun.
    let allowed = (busy.as_secs() / 60 + 1) * WRITES_PER_MINUTE_MAX + WRITES_PER_MINUTE_MAX / 10;
    println!("answers to the busy user within {} s: {answers:?}", busy.as_secs());
    println!(
        "their writes in the log: {written}, allowed {allowed}; the log grew by {grown} bytes"
    );
    assert!(written <= allowed, "more than the limit");
    println!("{:<32} {:>10} {:>10} {:>8}", "commands of others, ms", "idle", "meanwhile", "ratio");
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let (idle, busy) = (idle.ms(quantile), meanwhile.ms(quantile));
        println!("{name:<32} {idle:>10.2} {busy:>10.2} {:>8.2}", busy / idle);
    }
}

/// Writes as fast as answers come; how often each status came.
async fn write(client: Client, stop: Arc<AtomicBool>) -> BTreeMap<u16, u64> {
    let mut answers = BTreeMap::new();
    let mut seed = 1_u64;
    while !stop.load(Ordering::Relaxed) {
        // Text that no compression makes small (constants of Knuth's MMIX).
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed.to_be_bytes()[0]
        };
        let noise: Vec<u8> = std::iter::repeat_with(&mut next).take(2_990).collect();
        let body = json!({"metadata": {"x": BASE64_STANDARD.encode(noise)}});
        let answer = client.patch("/api/v1/auth/me", &body).await;
        *answers.entry(answer.status).or_default() += 1;
    }
    answers
}

/// Commands of somebody else at an even pace, each seen in the views when it is answered.
async fn others(admin: &Client, user: &str, time: Duration) -> Times {
    let mut times = Times::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let name = format!("Name {}", times.len());
        times.take(admin.patch(user, &rename(&name))).await.expect(200);
        sleep(PACE).await;
    }
    times
}

async fn log_bytes(system: &System) -> u64 {
    let context = jetstream::new(system.operator().await);
    context.get_stream("USERS").await.unwrap().cached_info().state.bytes
}

async fn events_of(system: &System, user: &str) -> u64 {
    let context = jetstream::new(system.operator().await);
    let stream = context.get_stream("USERS").await.unwrap();
    let subjects = stream.info_with_subjects(format!("ev.user.{user}")).await.unwrap();
    let counts: Vec<(String, usize)> = subjects.try_collect().await.unwrap();
    counts.iter().map(|(_, count)| *count as u64).sum()
}
