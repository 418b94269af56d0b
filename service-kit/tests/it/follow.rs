//! Following the log: in order, from where it was asked, and over at the first disturbance.

use std::time::Duration;

use async_nats::jetstream;
use events::Position;
use futures::StreamExt;
use local_stack::{DataDir, NatsOptions, NatsServer};
use nats_access::Role;
use service_kit::event_log::{Append, FollowError, Guard, Outcome, Start};
use tokio::time::timeout;

use crate::support::{account, command, connect, log, of_writer, provisioned, spec};

/// Longest wait for something that must come.
const WAIT_MAX: Duration = Duration::from_secs(20);

async fn append(log: &service_kit::event_log::EventLog, subject: &str) -> Position {
    let guard = log.last(subject).await.unwrap().map_or(Guard::absent(), |m| m.guard());
    let append = Append::new(command(), of_writer(subject, guard, subject));
    let Outcome::Stored(position) = log.append(&append).await else { panic!("not stored") };
    position
}

#[tokio::test]
async fn messages_come_in_order_from_behind_the_position() {
    let (writer, account) = provisioned().await;
    let reader = log(connect(account, Role::Projector).await);
    for subject in ["ev.user.a", "sec.user.a", "ev.user.b", "ev.user.a"] {
        append(&writer, subject).await;
    }
    let messages = reader.follow(&["ev.user.*"], Start::Behind(Position(1))).await.unwrap();
    assert_eq!(messages.pending, 2);
    let mut messages = messages.messages;
    let next = async |n: u64| {
        let message = timeout(WAIT_MAX, messages.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(message.position, Position(n));
        message.payload
    };
    let mut next = next;
    assert_eq!(next(3).await, "ev.user.b");
    assert_eq!(next(4).await, "ev.user.a");
    // And on, with what is written from now on.
    append(&writer, "ev.user.c").await;
    assert_eq!(next(5).await, "ev.user.c");

    let missing = reader.next("ev.user.*", Position(1)).await.unwrap().unwrap();
    assert_eq!(missing.position, Position(3));
    assert!(reader.next("ev.user.*", Position(5)).await.unwrap().is_none());
}

#[tokio::test]
async fn the_last_of_each_come_in_order_and_then_what_is_written() {
    let (writer, account) = provisioned().await;
    let reader = log(connect(account, Role::Projector).await);
    for subject in ["ev.user.a", "ev.user.b", "rv.user.b", "sec.user.a", "ev.user.a", "ev.user.c"] {
        append(&writer, subject).await;
    }
    let filters = ["ev.user.*", "rv.user.*"];
    let mut following = reader.follow(&filters, Start::LastOfEach).await.unwrap();
    assert_eq!(following.pending, 4);
    append(&writer, "ev.user.b").await;
    for (position, subject) in
        [(2, "ev.user.b"), (3, "rv.user.b"), (5, "ev.user.a"), (6, "ev.user.c"), (7, "ev.user.b")]
    {
        let next = timeout(WAIT_MAX, following.messages.next()).await.unwrap();
        let message = next.unwrap().unwrap();
        assert_eq!((message.position, message.subject.as_str()), (Position(position), subject));
    }
}

/// A server that restarts has forgotten the consumer: the stream must end and not wait for ever, and
/// must not begin again by itself.
#[tokio::test]
async fn a_server_that_restarts_ends_it() {
    let dir = local_stack::testing::temp_dir();
    let data = DataDir::open(dir.path().join("data")).unwrap();
    let options = NatsOptions { data_dir: data.nats(), port: None, config: String::new() };
    let server = NatsServer::start(local_stack::testing::binaries(), options).unwrap();
    let log = log(async_nats::connect(server.url()).await.unwrap());
    log.provision(&spec()).await.unwrap();
    append(&log, "ev.user.a").await;
    let start = Start::Behind(Position(1));
    let mut idle = log.follow(&["ev.user.*"], start).await.unwrap().messages;
    server.kill().unwrap();
    server.restart().unwrap();
    let ended = timeout(WAIT_MAX, idle.next()).await.unwrap();
    assert!(matches!(ended, Some(Err(_))), "{ended:?}");
    assert!(idle.next().await.is_none());
}

#[tokio::test]
async fn a_consumer_that_is_deleted_ends_it() {
    let (writer, account) = provisioned().await;
    append(&writer, "ev.user.a").await;
    let reader = log(connect(account, Role::Projector).await);
    let start = Start::Behind(Position(0));
    let mut messages = reader.follow(&["ev.user.*"], start).await.unwrap().messages;
    timeout(WAIT_MAX, messages.next()).await.unwrap().unwrap().unwrap();
    let operator = jetstream::new(connect(account, Role::Operator).await);
    let stream = operator.get_stream("USERS").await.unwrap();
    let names: Vec<String> = stream.consumer_names().map(Result::unwrap).collect().await;
    assert_eq!(names.len(), 1);
    stream.delete_consumer(&names[0]).await.unwrap();
    assert!(matches!(timeout(WAIT_MAX, messages.next()).await.unwrap(), Some(Err(_))));
}

#[tokio::test]
async fn a_stream_that_is_full_of_consumers_says_so() {
    let account = account();
    let context = jetstream::new(connect(account, Role::Operator).await);
    let stream = jetstream::stream::Config {
        name: "USERS".to_owned(),
        subjects: vec!["rv.user.*".to_owned()],
        max_consumers: 2,
        ..Default::default()
    };
    let stream = context.create_stream(stream).await.unwrap();
    for name in ["z1", "z2"] {
        let consumer = jetstream::consumer::pull::Config {
            durable_name: Some(name.to_owned()),
            inactive_threshold: Duration::from_secs(300_000_000),
            ..Default::default()
        };
        stream.create_consumer(consumer).await.unwrap();
    }
    let client = connect(account, Role::QueryApi).await;
    let error = log(client.clone()).follow(&["rv.user.*"], Start::LastOfEach).await.err().unwrap();
    assert!(matches!(&error, FollowError::TooManyConsumers { stream } if &**stream == "USERS"));
    assert!(error.to_string().contains("too many consumers on USERS: `roster doctor`"), "{error}");

    // What the operator sees of them, and does about them.
    let operator = log(connect(account, Role::Operator).await);
    let found = operator.consumers().await.unwrap();
    let found: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.stays())).collect();
    assert_eq!(found, [("z1", true), ("z2", true)]);
    assert!(operator.remove_consumer("z1").await.unwrap());
    assert!(!operator.remove_consumer("z1").await.unwrap());
    let _following = log(client).follow(&["rv.user.*"], Start::LastOfEach).await.unwrap();
    let found = operator.consumers().await.unwrap();
    let own = found.iter().find(|one| one.name.starts_with("follow-")).unwrap();
    assert!(!own.is_durable && !own.stays(), "{own:?}");
}
