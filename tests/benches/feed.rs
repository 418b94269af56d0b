//! How long it takes from the answer to a command until another service has the event.
//!
//! `cargo bench -p e2e --bench feed [-- SECONDS]`
//!
//! Users are renamed at 10 and 100 a second, and imported at 1,000 a second, 20 with a command (open loop: a command
//! goes out when it is due, whatever became of those before). A subscriber with credentials of its own takes the
//! events. Answers do not wait for the
//! views, so that they come as soon as the log has the event. The ceiling is the same way without Roster, in the
//! same run and at the same rate: a message of the same size to one stream, taken from there by a client that
//! writes it to a second one, one at a time, and taken from that. Beside it stands what a subscriber gains that
//! gives up the order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, speaks to whoever runs it, and owns its tasks"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::pull, stream};
use e2e::{Client, System, Times, rename};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Seconds of each rate.
const SECONDS_DEFAULT: u64 = 20;
/// Users that are renamed in turn.
const USERS: usize = 64;
const RATES: [u64; 3] = [10, 100, 1_000];
/// From this rate on events come of imports, of so many users each.
const IMPORTED_FROM: u64 = 1_000;
const IMPORTED_AT_ONCE: u64 = 20;
/// Time for the last event to come.
const LAST_MAX: Duration = Duration::from_secs(60);

fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(seconds.unwrap_or(SECONDS_DEFAULT)));
}

/// What an event is known by at both ends: a user and a revision, or a place in a stream.
type Key = (String, u64);

/// When something was answered and when it was received.
#[derive(Default)]
struct Seen {
    answered: HashMap<Key, Instant>,
    received: HashMap<Key, Instant>,
}

impl Seen {
    /// What is known of both ends. What was received before its answer took no time.
    fn times(&self) -> Times {
        let mut times = Times::default();
        for (key, answered) in &self.answered {
            let received = self.received.get(key).unwrap();
            times.push(received.saturating_duration_since(*answered));
        }
        times
    }

    fn is_whole(&self) -> bool {
        self.answered.keys().all(|key| self.received.contains_key(key))
    }
}

type Shared = Arc<Mutex<Seen>>;

async fn measure(seconds: u64) {
    let system = System::own_with(&[
        ("ROSTER_LOG_BYTES_MAX", "4294967296"),
        ("ROSTER_FEED_BYTES_MAX", "4294967296"),
    ])
    .await;
    let (admin, _) = system.as_administrator().await;
    let admin = admin.with_header("prefer", "respond-async");
    let mut paths = Vec::new();
    for n in 0..USERS {
        let user = admin.register(&format!("user{n}@example.com")).await.expect(201);
        paths.push(user.header("location").unwrap().to_owned());
    }
    println!("{seconds} s of each rate; milliseconds from the answer to the receipt");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>11}",
        "", "events", "p50", "p99", "max", "p50/ceiling"
    );
    for rate in RATES {
        let mut base = ceiling(&system, rate, seconds).await;
        let p50 = base.ms(0.5);
        line(&format!("{rate}/s, the ceiling"), &mut base, p50);
        for (name, in_flight) in [("in order (default)", "1"), ("--in-flight 256", "256")] {
            let subscriber = format!("s{rate}-{in_flight}");
            let arguments = ["--from", "now", "--in-flight", in_flight];
            let mut times =
                roster(&system, &subscriber, &arguments, (&admin, &paths), (rate, seconds)).await;
            line(&format!("{rate}/s, {name}"), &mut times, p50);
        }
    }
}

fn line(name: &str, times: &mut Times, base: f64) {
    let (p50, p99, max) = (times.ms(0.5), times.ms(0.99), times.ms(1.0));
    println!("{name:<34} {:>8} {p50:>8.2} {p99:>8.2} {max:>8.2} {:>11.2}", times.len(), p50 / base);
}

/// Calls something so often a second, whatever becomes of the calls before.
async fn at<F, Fut>(rate: u64, seconds: u64, mut call: F)
where
    F: FnMut(u64) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut due = interval(Duration::from_secs(1) / u32::try_from(rate).unwrap());
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut calls = JoinSet::new();
    for n in 0..rate * seconds {
        due.tick().await;
        calls.spawn(call(n));
    }
    calls.join_all().await;
}

async fn roster(
    system: &System,
    name: &str,
    arguments: &[&str],
    (admin, paths): (&Client, &[String]),
    (rate, seconds): (u64, u64),
) -> Times {
    let seen = Shared::default();
    let mut subscriber = system.subscriber(name, arguments).await;
    let taking = {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (told, message) = subscriber.next().await;
                let user = told.event.happened.user_id().unwrap().to_string();
                let key = (user, told.event.revision.0);
                seen.lock().unwrap().received.insert(key, Instant::now());
                subscriber.done(&message).await;
            }
        })
    };
    let each = if rate < IMPORTED_FROM { 1 } else { IMPORTED_AT_ONCE };
    at(rate / each, seconds, |n| {
        let (admin, seen) = (admin.clone(), Arc::clone(&seen));
        // A name that the user has already would change nothing.
        let what = format!("{name}-{n}");
        let path = paths.iter().cycle().nth(usize::try_from(n).unwrap() % USERS).unwrap().clone();
        async move {
            let answers = match each {
                1 => vec![admin.patch(&path, &rename(&what)).await.expect(200).body],
                _ => import(&admin, &what, each).await,
            };
            let (at, mut seen) = (Instant::now(), seen.lock().unwrap());
            for user in answers {
                let id = user["id"].as_str().unwrap().to_owned();
                seen.answered.insert((id, user["revision"].as_u64().unwrap()), at);
            }
        }
    })
    .await;
    whole(&seen).await;
    taking.abort();
    seen.lock().unwrap().times()
}

/// Imports users in one command, and answers them.
async fn import(admin: &Client, what: &str, users: u64) -> Vec<Value> {
    let line = |n| json!({ "email": format!("{what}-{n}@example.com"), "full_name": what });
    let body = (0..users).map(|n| line(n).to_string()).collect::<Vec<_>>().join("\n");
    let body = Some(("application/x-ndjson", body.into_bytes()));
    let answer = admin.send("POST", "/api/v1/users/import", body).await.expect(200);
    let created = |line: Value| {
        assert_eq!(line["status"], "created", "{line}");
        json!({ "id": line["id"], "revision": 1 })
    };
    answer.lines().into_iter().map(created).collect()
}

/// The same way without Roster: two streams, and a client between them.
async fn ceiling(system: &System, rate: u64, seconds: u64) -> Times {
    let context = jetstream::new(system.operator().await);
    let consumer = async |name: &str| {
        let config = stream::Config {
            name: format!("CEILING_{name}_{rate}"),
            subjects: vec![format!("ceiling.{name}.{rate}")],
            ..stream::Config::default()
        };
        let stream = context.create_stream(config).await.unwrap();
        let config =
            pull::Config { durable_name: Some("one".to_owned()), ..pull::Config::default() };
        stream.create_consumer(config).await.unwrap().messages().await.unwrap()
    };
    let (mut first, mut second) = (consumer("first").await, consumer("second").await);
    let seen = Shared::default();
    let passing = {
        let (context, subject) = (context.clone(), format!("ceiling.second.{rate}"));
        tokio::spawn(async move {
            while let Some(message) = first.next().await {
                let message = message.unwrap();
                let ack = context.publish(subject.clone(), message.payload.clone()).await.unwrap();
                ack.await.unwrap();
                message.ack().await.unwrap();
            }
        })
    };
    let taking = {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Some(message) = second.next().await {
                let message = message.unwrap();
                // One writer between two streams: the numbers are the same.
                let sequence = message.info().unwrap().stream_sequence;
                let key = (String::new(), sequence);
                seen.lock().unwrap().received.insert(key, Instant::now());
                message.ack().await.unwrap();
            }
        })
    };
    at(rate, seconds, |_| {
        let (context, seen) = (context.clone(), Arc::clone(&seen));
        async move {
            let (subject, payload) = (format!("ceiling.first.{rate}"), "x".repeat(700).into());
            let ack = context.publish(subject, payload).await.unwrap().await.unwrap();
            let key = (String::new(), ack.sequence);
            seen.lock().unwrap().answered.insert(key, Instant::now());
        }
    })
    .await;
    whole(&seen).await;
    passing.abort();
    taking.abort();
    for name in ["first", "second"] {
        context.delete_stream(&format!("CEILING_{name}_{rate}")).await.unwrap();
    }
    seen.lock().unwrap().times()
}

async fn whole(seen: &Shared) {
    let all = async {
        while !seen.lock().unwrap().is_whole() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LAST_MAX, all).await.unwrap_or_else(|_| panic!("some events never came"));
}
