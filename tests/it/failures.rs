//! Killed and stopped in the middle of writes: nothing acknowledged is lost, nothing is done twice, and
//! the views equal the log in the end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use e2e::{System, wait_for};
use events::UserState;
use tokio::time::sleep;

use crate::workload::{Acknowledged, Workload};

/// How long the database is away.
const DATABASE_AWAY: Duration = Duration::from_secs(20);

/// Every acknowledged command is in the log, once, and the views equal the log.
pub async fn nothing_is_lost(system: &System, acknowledged: &Acknowledged) {
    let fold = system.fold().await;
    let states: BTreeMap<String, &UserState> =
        fold.users.iter().map(|(id, state)| (id.to_string(), state)).collect();
    let mut registered: HashMap<String, usize> = HashMap::new();
    for state in fold.users.values() {
        if let UserState::Present(user) = state {
            *registered.entry(user.email.clone()).or_default() += 1;
        }
    }
    assert!(!acknowledged.users.is_empty());
    for (email, id) in &acknowledged.users {
        let Some(UserState::Present(user)) = states.get(id) else { panic!("{id} is lost") };
        assert_eq!(&user.email, email);
        assert_eq!(registered.get(email), Some(&1), "{email} is registered once");
    }
    for (id, name) in &acknowledged.names {
        let Some(UserState::Present(user)) = states.get(id) else { panic!("{id} is lost") };
        assert_eq!(user.full_name.as_ref(), Some(name));
        assert_eq!(user.revision.0, 2, "{id} was renamed once");
    }
    let (_, queries) = system.as_administrator().await;
    system.views_equal_the_log(&queries).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_is_killed_goes_on_where_it_was() {
    let mut system = System::shared().await;
    let workload = Workload::start(&system).await;
    for _ in 0..4 {
        workload.more(20).await;
        system.kill_projector();
        workload.more(20).await;
        system.start_projector();
    }
    let acknowledged = workload.finish().await;
    assert!(
        acknowledged.refusals.is_empty(),
        "commands do not need it: {:?}",
        acknowledged.refusals
    );
    system.ready().await;
    nothing_is_lost(&system, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_stops_queries_and_no_command() {
    let system = System::own().await;
    let (_, queries) = system.as_administrator().await;
    let workload = Workload::start(&system).await;
    workload.more(20).await;

    system.mongod().stop().unwrap();
    let refused = queries.get("/api/v1/users").await.expect(503);
    assert_eq!(refused.code(), "unavailable");
    assert!(refused.header("retry-after").is_some());
    let ready = e2e::Client::new(&system.query_api.value("private"));
    assert_eq!(ready.get("/readyz").await.status, 503);
    assert_eq!(ready.get("/livez").await.status, 200);
    // Not a wait for a state: the time away is what is tried.
    sleep(DATABASE_AWAY).await;
    let before = workload.done();
    workload.more(20).await;
    assert!(workload.done() > before);
    system.mongod().restart().unwrap();
    workload.more(20).await;

    let acknowledged = workload.finish().await;
    assert!(acknowledged.refusals.is_empty(), "{:?}", acknowledged.refusals);
    system.ready().await;
    nothing_is_lost(&system, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_killed_loses_nothing_it_acknowledged() {
    let system = System::own().await;
    let workload = Workload::start(&system).await;
    for round in 0..5 {
        workload.more(20).await;
        system.nats().kill().unwrap();
        if round % 2 == 0 {
            // Long enough for every writer to meet the silence.
            wait_for("a refusal", || async {
                let probe = system.commands().register("probe@example.com").await;
                probe.status == 503 && probe.header("retry-after").is_some()
            })
            .await;
        }
        system.nats().restart().unwrap();
    }
    workload.more(20).await;
    let acknowledged = workload.finish().await;
    assert!(!acknowledged.refusals.is_empty(), "the log was away");
    system.ready().await;
    nothing_is_lost(&system, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_named_in_a_sentence_and_in_no_dump() {
    let system = System::own().await;
    let (_, queries) = system.as_administrator().await;
    let advice = "check that mongod runs and that mongodb.url leads to it";
    system.mongod().stop().unwrap();
    let lag = system.roster(&["lag"]);
    assert!(String::from_utf8_lossy(&lag.stdout).contains(advice), "{lag:?}");
    let verify = system.roster(&["verify"]);
    assert!(String::from_utf8_lossy(&verify.stderr).contains(advice), "{verify:?}");
    // Something has to be written and read, or nobody needs the database.
    system.commands().register("while-away@example.com").await.expect(201);
    queries.get("/api/v1/users").await.expect(503);
    for service in [&system.query_api, system.projector.as_ref().unwrap()] {
        let private = e2e::Client::new(&service.value("private"));
        wait_for("readiness to say so", || async {
            let answer = private.get("/readyz").await;
            answer.status == 503 && String::from_utf8_lossy(&answer.bytes).contains(advice)
        })
        .await;
    }
    for name in ["projector", "query-api"] {
        let log = system.log_of(name);
        assert!(log.contains("mongod runs"), "{name}: {log}");
        for dumped in ["labels", "Kind:", "Topology", "server response"] {
            assert!(!log.contains(dumped), "{dumped} in {log}");
        }
    }
}
