//! What it costs that a command's answer waits for the views, and what a query costs beside it.
//!
//! `cargo bench -p e2e --bench read_your_writes [-- ROUNDS]`
//!
//! Each round renames one user three ways, in turn so that the noise of a shared machine falls on all
//! alike: with the default wait, with `Prefer: respond-async`, and followed by a read. The ceiling is
//! the rename that does not wait: same command, same log, same disk. Renames and not registrations,
//! because the 16 ms of a password hash would hide what is measured; the registration is reported too.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on has failed, and it speaks to whoever runs it"
)]

use e2e::{Client, System, Times, rename};

const ROUNDS_DEFAULT: usize = 1_000;

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(rounds.unwrap_or(ROUNDS_DEFAULT)));
}

async fn measure(rounds: usize) {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let no_wait = admin.with_header("prefer", "respond-async");
    let commands = system.commands();
    let commands_no_wait = commands.with_header("prefer", "respond-async");
    let user = commands.register("bench@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();

    let (mut waits, mut ceiling, mut reads) =
        (Times::default(), Times::default(), Times::default());
    let (mut registers, mut registers_no_wait) = (Times::default(), Times::default());
    let mut pending = 0;
    for n in 0..rounds {
        let change = |kind: &str| rename(&format!("{kind} {n}"));
        let answer = waits.take(admin.patch(&path, &change("waits"))).await.expect(200);
        pending += usize::from(answer.header("roster-pending").is_some());
        ceiling.take(no_wait.patch(&path, &change("ceiling"))).await.expect(200);
        reads.take(queries.get(&path)).await.expect(200);
        if n % 10 == 0 {
            let email = |kind: &str| format!("{kind}{n}@example.com");
            let register = async |client: &Client, email: String| client.register(&email).await;
            registers.take(register(&commands, email("waits"))).await.expect(201);
            registers_no_wait.take(register(&commands_no_wait, email("ceiling"))).await.expect(201);
        }
    }

    println!("{rounds} rounds, one at a time; milliseconds");
    println!("{:<40} {:>8} {:>8} {:>8}", "", "p50", "p99", "p50/ceiling");
    let base = ceiling.ms(0.5);
    for (name, times) in [
        ("rename, respond-async (the ceiling)", &mut ceiling),
        ("rename, waits for the views (default)", &mut waits),
        ("GET /users/{id}", &mut reads),
        ("register, respond-async", &mut registers_no_wait),
        ("register, waits for the views (default)", &mut registers),
    ] {
        let (p50, p99) = (times.ms(0.5), times.ms(0.99));
        println!("{name:<40} {p50:>8.2} {p99:>8.2} {:>8.2}", p50 / base);
    }
    println!("median extra latency of the wait: {:.2} ms", waits.ms(0.5) - base);
    println!("waits that ran out: {pending} of {rounds}");
}
