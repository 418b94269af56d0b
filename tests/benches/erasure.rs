//! A user with very many events is deleted: how long it takes until they are erased, and what a command of somebody
//! else has to wait meanwhile.
//!
//! `cargo bench -p e2e --bench erasure [-- EVENTS]`
//!
//! Every second event of the log is the user's. The ceiling is a purge by subject of as many messages of the same
//! size in the same run. It leaves their text in the files, and so it is no way to erase anything
//! (`docs/adr/0015-erasure.md`).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, it speaks to whoever runs it, and it writes a stream of its own"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use e2e::{Client, PASSWORD, System, Times, rename};
use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

const EVENTS_DEFAULT: usize = 2_000;
/// Commands that are under way at once while the log is filled; one user takes one at a time.
const WRITERS: usize = 8;
/// Between two commands of somebody else.
const PACE: Duration = Duration::from_millis(100);
/// How long these are measured without an erasure.
const IDLE: Duration = Duration::from_secs(10);
/// Between two looks at what is left.
const LOOK: Duration = Duration::from_millis(250);

fn main() {
    let events = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        println!(
            "{:<26} {:>7} {:>8} {:>10} {:>12} {:>22} {:>22}",
            "erasing, share of time",
            "events",
            "s",
            "ms/event",
            "purge ms",
            "idle p50/p99 ms",
            "meanwhile p50/p99 ms"
        );
        for busy_percent in ["50", "100"] {
            measure(busy_percent, events.unwrap_or(EVENTS_DEFAULT)).await;
        }
    });
}

async fn measure(busy_percent: &str, events: usize) {
    let settings =
        [("ROSTER_ERASURE_BUSY_PERCENT", busy_percent), ("ROSTER_ERASURE_SECOND_LOOK_S", "1")];
    let system = System::own_with(&settings).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let somebody = path_of(&commands, "somebody@example.com").await;
    let gone = path_of(&commands, "gone@example.com").await;
    fill(&system, &gone, events).await;
    let context = jetstream::new(system.operator().await);
    let purge = purge(&context, events).await;

    let stop = Arc::new(AtomicBool::new(false));
    let mut idle = others(&admin, &somebody, Some(IDLE), &stop).await;
    let meanwhile = {
        let (admin, stop) = (admin.clone(), Arc::clone(&stop));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { others(&admin, &somebody, None, &stop).await });
        tasks
    };
    let id = gone.rsplit('/').next().unwrap();
    let before = messages_of(&context, id).await;
    admin.delete(&gone).await.expect(204);
    let started = Instant::now();
    // The tombstone, its announcement and the empty password stay.
    while messages_of(&context, id).await > 3 {
        sleep(LOOK).await;
    }
    let took = started.elapsed();
    stop.store(true, Ordering::Relaxed);
    let mut meanwhile = meanwhile.join_all().await.pop().unwrap();
    println!(
        "{:<26} {before:>7} {:>8.1} {:>10.2} {:>12.3} {:>22} {:>22}",
        format!("busy_percent = {busy_percent}"),
        took.as_secs_f64(),
        ms(took) / f64::from(u32::try_from(before).unwrap()),
        purge,
        format!("{:.1} / {:.1}", idle.ms(0.5), idle.ms(0.99)),
        format!("{:.1} / {:.1}", meanwhile.ms(0.5), meanwhile.ms(0.99)),
    );
}

async fn path_of(commands: &Client, email: &str) -> String {
    let registered = commands.register(email).await.expect(201);
    registered.header("location").unwrap().to_owned()
}

/// As many events of some 9 KB of the user as of others.
async fn fill(system: &System, gone: &str, events: usize) {
    let commands = system.commands();
    let mut users = vec![("gone@example.com".to_owned(), gone.to_owned())];
    for n in 1..WRITERS {
        let email = format!("other{n}@example.com");
        let path = path_of(&commands, &email).await;
        users.push((email, path));
    }
    let written = Arc::new(AtomicUsize::new(0));
    let mut writers = JoinSet::new();
    for (n, (email, _)) in users.into_iter().enumerate() {
        let token = commands.login(&email, PASSWORD).await;
        let client = commands.with_token(&token).with_header("prefer", "respond-async");
        let written = Arc::clone(&written);
        writers.spawn(async move {
            let mut seed = n as u64 + 1;
            let mut mine = 0;
            // The others keep step with the one who goes.
            loop {
                let of_gone = written.load(Ordering::Relaxed);
                if of_gone >= events {
                    break;
                }
                if n > 0 && mine * (WRITERS - 1) > of_gone {
                    tokio::task::yield_now().await;
                    continue;
                }
                let answer = client.patch("/api/v1/auth/me", &noise(&mut seed)).await;
                assert!([200, 202].contains(&answer.status), "{}", answer.status);
                mine += 1;
                if n == 0 {
                    written.store(mine, Ordering::Relaxed);
                }
            }
        });
    }
    writers.join_all().await;
}

/// A change that no compression makes small (constants of Knuth's MMIX).
fn noise(seed: &mut u64) -> Value {
    json!({"metadata": {"x": BASE64_STANDARD.encode(noise_bytes(seed, 2_990))}})
}

fn noise_bytes(seed: &mut u64, length: usize) -> Vec<u8> {
    let next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Milliseconds per message of a purge by subject, in a stream like that of the log.
async fn purge(context: &Context, events: usize) -> f64 {
    let stream = context.get_stream("USERS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    (config.name, config.subjects, config.deny_purge) =
        ("PURGED".to_owned(), vec!["purged.*".to_owned()], false);
    let stream = context.create_stream(config).await.unwrap();
    let mut seed = 1;
    for _ in 0..events {
        for subject in ["purged.gone", "purged.other"] {
            let text = BASE64_STANDARD.encode(noise_bytes(&mut seed, 6_700));
            context.publish(subject, text.into()).await.unwrap().await.unwrap();
        }
    }
    let started = Instant::now();
    let purged = stream.purge().filter("purged.gone").await.unwrap().purged;
    let took = ms(started.elapsed());
    assert_eq!(usize::try_from(purged).unwrap(), events);
    context.delete_stream("PURGED").await.unwrap();
    took / f64::from(u32::try_from(events).unwrap())
}

/// Commands of somebody else at an even pace, for a time or until they are stopped.
async fn others(admin: &Client, user: &str, time: Option<Duration>, stop: &AtomicBool) -> Times {
    let admin = admin.with_header("prefer", "respond-async");
    let mut times = Times::default();
    let started = Instant::now();
    while time.is_none_or(|time| started.elapsed() < time) && !stop.load(Ordering::Relaxed) {
        let name = rename(&format!("Name {}", times.len()));
        let answer = times.take(admin.patch(user, &name)).await;
        assert!([200, 202].contains(&answer.status), "{}", answer.status);
        sleep(PACE).await;
    }
    times
}

/// What there is of a user in the log and in the feed.
async fn messages_of(context: &Context, user: &str) -> usize {
    let mut count = 0;
    for (stream, filter) in
        [("USERS", format!("*.user.{user}")), ("USER_EVENTS", format!("users.v1.*.{user}"))]
    {
        let stream = context.get_stream(stream).await.unwrap();
        let subjects = stream.info_with_subjects(filter).await.unwrap();
        let counts: Vec<(String, usize)> = subjects.try_collect().await.unwrap();
        // Who revoked what holds nothing of the user.
        let personal = counts.iter().filter(|(subject, _)| !subject.starts_with("rv."));
        count += personal.map(|(_, count)| count).sum::<usize>();
    }
    count
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
