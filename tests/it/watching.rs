//! What an operator sees from outside.

use std::collections::BTreeSet;

use e2e::{Client, PASSWORD, Process, Scrape, System, wait_for};
use local_stack::testing::temp_dir;

/// The first cell of each row of the table.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../docs/metrics.md");
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

async fn scrape_of(process: &Process) -> Scrape {
    Client::new(&process.value("private")).scrape().await
}

#[tokio::test]
async fn the_metrics_tell_what_happened() {
    let mut system = System::shared_with(&[
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_REQUESTS_MAX", "3"),
    ])
    .await;
    let commands = system.commands();
    let ada = commands.register("ada@example.com").await.expect(201);
    let id = ada.body["id"].as_str().unwrap();
    commands.register("bob@example.com").await.expect(201);
    commands.register("ada@example.com").await.expect(409);
    commands.register("eve@example.com").await.expect(429);
    let (_, queries) = system.as_administrator().await;
    queries.get("/api/v1/users").await.expect(200);
    queries.get(&format!("/api/v1/users/{id}")).await.expect(200);
    queries.get(&format!("/api/v1/nothing/{id}")).await.expect(404);
    system.wait_for_mails_to("bob@example.com", 1).await;

    let seen = scrape_of(&system.command_api).await;
    let count = |name: &str, labels: &[(&str, &str)]| seen.value(name, labels).unwrap_or(-1.0);
    let register = ("route", "/api/v1/auth/register");
    for (status, times) in [("201", 2.0), ("409", 1.0), ("429", 1.0)] {
        let labels = [("service", "command-api"), ("method", "POST"), register, ("status", status)];
        assert_eq!(count("roster_http_requests_total", &labels), times, "{status}");
    }
    assert_eq!(count("roster_http_request_duration_seconds_count", &[register]), 4.0);
    assert_eq!(count("roster_http_requests_in_flight", &[]), 0.0);
    let stored = [("stream", "USERS"), ("outcome", "stored")];
    assert!(count("roster_log_appends_total", &stored) >= 2.0);
    let reached = [("views", "users"), ("outcome", "reached")];
    assert!(count("roster_views_waits_total", &reached) >= 2.0);
    assert!(count("roster_hash_duration_seconds_count", &[("operation", "hash")]) >= 2.0);
    assert!(count("roster_hash_duration_seconds_count", &[("operation", "verify")]) >= 1.0);
    assert_eq!(count("roster_hash_queue_depth", &[]), 0.0);
    assert_eq!(count("roster_throttle_refusals_total", &[("policy", "registrations")]), 1.0);
    assert_eq!(count("roster_throttle_refusals_total", &[("policy", "account")]), 0.0);
    assert_eq!(count("roster_revocations_silence_seconds", &[]), 0.0);

    let seen = scrape_of(&system.query_api).await;
    let by_id = [("route", "/api/v1/users/{user_id}"), ("status", "200")];
    assert_eq!(seen.value("roster_http_requests_total", &by_id), Some(1.0));
    let nowhere = [("route", "unmatched"), ("status", "404"), ("service", "query-api")];
    assert_eq!(seen.value("roster_http_requests_total", &nowhere), Some(1.0));
    let seen = scrape_of(system.reactor.as_ref().unwrap()).await;
    assert!(seen.value("roster_mails_total", &[("outcome", "sent")]) >= Some(2.0));
    let users = [("stream", "USERS"), ("service", "projector")];
    let seen = scrape_of(system.projector.as_ref().unwrap()).await;
    assert!(seen.value("roster_projector_events_applied_total", &users) >= Some(3.0));
    assert!(seen.value("roster_projector_batches_total", &users) >= Some(1.0));
    assert_eq!(seen.value("roster_projector_lag_events", &users), Some(0.0));
    assert_eq!(seen.value("roster_projector_lag_seconds", &users), Some(0.0));

    let scrapes = system.scrapes().await;
    let shown: BTreeSet<String> = scrapes.iter().flat_map(|(_, scrape)| scrape.names()).collect();
    // Nothing is sent here, and no service of Roster has its keys from a URL.
    let elsewhere = ["roster_trace_spans_total", "roster_keys_age_seconds"].map(str::to_owned);
    assert!(elsewhere.iter().all(|name| !shown.contains(name)));
    let expected: BTreeSet<String> = &documented() - &BTreeSet::from(elsewhere);
    assert_eq!(shown, expected);
    for (service, scrape) in &scrapes {
        assert!(!scrape.0.contains(id) && !scrape.0.contains("example.com"), "{service}");
        let others = scrape.0.lines().filter(|line| !line.starts_with('#'));
        let label = format!("service=\"{service}\"");
        assert!(others.clone().count() > 5 && others.clone().all(|line| line.contains(&label)));
    }

    system.kill_projector();
    commands.log_in("ada@example.com", PASSWORD).await;
    let seen = scrape_of(&system.command_api).await;
    let in_vain = |outcome| {
        let labels = [("views", "sessions"), ("outcome", outcome)];
        seen.value("roster_views_waits_total", &labels).unwrap()
    };
    assert_eq!(in_vain("timed_out") + in_vain("projector_down"), 1.0);
}

/// A database that is away shows as a projector that stands still and as views that age.
#[tokio::test]
async fn a_projector_that_stands_still_is_seen() {
    let system = System::own().await;
    let projector = system.projector.as_ref().unwrap();
    let users = [("stream", "USERS")];
    let progress = "roster_projector_last_progress_timestamp_seconds";
    let before = scrape_of(projector).await.value(progress, &users).unwrap();
    wait_for("the projector to be seen alive", || async {
        scrape_of(projector).await.value(progress, &users).unwrap() > before
    })
    .await;
    system.mongod().stop().unwrap();
    system.commands().register("ada@example.com").await.expect(201);
    wait_for("the views to age", || async {
        let seen = scrape_of(projector).await;
        seen.value("roster_projector_lag_seconds", &users).unwrap() > 1.0
            && seen.value("roster_projector_restarts_total", &users).unwrap() > 0.0
    })
    .await;
    let stood = scrape_of(projector).await.value(progress, &users).unwrap();
    system.mongod().restart().unwrap();
    wait_for("the projector to catch up", || async {
        let seen = scrape_of(projector).await;
        seen.value("roster_projector_lag_seconds", &users) == Some(0.0)
            && seen.value("roster_projector_lag_events", &users) == Some(0.0)
            && seen.value(progress, &users).unwrap() > stood
    })
    .await;
}

#[tokio::test]
async fn the_services_of_one_process_are_told_apart() {
    let dir = temp_dir();
    let data = dir.path().join("data");
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let dev = Process::start(&arguments, &[], &dir.path().join("log"));
    let client = Client::new(&dev.value("url"));
    client.register("ada@example.com").await.expect(201);
    client.get("/api/v1/users").await.expect(401);
    client.get("/nowhere").await.expect(404);
    let seen = scrape_of(&dev).await;
    for (service, method, route) in [
        ("command-api", "POST", "/api/v1/auth/register"),
        ("query-api", "GET", "/api/v1/users"),
        ("dev", "GET", "unmatched"),
    ] {
        let labels = [("service", service), ("method", method), ("route", route)];
        assert_eq!(seen.value("roster_http_requests_total", &labels), Some(1.0), "{service}");
    }
    for service in ["command-api", "query-api", "projector", "reactor", "dev"] {
        assert_eq!(seen.value("roster_build_info", &[("service", service)]), Some(1.0));
    }
    assert!(dev.end("-TERM").success());
}
