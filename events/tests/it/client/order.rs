//! Order, stopping, and handlers that take their time.

use std::sync::Arc;
use std::time::Duration;

use events::client::ClientError;
use events::client::{Settings, Subscriber};
use events::feed::{FEED_STREAM, Happened};
use tokio::sync::Semaphore;

use super::support::{Bus, Consumers, Log, NAME, Running, WAIT_MAX, told, until};

/// Three users, whose events are interleaved.
const USERS: u128 = 3;

#[tokio::test]
async fn events_come_in_the_order_of_the_feed_and_are_acknowledged() {
    let bus = Bus::new(Consumers::default()).await;
    let mut wanted = Vec::new();
    for revision in 1..=20 {
        for user in 0..USERS {
            bus.publish(&told(user, revision)).await;
            wanted.push((user, revision));
        }
    }
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    assert_eq!(log.has(wanted.len()).await, wanted);
    // One that comes while it waits.
    bus.publish(&told(0, 21)).await;
    wanted.push((0, 21));
    assert_eq!(log.has(wanted.len()).await, wanted);
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
    assert_eq!(bus.consumer(FEED_STREAM).await.num_redelivered, 0);
}

/// With more in flight different users are worked on side by side, and each still in order.
#[tokio::test]
async fn with_more_in_flight_each_user_is_in_order() {
    let bus = Bus::new(Consumers { in_flight: 100, ..Consumers::default() }).await;
    for revision in 1..=20 {
        for user in 0..USERS {
            bus.publish(&told(user, revision)).await;
        }
    }
    let (log, gate) = (Log::new(), Arc::new(Semaphore::new(0)));
    let running = Running::start(bus.settings(), {
        let (log, gate) = (log.clone(), Arc::clone(&gate));
        move |event| {
            let (log, gate) = (log.clone(), Arc::clone(&gate));
            async move {
                log.add(&event);
                gate.acquire().await.unwrap().forget();
                Ok(())
            }
        }
    })
    .await;
    // One of each is being worked on, none of them done.
    assert_eq!(log.has(3).await.len(), 3);
    gate.add_permits(1_000);
    let seen = log.has(60).await;
    for user in 0..USERS {
        let of: Vec<u64> = seen.iter().filter(|(of, _)| *of == user).map(|(_, n)| *n).collect();
        assert_eq!(of, (1..=20).collect::<Vec<_>>(), "user {user}");
    }
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
}

#[tokio::test]
async fn stopping_finishes_what_is_begun_and_gives_the_rest_back() {
    let bus = Bus::new(Consumers { in_flight: 10, ..Consumers::default() }).await;
    for revision in 1..=5 {
        bus.publish(&told(1, revision)).await;
    }
    let (log, gate) = (Log::new(), Arc::new(Semaphore::new(0)));
    let running = Running::start(bus.settings(), {
        let (log, gate) = (log.clone(), Arc::clone(&gate));
        move |event| {
            let (log, gate) = (log.clone(), Arc::clone(&gate));
            async move {
                gate.acquire().await.unwrap().forget();
                log.add(&event);
                Ok(())
            }
        }
    })
    .await;
    until("all are given out", async || bus.consumer(FEED_STREAM).await.num_ack_pending == 5).await;
    running.cancel();
    gate.add_permits(5);
    running.ended().await.unwrap();
    assert_eq!(log.all(), [(1, 1)]);
    let info = bus.consumer(FEED_STREAM).await;
    assert_eq!(info.ack_floor.stream_sequence, 1, "the one that was begun is acknowledged");

    // The next one has the rest at once, long before `ack_wait` is over.
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    let seen = tokio::time::timeout(Duration::from_secs(10), log.has(5)).await.unwrap();
    assert_eq!(seen, [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
    running.stop().await.unwrap();
}

/// The server is told that an event is being worked on, also when the handler keeps its thread busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_slower_than_ack_wait_is_called_once() {
    let ack_wait = Duration::from_secs(1);
    let bus = Bus::new(Consumers { ack_wait, ..Consumers::default() }).await;
    bus.publish(&told(1, 1)).await;
    bus.publish(&told(1, 2)).await;
    let log = Log::new();
    // Without the memory of what was handled, which would hide that an event came again.
    let running = Running::start(bus.settings().without_revisions(), {
        let log = log.clone();
        move |event| {
            let log = log.clone();
            async move {
                log.add(&event);
                if event.revision.0 == 1 {
                    tokio::time::sleep(ack_wait * 3).await;
                } else {
                    std::thread::sleep(ack_wait * 3);
                }
                Ok(())
            }
        }
    })
    .await;
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
    assert_eq!(log.all(), [(1, 1), (1, 2)]);
    assert_eq!(bus.consumer(FEED_STREAM).await.num_redelivered, 0);
}

#[tokio::test]
async fn a_type_that_is_not_known_yet_reaches_the_handler_as_it_is() {
    let bus = Bus::new(Consumers::default()).await;
    let mut json: serde_json::Value =
        serde_json::from_slice(&told(1, 2).to_json().unwrap()).unwrap();
    json["type"] = "users.v1.promoted".into();
    json["subject"] = "somebody or other".into();
    let subject = format!("users.v1.promoted.{}", super::support::user(1));
    bus.publish_raw(&subject, json.to_string().into_bytes()).await;
    bus.publish(&told(2, 1)).await;
    let (log, kinds) = (Log::new(), Arc::new(std::sync::Mutex::new(Vec::new())));
    let running = Running::start(bus.settings(), {
        let (log, kinds) = (log.clone(), Arc::clone(&kinds));
        move |event| {
            kinds.lock().unwrap().push(event.happened.kind().to_owned());
            assert_eq!(
                matches!(event.happened, Happened::Other { .. }),
                event.revision.0 == 2,
                "{event:?}"
            );
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    log.has(2).await;
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
    assert_eq!(*kinds.lock().unwrap(), ["users.v1.promoted", "users.v1.registered"]);
    assert!(bus.parked().list().unwrap().is_empty());
}

#[tokio::test]
async fn what_cannot_work_says_so() {
    let bus = Bus::new(Consumers::default()).await;
    let first = Subscriber::connect(bus.settings()).await.unwrap();
    let error = Subscriber::connect(bus.settings()).await.unwrap_err();
    assert!(matches!(error, ClientError::InUse { .. }), "{error}");
    drop(first);

    let creds = bus.folder.path().join("mailer.creds");
    let settings = Settings::new(&bus.url, "Not A Name", creds, bus.state());
    let error = Subscriber::connect(settings).await.unwrap_err();
    assert!(matches!(error, ClientError::Name(_)), "{error}");

    let settings = Settings::new(&bus.url, NAME, bus.folder.path().join("none"), bus.state());
    let error = Subscriber::connect(settings).await.unwrap_err();
    assert!(matches!(error, ClientError::Creds { .. }), "{error}");

    // Removed by the operator while it runs.
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    bus.publish(&told(1, 1)).await;
    log.has(1).await;
    bus.is_done(FEED_STREAM).await;
    bus.jetstream.delete_consumer_from_stream(NAME, FEED_STREAM).await.unwrap();
    let error = tokio::time::timeout(WAIT_MAX, running.ended()).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::NoConsumer { .. }), "{error}");
}
