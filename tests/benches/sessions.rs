//! Sessions raced a thousand times over two processes of each API, and how soon an end is known.
//!
//! `cargo bench -p e2e --bench sessions [-- ROUNDS]`
//!
//! What must hold is asserted in every round; the times are printed beside the ceiling of the same run: one
//! refresh alone, which is one synced write.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has failed, and it speaks to whoever runs it"
)]

use std::time::Instant;

use e2e::{Client, PASSWORD, Pair, System, Times};
use futures::future::join_all;

const ROUNDS_DEFAULT: usize = 1_000;
/// Refreshes of one token at once.
const PARALLEL: usize = 50;
const EMAIL: &str = "bench@example.com";

fn main() {
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(rounds.unwrap_or(ROUNDS_DEFAULT)));
}

async fn measure(rounds: usize) {
    let system = System::shared().await;
    let others = ["command-api", "query-api"].map(|service| system.another(service));
    let commands = [system.commands(), Client::new(&others[0].value("url"))];
    let queries = [system.queries(), Client::new(&others[1].value("url"))];
    commands[0].register(EMAIL).await.expect(201);

    let (mut alone, mut raced) = (Times::default(), Times::default());
    let mut token = commands[0].log_in(EMAIL, PASSWORD).await.refresh;
    for _ in 0..rounds {
        token = Pair::of(&alone.take(commands[0].refresh(&token)).await.expect(200).body).refresh;
        let race = join_all((0..PARALLEL).map(|n| commands[n % 2].refresh(&token)));
        let answers = raced.take(race).await;
        let next: Vec<String> =
            answers.into_iter().map(|answer| Pair::of(&answer.expect(200).body).refresh).collect();
        assert!(next.iter().all(|successor| *successor == next[0]), "two successors");
        token.clone_from(&next[0]);
    }
    println!(
        "{rounds} rounds of {PARALLEL} refreshes of one token on two processes: one successor each"
    );

    let mut refreshed_first = 0;
    for _ in 0..rounds {
        let pair = commands[0].log_in(EMAIL, PASSWORD).await;
        let (refreshed, ended) = tokio::join!(
            commands[0].refresh(&pair.refresh),
            commands[1].log_out_with(&pair.refresh)
        );
        ended.expect(204);
        let mut family = vec![pair.refresh];
        if refreshed.status == 200 {
            refreshed_first += 1;
            family.push(Pair::of(&refreshed.body).refresh);
        }
        for token in family {
            for client in &commands {
                client.refresh(&token).await.expect(401);
            }
        }
    }
    println!(
        "{rounds} rounds of refresh against logout: nothing of a family works after both answers \
         (the refresh was first in {refreshed_first})"
    );

    let mut known = Times::default();
    for n in 0..rounds.div_ceil(5) {
        let pair = commands[n % 2].log_in(EMAIL, PASSWORD).await;
        for client in &queries {
            // What is refused later was taken before.
            client.with_token(&pair.access).get("/api/v1/auth/me").await.expect(200);
        }
        commands[n % 2].log_out_with(&pair.refresh).await.expect(204);
        let started = Instant::now();
        for client in &queries {
            let caller = client.with_token(&pair.access);
            while caller.get("/api/v1/auth/me").await.status != 401 {}
        }
        let caller = commands[1 - n % 2].with_token(&pair.access);
        while caller.patch("/api/v1/auth/me", &serde_json::json!({})).await.status != 401 {}
        known.push(started.elapsed());
    }

    let base = alone.ms(0.5);
    println!("{:<58} {:>8} {:>8} {:>8} {:>11}", "milliseconds", "p50", "p99", "max", "p50/ceiling");
    for (name, times) in [
        ("one refresh alone (the ceiling)", &mut alone),
        ("50 refreshes of one token, until the last answer", &mut raced),
        ("from the answer to a logout to 401 on all other processes", &mut known),
    ] {
        let (p50, p99, max) = (times.ms(0.5), times.ms(0.99), times.ms(1.0));
        println!("{name:<58} {p50:>8.2} {p99:>8.2} {max:>8.2} {:>11.2}", p50 / base);
    }
}
