//! Either side dies in the middle.

use std::sync::Arc;
use std::time::Duration;

use events::feed::FEED_STREAM;
use tokio::sync::Semaphore;

use super::support::{Bus, Consumers, Log, Running, told, until};

/// The subscriber is gone without a word while it works on an event, again and again: the same event comes
/// first, and nothing is out of order.
#[tokio::test]
async fn a_subscriber_that_dies_goes_on_where_it_was() {
    let ack_wait = Duration::from_millis(500);
    let bus = Bus::new(Consumers { ack_wait, ..Consumers::default() }).await;
    for revision in 1..=12 {
        bus.publish(&told(1, revision)).await;
    }
    let log = Log::new();
    let mut done = 0;
    for life in 1..=3_u64 {
        let gate = Arc::new(Semaphore::new(3));
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
        // Three are done, and it dies within the fourth.
        done += 3;
        let seen = log.has(usize::try_from(done + life).unwrap()).await;
        assert_eq!(seen.last(), Some(&(1, done + 1)));
        running.die().await;
    }
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    let seen: Vec<u64> = log.has(15).await.iter().map(|(_, revision)| *revision).collect();
    assert_eq!(seen, [1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11, 12]);
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
}

/// nats-server is killed with SIGKILL while events flow, several times.
#[tokio::test]
async fn a_server_that_is_killed_is_found_again() {
    const EVENTS: u64 = 600;
    let bus = Bus::with_server(Consumers::default()).await;
    let server = bus.server.as_ref().unwrap();
    for revision in 1..=EVENTS / 2 {
        bus.publish(&told(1, revision)).await;
    }
    let log = Log::new();
    // What the subscriber remembers while it runs must be enough here.
    let running = Running::start(bus.settings().without_revisions(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    for kill in 1..=3 {
        log.has(kill * 60).await;
        server.kill().unwrap();
        server.restart().unwrap();
    }
    log.has(usize::try_from(EVENTS / 2).unwrap()).await;
    // While nothing is to be had, and it waits.
    server.kill().unwrap();
    server.restart().unwrap();
    for revision in EVENTS / 2 + 1..=EVENTS {
        bus.publish(&told(1, revision)).await;
    }
    let seen = log.has(usize::try_from(EVENTS).unwrap()).await;
    let wanted: Vec<_> = (1..=EVENTS).map(|revision| (1, revision)).collect();
    assert_eq!(seen, wanted);
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
}

/// Server and subscriber die together: the server may not have written down what it had confirmed.
#[tokio::test]
async fn with_its_file_nothing_is_handled_twice_after_both_died() {
    const EVENTS: u64 = 200;
    let consumers = Consumers { ack_wait: Duration::from_secs(1), ..Consumers::default() };
    let bus = Bus::with_server(consumers).await;
    let server = bus.server.as_ref().unwrap();
    for revision in 1..=EVENTS {
        bus.publish(&told(1, revision)).await;
    }
    let log = Log::new();
    let handler = |log: &Log| {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    };
    let mut lives = 0;
    while log.all().len() < 150 {
        let running = Running::start(bus.settings(), handler(&log)).await;
        let before = log.all().len();
        log.has(before + 40).await;
        server.kill().unwrap();
        running.die().await;
        server.restart().unwrap();
        lives += 1;
    }
    let running = Running::start(bus.settings(), handler(&log)).await;
    until("the last event is handled", async || log.all().last() == Some(&(1, EVENTS))).await;
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
    let seen: Vec<u64> = log.all().iter().map(|(_, revision)| *revision).collect();
    // The gap between handler and file: at most the event in work, once per death.
    let twice = seen.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!(twice <= lives, "{seen:?}");
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1] || pair[0] + 1 == pair[1]), "{seen:?}");
}
