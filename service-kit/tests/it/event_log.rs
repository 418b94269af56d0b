//! Every outcome of an append, as the server really gives it.

use std::time::Duration;

use events::Position;
use futures::future::join_all;
use local_stack::{DataDir, NatsOptions, NatsServer};
use nats_access::Role;
use service_kit::ambient::new_uuid;
use service_kit::event_log::{Append, EventLog, Guard, Limits, Outcome, Write};

use crate::support::{BYTES_MAX, command, connect, limits, log, of_writer, provisioned, spec};

fn one(subject: &str, guard: Guard) -> Append {
    Append::new(command(), of_writer(subject, guard, "{}"))
}

fn three(n: u32, guard: Guard) -> Append {
    let event = Write::new(format!("ev.user.{n}"), guard, "event").event(new_uuid(), "user.x.v1");
    Append::new(command(), event)
        .with(Write::new(format!("uq.email.{n}"), guard, "claim"))
        .with(Write::new(format!("sec.user.{n}"), guard, "credential"))
}

async fn last(log: &EventLog, subject: &str) -> Option<(Position, Vec<u8>)> {
    log.last(subject).await.unwrap().map(|m| (m.position, m.payload.to_vec()))
}

#[tokio::test]
async fn a_guarded_write_is_stored_once() {
    let (log, _) = provisioned().await;
    assert_eq!(last(&log, "ev.user.a").await, None);
    assert_eq!(log.append(&one("ev.user.a", Guard::absent())).await, Outcome::Stored(Position(1)));
    assert_eq!(log.append(&one("ev.user.a", Guard::absent())).await, Outcome::Conflict);
    let stored = log.last("ev.user.a").await.unwrap().unwrap();
    assert_eq!(log.append(&one("ev.user.a", stored.guard())).await, Outcome::Stored(Position(2)));
    assert_eq!(log.append(&one("ev.user.a", stored.guard())).await, Outcome::Conflict);
    assert_eq!(log.end().await.unwrap(), Position(2));
    assert_eq!(log.at(Position(1)).await.unwrap().unwrap().position, Position(1));
    assert!(log.at(Position(9)).await.unwrap().is_none());
}

#[tokio::test]
async fn the_same_append_again_is_the_same_outcome() {
    let (log, _) = provisioned().await;
    let single = one("ev.user.a", Guard::absent());
    let first = log.append(&single).await;
    assert_eq!(first, Outcome::Stored(Position(1)));
    assert_eq!(log.append(&single).await, first, "a single write");
    let batch = three(1, Guard::absent());
    let first = log.append(&batch).await;
    assert_eq!(first, Outcome::Stored(Position(4)));
    assert_eq!(log.append(&batch).await, first, "a batch");
    // Also when others wrote behind it meanwhile.
    let guard = log.last("ev.user.1").await.unwrap().unwrap().guard();
    assert_eq!(log.append(&one("ev.user.1", guard)).await, Outcome::Stored(Position(5)));
    assert_eq!(log.append(&batch).await, first);
    assert_eq!(log.end().await.unwrap(), Position(5), "nothing was stored twice");
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let (log, _) = provisioned().await;
    assert_eq!(log.append(&one("sec.user.1", Guard::absent())).await, Outcome::Stored(Position(1)));
    assert_eq!(log.append(&three(1, Guard::absent())).await, Outcome::Conflict);
    assert_eq!(last(&log, "uq.email.1").await, None);
    assert_eq!(last(&log, "ev.user.1").await, None);
    assert_eq!(log.append(&three(2, Guard::absent())).await, Outcome::Stored(Position(4)));
    let (position, payload) = last(&log, "ev.user.2").await.unwrap();
    assert_eq!((position, payload.as_slice()), (Position(4), &b"event"[..]), "the event is last");
}

#[tokio::test]
async fn one_guard_covers_further_events_on_its_subject() {
    let (log, _) = provisioned().await;
    let two = |guard| {
        let first = Write::new("ev.user.1".to_owned(), guard, "1").event(new_uuid(), "user.x.v1");
        Append::new(command(), first).then("2", new_uuid(), "user.y.v1")
    };
    let append = two(Guard::absent());
    assert_eq!(log.append(&append).await, Outcome::Stored(Position(2)));
    assert_eq!(log.append(&append).await, Outcome::Stored(Position(2)), "found by its first event");
    assert_eq!(log.append(&two(Guard::absent())).await, Outcome::Conflict);
    assert_eq!(last(&log, "ev.user.1").await.unwrap().1, b"2");
}

#[tokio::test]
async fn of_racing_batches_one_wins() {
    let (log, _) = provisioned().await;
    for round in 0..20 {
        let appends: Vec<Append> = (0..16).map(|_| three(round, Guard::absent())).collect();
        let outcomes = join_all(appends.iter().map(|append| log.append(append))).await;
        let stored = outcomes.iter().filter(|o| matches!(o, Outcome::Stored(_))).count();
        let conflicts = outcomes.iter().filter(|o| **o == Outcome::Conflict).count();
        assert_eq!((stored, conflicts), (1, 15), "{outcomes:?}");
    }
    assert_eq!(log.end().await.unwrap(), Position(60));
}

/// The server takes 50 open batches per stream; from several processes there can be more.
#[tokio::test]
async fn more_batches_than_the_server_takes_are_all_stored() {
    let (_, account) = provisioned().await;
    // How long 400 synced batches take is the machine's affair, and not what is tried here.
    let patient = Limits { append_deadline: Duration::from_secs(60), ..limits() };
    let mut logs = Vec::new();
    for _ in 0..8 {
        let client = connect(account, Role::CommandApi).await;
        logs.push(EventLog::new(client, "USERS", patient));
    }
    let appends: Vec<Append> = (0..400).map(|n| three(n, Guard::absent())).collect();
    let outcomes =
        join_all(appends.iter().enumerate().map(|(n, append)| logs[n % logs.len()].append(append)))
            .await;
    let stored = outcomes.iter().filter(|o| matches!(o, Outcome::Stored(_))).count();
    assert_eq!(stored, 400, "{outcomes:?}");
}

#[tokio::test]
async fn a_full_log_says_so_and_loses_nothing() {
    let (log, _) = provisioned().await;
    let large = |n: u32| {
        // Random bytes in hex, so that compression does not make room.
        let noise: String = (0..4000).map(|_| new_uuid().simple().to_string()).collect();
        Append::new(command(), Write::new(format!("ev.user.{n}"), Guard::absent(), noise))
    };
    let mut stored = 0;
    loop {
        let outcome = log.append(&large(stored)).await;
        if outcome == Outcome::Full {
            break;
        }
        assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
        stored += 1;
        assert!(u64::from(stored) < BYTES_MAX / 1000, "the log has a bound");
    }
    assert!(stored > 0);
    assert_eq!(
        log.append(&three(9, Guard::absent())).await,
        Outcome::Stored(Position(u64::from(stored) + 3)),
        "what fits is still taken"
    );
}

#[tokio::test]
async fn without_a_stream_nothing_is_stored() {
    let account = crate::support::account();
    let log = log(connect(account, Role::CommandApi).await);
    assert_eq!(log.append(&one("ev.user.a", Guard::absent())).await, Outcome::Unavailable);
    assert_eq!(log.append(&three(1, Guard::absent())).await, Outcome::Unavailable);
}

#[tokio::test]
async fn a_server_that_hangs_makes_the_outcome_unknown_and_a_repetition_tells() {
    let dir = local_stack::testing::temp_dir();
    let data = DataDir::open(dir.path()).unwrap();
    let options = NatsOptions { data_dir: data.nats(), port: None, config: String::new() };
    let server = NatsServer::start(local_stack::testing::binaries(), options).unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let log = EventLog::new(
        client,
        "USERS",
        Limits {
            request_timeout: Duration::from_millis(200),
            append_deadline: Duration::from_millis(700),
            ..limits()
        },
    );
    log.provision(&spec()).await.unwrap();

    signal(server.pid().unwrap(), "STOP");
    let (single, batch) = (one("ev.user.a", Guard::absent()), three(1, Guard::absent()));
    let outcomes = tokio::join!(log.append(&single), log.append(&batch));
    assert_eq!(outcomes, (Outcome::Unknown, Outcome::Unknown));
    signal(server.pid().unwrap(), "CONT");
    // Whatever of it arrived late: the same append again ends with all of it stored, once.
    for append in [&single, &batch] {
        let outcome = patiently(&log, append).await;
        assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
    }
    assert_eq!(log.end().await.unwrap(), Position(4));

    // A server that is gone is known to be gone.
    server.kill().unwrap();
    let mut outcome = Outcome::Unknown;
    for _ in 0..50 {
        outcome = log.append(&one("ev.user.b", Guard::absent())).await;
        if outcome == Outcome::Unavailable {
            break;
        }
    }
    assert_eq!(outcome, Outcome::Unavailable);
    server.restart().unwrap();
    assert!(matches!(patiently(&log, &three(2, Guard::absent())).await, Outcome::Stored(_)));
}

/// Repeats the same append until the server answers again.
async fn patiently(log: &EventLog, append: &Append) -> Outcome {
    let mut outcome = Outcome::Unknown;
    for _ in 0..100 {
        outcome = log.append(append).await;
        if !matches!(outcome, Outcome::Unknown | Outcome::Unavailable) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    outcome
}

fn signal(pid: u32, name: &str) {
    let status =
        std::process::Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}
