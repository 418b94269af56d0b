//! One address sends forty registrations a second, weak, strong and refused ones: a login from elsewhere takes
//! less than twice its time. And, to see what the limits save, how long it takes when they let all of them through:
//! a third of them are users then who are stored, mailed and published on the same cores.
//!
//! `cargo bench -p e2e --bench registrations [-- SAMPLES]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a benchmark that cannot go on has failed, it speaks to whoever runs it, and it owns its tasks"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{Client, PASSWORD, System, Times};
use futures::future::join_all;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

const SAMPLES_DEFAULT: usize = 200;
/// Users who log in, so that none runs into a limit.
const USERS: usize = 40;
/// Time from one registration to the next.
const PERIOD: Duration = Duration::from_millis(25);

const LIMITS: [(&str, &str); 2] =
    [("ROSTER_THROTTLE_ENABLED", "true"), ("ROSTER_HTTP_TRUSTED_PROXIES", "127.0.0.0/8")];

fn main() {
    let samples = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let samples = samples.unwrap_or(SAMPLES_DEFAULT);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ratio = measure("default limits", &[], samples).await;
        assert!(ratio < 2.0, "a flood of registrations slows logins from elsewhere down");
        let open = [("ROSTER_THROTTLE_REQUESTS_MAX", "100000")];
        measure("no limit on registrations", &open, samples).await;
    });
}

async fn measure(name: &str, settings: &[(&str, &str)], samples: usize) -> f64 {
    let system = System::shared_with(&[&LIMITS[..], settings].concat()).await;
    let from = |address: &str| system.commands().with_header("x-forwarded-for", address);
    for n in 0..USERS {
        let client = from(&format!("192.0.2.{}", n / 10));
        client.register(&user(n)).await.expect(201);
    }
    let elsewhere = from("198.51.100.7");
    let mut idle = logins(&elsewhere, samples).await;
    let stop = Arc::new(AtomicBool::new(false));
    let flood = tokio::spawn(flood(from("203.0.113.9"), Arc::clone(&stop)));
    let mut busy = logins(&elsewhere, samples).await;
    stop.store(true, Ordering::Relaxed);
    let answers = flood.await.unwrap();
    let (before, meanwhile) = (idle.ms(0.5), busy.ms(0.5));
    println!("{name}: {answers:?}");
    println!(
        "login p50 {before:.1} ms idle, {meanwhile:.1} ms meanwhile, ratio {:.2}; p99 {:.1} and {:.1} ms",
        meanwhile / before,
        idle.ms(0.99),
        busy.ms(0.99),
    );
    meanwhile / before
}

fn user(n: usize) -> String {
    format!("user{n}@example.com")
}

async fn logins(client: &Client, samples: usize) -> Times {
    let mut times = Times::default();
    for n in 0..samples {
        let body = json!({"email": user(n % USERS), "password": PASSWORD});
        times.take(client.post("/api/v1/auth/login", &body)).await.expect(200);
    }
    times
}

/// Registrations at their pace until told to stop, whatever became of those before; the answers by status.
async fn flood(client: Client, stop: Arc<AtomicBool>) -> BTreeMap<u16, usize> {
    let mut pace = interval(PERIOD);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut sent = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let (n, client) = (sent.len(), client.clone());
        sent.push(tokio::spawn(async move {
            let (email, password) = match n % 3 {
                // Made to be slow to estimate, and refused.
                0 => (format!("weak{n}@example.com"), "p@$$w0rd1!7|".repeat(4)),
                1 => (format!("strong{n}@example.com"), format!("some words of number {n}")),
                _ => (user(n % USERS), "password1".to_owned()),
            };
            let body = json!({"email": email, "password": password});
            client.post("/api/v1/auth/register", &body).await.status
        }));
    }
    let mut answers = BTreeMap::new();
    for status in join_all(sent).await {
        *answers.entry(status.unwrap()).or_default() += 1;
    }
    answers
}
