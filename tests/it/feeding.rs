//! What other services are told: everything, once, in order, and nothing of a user who is gone.

use std::collections::{BTreeMap, HashMap, HashSet};

use e2e::{ADMIN_EMAIL, ADMIN_PASSWORD, Client, PASSWORD, System, rename, wait_for};
use events::feed::{AllEndedReason, FeedEvent, Happened};
use serde_json::json;

use crate::failures::nothing_is_lost;
use crate::workload::Workload;

/// What the caller of a registration follows.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Everything that can happen to a user but the end, as its owner and an administrator do it. The user's id.
async fn a_life(system: &System, admin: &Client) -> String {
    let commands = system.commands();
    let traced = commands.with_header("traceparent", TRACE);
    let registered = traced.register("ada@example.com").await.expect(201);
    let id = registered.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/users/{id}");
    commands.login("ada@example.com", PASSWORD).await;
    let mail = system.wait_for_mails_to("ada@example.com", 1).await.remove(0);
    let token = json!({ "token": mail.link.unwrap().token, "password": PASSWORD });
    commands.post("/api/v1/auth/verify-email-confirm", &token).await.expect(204);
    let ada = commands.with_token(&commands.login("ada@example.com", PASSWORD).await);
    admin.patch(&path, &rename("Ada")).await.expect(200);
    let password = json!({ "current_password": PASSWORD, "new_password": "another pass phrase 8" });
    ada.post("/api/v1/auth/change-password", &password).await.expect(204);
    admin.patch(&path, &json!({ "roles": ["user", "auditor"] })).await.expect(200);
    admin.patch(&path, &json!({ "status": "disabled" })).await.expect(200);
    admin.patch(&path, &json!({ "status": "active" })).await.expect(200);
    let ada =
        commands.with_token(&commands.login("ada@example.com", "another pass phrase 8").await);
    ada.post("/api/v1/auth/logout-all", &json!({})).await.expect(204);
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_is_told_everything_in_order_and_its_filter_holds() {
    let mut system = System::shared().await;
    let all = ["--filter", "users", "--filter", "sessions"];
    let mut everything = system.subscriber("everything", &all).await;
    let only = ["--filter", "users.v1.deleted.*", "--from", "now"];
    let mut deletions = system.subscriber("deletions", &only).await;
    let (admin, _) = system.as_administrator().await;
    let id = a_life(&system, &admin).await;

    let is_theirs = |told: &e2e::Told| told.subject.ends_with(&id);
    let is_last = |told: &e2e::Told| {
        let Happened::AllSessionsEnded(ended) = &told.event.happened else { return false };
        is_theirs(told) && ended.sessions.reason == Some(AllEndedReason::LoggedOut)
    };
    let mut told = everything.take_until(is_last).await;
    // What was told of a user is erased once they are deleted.
    system.kill_reactor();
    admin.delete(&format!("/api/v1/users/{id}")).await.expect(204);
    let is_deletion = |told: &e2e::Told| is_theirs(told) && told.kind() == "users.deleted";
    told.extend(everything.take_until(is_deletion).await);
    assert!(told.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "in order");
    assert!(told.iter().all(|told| told.deliveries == 1), "none came twice");
    let theirs: Vec<_> = told.into_iter().filter(is_theirs).collect();
    let kinds: Vec<String> = theirs.iter().map(e2e::Told::kind).collect();
    let expected = [
        "users.registered",
        "sessions.started",
        "sessions.all_ended",
        "users.email_verified",
        "sessions.started",
        "users.profile_changed",
        "sessions.all_ended",
        "users.password_changed",
        "users.roles_changed",
        "sessions.all_ended",
        "users.disabled",
        "users.enabled",
        "sessions.started",
        "sessions.all_ended",
        "sessions.all_ended",
        "users.deleted",
    ];
    assert_eq!(kinds, expected);
    let reasons: Vec<_> = theirs
        .iter()
        .filter_map(|told| {
            let Happened::AllSessionsEnded(ended) = &told.event.happened else { return None };
            ended.sessions.reason.clone()
        })
        .collect();
    assert_eq!(
        reasons,
        [
            AllEndedReason::EmailProven,
            AllEndedReason::PasswordChanged,
            AllEndedReason::Disabled,
            AllEndedReason::LoggedOut,
            AllEndedReason::Deleted,
        ]
    );
    // What the log knows of an event is told with it.
    let registered = &theirs[0].event;
    let logged = system.events().await;
    let origin = logged.iter().find(|logged| logged.event.id == registered.id).unwrap();
    assert_eq!(registered.position, origin.position);
    assert_eq!(registered.time, origin.event.time);
    assert_eq!(registered.command_id, Some(origin.event.command_id));
    assert!(registered.correlation_id.is_some());
    let trace_id = TRACE.split('-').nth(1).unwrap();
    assert!(registered.traceparent.as_ref().unwrap().contains(trace_id));
    let renamed = theirs.iter().find(|told| told.kind() == "users.profile_changed").unwrap();
    let Happened::ProfileChanged(data) = &renamed.event.happened else { panic!("{renamed:?}") };
    assert_eq!(data.changed.full_name, Some(Some("Ada".to_owned())));
    assert_eq!(data.user.email, "ada@example.com");

    // The other one hears of the deletion and of nothing else.
    let told = deletions.take_until(|_| true).await;
    assert_eq!((told[0].kind().as_str(), is_theirs(&told[0])), ("users.deleted", true));
    assert!(deletions.hears_nothing().await);
}

#[tokio::test]
async fn an_event_leads_to_the_schema_of_its_data_which_is_served() {
    let system = System::shared().await;
    let registered = system.commands().register("ada@example.com").await.expect(201);
    let id = registered.body["id"].as_str().unwrap().to_owned();
    let is_theirs = |told: &e2e::Told| told.subject.ends_with(&id);
    let mut live = system.subscriber("search", &["--from", "start"]).await;
    let event = live.take_until(is_theirs).await.pop().unwrap();
    system.subscriber("billing", &["--from", "snapshot"]).await;
    let mut states = system.subscriber_again("billing", "USER_SNAPSHOTS").await;
    let state = states.take_until(is_theirs).await.pop().unwrap();
    for (told, kind) in [(event, "users.v1.registered"), (state, "users.v1.snapshot")] {
        assert_eq!(told.event.happened.kind(), kind);
        let uri = told.event.data_schema.unwrap();
        // The issuer, which has not been set.
        let path = uri.strip_prefix("http://127.0.0.1:8080").unwrap();
        assert_eq!(path, format!("/schemas/{kind}.data.json"));
        let schema = system.queries().get(path).await.expect(200);
        assert_eq!(schema.bytes, std::fs::read(format!("../asyncapi{path}")).unwrap());
    }
}

/// Every event of the log is in the feed once, and what happened to one user or session is in its order.
async fn the_feed_tells_the_log(system: &System) {
    let logged = system.events().await;
    let end = logged.last().unwrap().position;
    wait_for("the feed to reach the end of the log", || async {
        system
            .feed()
            .await
            .iter()
            .any(|(subject, event)| subject.starts_with("users.") && event.position == end)
    })
    .await;
    let feed = system.feed().await;
    let mut ids = HashSet::new();
    let mut revisions: HashMap<String, u64> = HashMap::new();
    for (subject, event) in &feed {
        assert!(ids.insert(event.id), "{} is told twice", event.id);
        assert_eq!(event.nats_subject().as_ref(), Some(subject));
        let last = revisions.insert(event.aggregate().0, event.revision.0).unwrap_or_default();
        assert!(last < event.revision.0, "{subject}: {last} before {}", event.revision);
        let is_user = subject.starts_with("users.");
        assert!(!is_user || event.revision.0 == last + 1, "{subject} leaves one out");
    }
    let of_users: Vec<_> = feed
        .iter()
        .filter(|(subject, _)| subject.starts_with("users."))
        .map(|(_, e)| e.id)
        .collect();
    let of_log: Vec<_> = logged.iter().map(|logged| logged.event.id).collect();
    assert_eq!(of_users, of_log);
    // A session comes after its user.
    let position =
        |wanted: &dyn Fn(&FeedEvent) -> bool| feed.iter().position(|(_, event)| wanted(event));
    for (_, event) in &feed {
        if let Happened::SessionStarted(data) = &event.happened {
            let (user, session) = (data.session.user_id, data.session.id);
            let registered = position(&|event| {
                matches!(event.happened, Happened::Registered(_))
                    && event.happened.user_id() == Some(user)
            });
            let started = position(&|event| event.happened.session_id() == Some(session));
            assert!(registered.unwrap() < started.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projectors_that_are_killed_and_two_at_once_tell_everything_once() {
    let mut system = System::shared().await;
    let workload = Workload::start(&system).await;
    let mut second = system.another("projector");
    for _ in 0..4 {
        workload.more(20).await;
        system.kill_projector();
        workload.more(20).await;
        system.start_projector();
        std::mem::replace(&mut second, system.another("projector")).kill();
    }
    let commands = system.commands();
    for n in 0..10 {
        let email = format!("session{n}@example.com");
        commands.register(&email).await.expect(201);
        commands.login(&email, PASSWORD).await;
    }
    let acknowledged = workload.finish().await;
    system.ready().await;
    nothing_is_lost(&system, &acknowledged).await;
    the_feed_tells_the_log(&system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_killed_leaves_no_gap_in_the_feed() {
    let system = System::own().await;
    let workload = Workload::start(&system).await;
    for _ in 0..4 {
        workload.more(20).await;
        system.nats().kill().unwrap();
        system.nats().restart().unwrap();
    }
    workload.more(20).await;
    workload.finish().await;
    system.ready().await;
    the_feed_tells_the_log(&system).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_services_are_told_while_the_database_is_away() {
    let system = System::own().await;
    let mut told = system.subscriber("audit", &["--from", "now"]).await;
    system.mongod().stop().unwrap();
    let commands = system.commands().with_header("prefer", "respond-async");
    let id = commands.register("away@example.com").await.expect(201).body["id"].clone();
    let events = told.take_until(|_| true).await;
    assert!(events[0].subject.ends_with(id.as_str().unwrap()), "{events:?}");
    system.mongod().restart().unwrap();
}

/// Logins race deletions. Whoever loses, nothing is told of a user who is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_user_comes_after_the_deletion() {
    const USERS: usize = 20;
    let mut system = System::shared().await;
    // What was told of the deleted must stay, to be looked at.
    system.kill_reactor();
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let login = async |commands: &Client, email: &str| {
        let body = json!({ "email": email, "password": PASSWORD });
        commands.post("/api/v1/auth/login", &body).await.status
    };
    let mut users = Vec::new();
    for n in 0..USERS {
        let email = format!("gone{n}@example.com");
        let user = commands.register(&email).await.expect(201);
        users.push((email, user.header("location").unwrap().to_owned()));
    }
    let mut logins: BTreeMap<u16, usize> = BTreeMap::new();
    for (email, path) in &users {
        let (one, two, deleted) =
            tokio::join!(login(&commands, email), login(&commands, email), async {
                admin.delete(path).await.expect(204)
            });
        for status in [one, two] {
            *logins.entry(status).or_default() += 1;
        }
        assert_eq!(deleted.status, 204);
    }
    the_feed_tells_the_log(&system).await;
    let mut gone = HashSet::new();
    for (subject, event) in system.feed().await {
        let user = event.happened.user_id().unwrap();
        assert!(!gone.contains(&user), "{subject} comes after the deletion; logins {logins:?}");
        if matches!(event.happened, Happened::Deleted(_)) {
            gone.insert(user);
        }
    }
    assert_eq!(gone.len(), USERS);
}

/// A feed that is full holds up nobody but itself, says so, and goes on when it has room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_feed_loses_nothing_and_says_so() {
    let room = (1_u64 << 20).to_string();
    // Without a reserve: imports have to go on until not one event more fits.
    let settings = [("ROSTER_FEED_BYTES_MAX", room.as_str()), ("ROSTER_LOG_RESERVE_PERCENT", "0")];
    let system = System::shared_with(&settings).await;
    let (admin, queries) = system.as_administrator().await;
    let private = Client::new(&system.projector.as_ref().unwrap().value("private"));
    let eve = system.commands().register("eve@example.com").await.expect(201);
    let eve = eve.header("location").unwrap().to_owned();
    let mut users = 0_u32;
    wait_for("the feed to be full", || {
        users += 100;
        let lines: Vec<String> = (users..users + 100)
            .map(|n| {
                // Hardly to be compressed.
                let noise: String = (0..60)
                    .map(|k| {
                        format!(
                            "{:x}",
                            (u64::from(n) << 20 | k).wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        )
                    })
                    .collect();
                json!({ "email": format!("full{n}@example.com"), "metadata": { "noise": noise } })
                    .to_string()
            })
            .collect();
        let (admin, private) = (&admin, &private);
        async move {
            let body = lines.join("\n").into_bytes();
            let import = Some(("application/x-ndjson", body));
            assert_eq!(admin.send("POST", "/api/v1/users/import", import).await.status, 200);
            let ready = private.get("/readyz").await;
            ready.status == 503 && ready.body.to_string().contains("the feed is full")
        }
    })
    .await;
    // What ends access does not need it, nor do administrators and queries.
    system.commands().log_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    admin.send("POST", &format!("{eve}/disable"), None).await.expect(200);
    queries.get(&format!("{eve}/history")).await.expect(200);
    let more = (64_u64 << 20).to_string();
    let output = system.roster_with(&["provision"], &[("ROSTER_FEED_BYTES_MAX", &more)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    system.ready().await;
    the_feed_tells_the_log(&system).await;
}
