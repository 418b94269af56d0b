//! Five hundred logins at once: bounded memory, everything else stays quick, the excess is shed. And whether
//! the time of a refusal tells who exists.
//!
//! `cargo bench -p e2e --bench logins [-- SAMPLES]`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has failed, and it speaks to whoever runs it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::{Answer, Client, PASSWORD, System, Times};
use futures::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;

const SAMPLES_DEFAULT: usize = 1_000;
const PARALLEL: usize = 500;
/// `passwords.memory_kib`, by default.
const HASH_MEMORY_KIB: usize = 19_456;

/// Shorter than the default, so that a run ends within minutes: what a step does not hide, a shorter one
/// hides less.
const STEP: (&str, &str) = ("ROSTER_PASSWORDS_REFUSAL_STEP_MS", "100");

/// Each kind is as often in each place, and as often behind each other kind: neither the noise of the
/// machine nor what the request before left behind falls on one more than on the others.
const ORDERS: [[usize; 4]; 4] = [[0, 1, 3, 2], [1, 2, 0, 3], [2, 3, 1, 0], [3, 0, 2, 1]];

fn main() {
    let samples = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        burst().await;
        let samples = samples.unwrap_or(SAMPLES_DEFAULT);
        timing(samples).await;
        timing_of_registrations(samples).await;
    });
}

async fn login(client: &Client, email: &str, password: &str) -> Answer {
    client.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

/// A line of `/proc/<pid>/status` in KiB.
fn status_kib(pid: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// `/livez` and `GET /auth/me` one after the other, until told to stop or so often.
async fn probe(live: Client, me: Client, rounds: usize, stop: Arc<AtomicBool>) -> (Times, Times) {
    let (mut livez, mut reads) = (Times::default(), Times::default());
    for _ in 0..rounds {
        livez.take(live.get("/livez")).await.expect(200);
        reads.take(me.get("/api/v1/auth/me")).await.expect(200);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    (livez, reads)
}

async fn burst() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("bench@example.com").await.expect(201);
    let access = commands.log_in("bench@example.com", PASSWORD).await.access;
    let live = Client::new(&system.command_api.value("private"));
    let me = system.queries().with_token(&access);
    let pid = system.command_api.pid();
    let stop = Arc::new(AtomicBool::new(false));

    let (mut livez_idle, mut me_idle) =
        probe(live.clone(), me.clone(), 1_000, Arc::clone(&stop)).await;
    let before_kib = status_kib(pid, "VmHWM:");
    let mut probing = JoinSet::new();
    probing.spawn(probe(live, me, usize::MAX, Arc::clone(&stop)));
    let mut answers = Vec::new();
    for _ in 0..5 {
        let logins = (0..PARALLEL).map(|_| login(&commands, "bench@example.com", PASSWORD));
        answers.extend(join_all(logins).await);
    }
    stop.store(true, Ordering::Relaxed);
    let (mut livez_busy, mut me_busy) = probing.join_next().await.unwrap().unwrap();

    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for answer in &answers {
        *counts.entry(answer.status).or_default() += 1;
        assert!(matches!(answer.status, 200 | 503), "a right password was refused: {answer:?}");
        assert_eq!(answer.status == 503, answer.header("retry-after").is_some(), "{answer:?}");
    }
    let threads = std::thread::available_parallelism().unwrap().get();
    let bound_kib = before_kib.max(threads * HASH_MEMORY_KIB) + threads * HASH_MEMORY_KIB;
    println!("5 times {PARALLEL} logins at once with the right password: {counts:?}");
    println!(
        "memory of command-api: {} KiB at its peak, {before_kib} KiB before; {threads} hashes take {} KiB",
        status_kib(pid, "VmHWM:"),
        threads * HASH_MEMORY_KIB,
    );
    assert!(status_kib(pid, "VmHWM:") < bound_kib, "memory grew with the number of logins");
    println!("{:<32} {:>10} {:>10} {:>12}", "p99 in milliseconds", "idle", "meanwhile", "ratio");
    for (name, idle, busy) in [
        ("/livez", &mut livez_idle, &mut livez_busy),
        ("GET /api/v1/auth/me", &mut me_idle, &mut me_busy),
    ] {
        let (idle, busy) = (idle.ms(0.99), busy.ms(0.99));
        println!("{name:<32} {idle:>10.2} {busy:>10.2} {:>12.2}", busy / idle);
    }
}

async fn timing(samples: usize) {
    let system = System::shared_with(&[STEP]).await;
    let commands = system.commands();
    let (admin, _) = system.as_administrator().await;
    commands.register("known@example.com").await.expect(201);
    let disabled = commands.register("disabled@example.com").await.expect(201);
    let path = disabled.header("location").unwrap();
    admin.patch(path, &json!({"status": "disabled"})).await.expect(200);

    let kinds = ["unknown", "nobody", "known", "disabled"];
    let mut times = vec![Times::default(); kinds.len()];
    for n in 0..samples {
        for kind in ORDERS[n % ORDERS.len()] {
            let email = format!("{}@example.com", kinds[kind]);
            let refused = login(&commands, &email, "a wrong password");
            times[kind].take(refused).await.expect(401);
        }
    }
    println!("{samples} refused logins of each kind, interleaved; milliseconds");
    compare(&kinds, &mut times, &[(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]);
}

async fn timing_of_registrations(samples: usize) {
    let concealing = ("ROSTER_REGISTRATION_CONCEAL_EXISTING", "true");
    let system = System::shared_with(&[STEP, concealing]).await;
    let commands = system.commands();
    commands.register("taken@example.com").await.expect(202);
    let kinds = ["free", "also free", "taken", "also taken"];
    let mut times = vec![Times::default(); kinds.len()];
    for n in 0..samples {
        for kind in ORDERS[n % ORDERS.len()] {
            let email = match kind {
                0 | 1 => format!("free{kind}_{n}@example.com"),
                _ => "taken@example.com".to_owned(),
            };
            times[kind].take(commands.register(&email)).await.expect(202);
        }
    }
    println!("{samples} concealed registrations of each kind, interleaved; milliseconds");
    compare(&kinds, &mut times, &[(0, 1), (2, 3), (0, 2), (1, 3)]);
}

fn compare(kinds: &[&str], times: &mut [Times], pairs: &[(usize, usize)]) {
    for (kind, times) in kinds.iter().zip(times.iter_mut()) {
        println!(
            "{kind:<12} p25 {:>7.3} p50 {:>7.3} p75 {:>7.3} p99 {:>7.3}",
            times.ms(0.25),
            times.ms(0.5),
            times.ms(0.75),
            times.ms(0.99)
        );
    }
    // The first pair is the control: both of it are of one kind.
    for &(one, other) in pairs {
        let mut first = times[one].clone();
        let p = first.same_distribution(&mut times[other]);
        println!("{} against {}: Kolmogorov-Smirnov p = {p:.4}", kinds[one], kinds[other]);
    }
}
