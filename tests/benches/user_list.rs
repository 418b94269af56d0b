//! What each form of the user list costs when there are many users.
//!
//! `cargo bench -p e2e --bench user_list [-- USERS]`
//!
//! Sixteen clients ask for the same form at once, without a pause. The ceiling is `GET /users/{id}` asked for
//! in the same way in the same run: one document by its key, through the same process, layers and database.
//! What a list costs beyond it is reading, encoding and sending fifty users instead of one, and finding them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on has failed, and it speaks to whoever runs it"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::{Client, System, Times};
use futures::future::join_all;
use serde_json::json;

const USERS_DEFAULT: usize = 100_000;
/// Clients at once.
const PARALLEL: usize = 16;
/// Requests of each form, all clients together.
const REQUESTS: usize = 1_600;
/// Users on a page, which is the default of the interface.
const PAGE: usize = 50;
/// The page far into the list.
const DEEP_PAGE: usize = 1_000;
/// Users in one call of the import.
const LINES: usize = 10_000;

const FIRST_NAMES: [&str; 8] =
    ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Leslie", "Tony", "Margaret"];

fn main() {
    let users = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(measure(users.unwrap_or(USERS_DEFAULT)));
}

/// One in ten is a clerk, one in eight is called Ada, one in three has a verified address.
fn line(n: usize, users: usize) -> String {
    let roles: &[&str] = if n.is_multiple_of(10) { &["clerk", "user"] } else { &["user"] };
    let first = FIRST_NAMES[n % FIRST_NAMES.len()];
    let user = json!({
        "email": format!("user{n}@example.com"), "roles": roles,
        "full_name": format!("{first} Name{:06}", n % (users / 10).max(1)),
        "email_verified": n.is_multiple_of(3),
    });
    format!("{user}\n")
}

/// Imports the users, one call after the other, and gives the paths of some and the last position.
async fn set_up(admin: &Client, users: usize) -> (Vec<String>, u64) {
    let admin = admin.with_header("prefer", "respond-async");
    let (mut made, mut position) = (Vec::new(), 0);
    for first in (0..users).step_by(LINES) {
        let lines: String = (first..users.min(first + LINES)).map(|n| line(n, users)).collect();
        let body = Some(("application/x-ndjson", lines.into_bytes()));
        let answer = admin.send("POST", "/api/v1/users/import", body).await.expect(200);
        position = answer.position();
        for line in answer.lines() {
            assert_eq!(line["status"], "created", "{line}");
            if line["line"].as_u64().unwrap().is_multiple_of(97) {
                made.push(format!("/api/v1/users/{}", line["id"].as_str().unwrap()));
            }
        }
    }
    (made, position)
}

/// Asks for the paths in turn, from all clients at once.
async fn ask(queries: &Client, paths: &[String]) -> Times {
    let next = AtomicUsize::new(0);
    let clients = join_all((0..PARALLEL).map(|_| async {
        let mut times = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= REQUESTS {
                return times;
            }
            let started = Instant::now();
            queries.get(&paths[n % paths.len()]).await.expect(200);
            times.push(started.elapsed());
        }
    }))
    .await;
    let mut times = Times::default();
    clients.concat().into_iter().for_each(|time| times.push(time));
    times
}

/// The path of a page far into a list; the last page but one when there are fewer.
async fn deep(queries: &Client, parameters: &str, users: usize) -> (usize, String) {
    let page = DEEP_PAGE.min((users / PAGE).saturating_sub(1));
    let mut path = format!("/api/v1/users?{parameters}page_size={PAGE}");
    for _ in 1..page {
        let answer = queries.get(&path).await.expect(200);
        let cursor = answer.body["next_cursor"].as_str().unwrap();
        path = format!("/api/v1/users?{parameters}page_size={PAGE}&cursor={cursor}");
    }
    (page, path)
}

#[expect(clippy::cast_precision_loss, reason = "a few million at most")]
fn rate(users: usize, time: Duration) -> f64 {
    users as f64 / time.as_secs_f64()
}

async fn measure(users: usize) {
    // Room for a million users.
    let room = (2_u64 << 30).to_string();
    let settings = [
        ("ROSTER_LOG_BYTES_MAX", room.as_str()),
        ("ROSTER_LOG_MAILS_BYTES_MAX", room.as_str()),
        // One token for the whole run.
        ("ROSTER_TOKENS_ACCESS_LIFETIME_S", "3600"),
    ];
    let system = System::shared_with(&settings).await;
    let (admin, queries) = system.as_administrator().await;
    let started = Instant::now();
    let (some, position) = set_up(&admin, users).await;
    let imported = started.elapsed();
    e2e::wait_for("the views to have all users", || async {
        let path = format!("/api/v1/users?page_size=1&min_position={position}");
        queries.get(&path).await.status == 200
    })
    .await;
    println!(
        "{users} users imported in {:.1} s: {:.0} users/s; the views had them after {:.1} s",
        imported.as_secs_f64(),
        rate(users, imported),
        started.elapsed().as_secs_f64()
    );

    let list = |parameters: &str| vec![format!("/api/v1/users?{parameters}")];
    let narrow = (0..200).map(|n| format!("/api/v1/users?q=name{n:06}")).collect();
    let (page, deep_path) = deep(&queries, "", users).await;
    let (_, deep_by_name) = deep(&queries, "sort=full_name&", users).await;
    let forms: Vec<(String, Vec<String>)> = vec![
        ("GET /users/{id} (the ceiling)".to_owned(), some),
        ("first page".to_owned(), list("")),
        ("role=clerk, one in ten".to_owned(), list("role=clerk")),
        ("status=active, all".to_owned(), list("status=active")),
        ("q=name000123, ten users".to_owned(), narrow),
        ("q=ada, one in eight".to_owned(), list("q=ada")),
        ("sort=full_name".to_owned(), list("sort=full_name")),
        ("sort=-last_login_at".to_owned(), list("sort=-last_login_at")),
        (format!("page {page} by cursor"), vec![deep_path]),
        (format!("sort=full_name, page {page}"), vec![deep_by_name]),
        ("role=clerk, sort=full_name".to_owned(), list("role=clerk&sort=full_name")),
        ("first page, include_total".to_owned(), list("include_total=true")),
        ("role=clerk, include_total".to_owned(), list("role=clerk&include_total=true")),
    ];
    println!("{PARALLEL} clients, {REQUESTS} requests of each form, pages of {PAGE}; milliseconds");
    println!("{:<34} {:>8} {:>8} {:>8} {:>11}", "", "p50", "p99", "max", "p50/ceiling");
    let mut base = None;
    for (name, paths) in forms {
        let mut times = ask(&queries, &paths).await;
        let (p50, p99, max) = (times.ms(0.5), times.ms(0.99), times.ms(1.0));
        let base = *base.get_or_insert(p50);
        println!("{name:<34} {p50:>8.2} {p99:>8.2} {max:>8.2} {:>11.2}", p50 / base);
    }
}
