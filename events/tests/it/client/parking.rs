//! An event that cannot be handled is put aside with its user.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use events::client::ClientError;
use events::feed::{FEED_STREAM, FeedEvent};

use super::support::{Bus, Consumers, Log, Refused, Running, Seen, deleted, told, until, user};

async fn start(bus: &Bus, log: &Log, refused: &Refused) -> Running {
    let (log, refused) = (log.clone(), refused.clone());
    Running::start(bus.settings(), move |event: FeedEvent| {
        let outcome = refused.check(&event);
        if outcome.is_ok() {
            log.add(&event);
        }
        async { outcome }
    })
    .await
}

fn parked(bus: &Bus) -> Vec<Seen> {
    let parked = bus.parked().list().unwrap();
    parked.iter().map(|of| (of.user.as_uuid().as_u128() & 0xffff, of.sequence)).collect()
}

#[tokio::test]
async fn a_poison_event_holds_up_its_user_alone_and_a_retry_heals_in_order() {
    let bus = Bus::new(Consumers::default()).await;
    for revision in 1..=3 {
        for of in 1..=2 {
            bus.publish(&told(of, revision)).await;
        }
    }
    let (log, refused) = (Log::new(), Refused::of(&[(1, 2)]));
    let running = start(&bus, &log, &refused).await;
    // All but the second event of the first user, and what comes behind it.
    assert_eq!(log.has(4).await, [(1, 1), (2, 1), (2, 2), (2, 3)]);
    bus.is_done(FEED_STREAM).await;
    assert_eq!(parked(&bus), [(1, 3), (1, 5)]);
    let first = &bus.parked().list().unwrap()[0];
    assert_eq!(first.reason, "refused by the test");
    assert_eq!(FeedEvent::from_json(&first.payload).unwrap(), told(1, 2));
    let file = bus.state().join("parked").join(user(1).to_string()).join("0000000001");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);

    // A retry that is too early changes nothing, and what comes in between waits behind it.
    bus.parked().retry(user(1)).unwrap();
    bus.publish(&told(1, 4)).await;
    until("the later event is parked too", async || parked(&bus).len() == 3).await;
    until("the request was taken up", async || requests(&bus) == 0).await;
    assert_eq!(log.all().len(), 4);

    // It is there after a restart, and so is a request that was made in between.
    running.stop().await.unwrap();
    refused.heal();
    bus.parked().retry(user(1)).unwrap();
    let running = start(&bus, &log, &refused).await;
    assert_eq!(log.has(7).await[4..], [(1, 2), (1, 3), (1, 4)]);
    until("nothing is parked", async || parked(&bus).is_empty()).await;
    // The lane is open again.
    bus.publish(&told(1, 5)).await;
    assert_eq!(log.has(8).await[7..], [(1, 5)]);
    running.stop().await.unwrap();
}

fn requests(bus: &Bus) -> usize {
    fs::read_dir(bus.state().join("requests")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn the_first_can_be_dropped_or_all_of_them() {
    let bus = Bus::new(Consumers::default()).await;
    for revision in 1..=3 {
        for of in 1..=2 {
            bus.publish(&told(of, revision)).await;
        }
    }
    let (log, refused) = (Log::new(), Refused::of(&[(1, 1), (2, 1)]));
    let running = start(&bus, &log, &refused).await;
    until("all are parked", async || parked(&bus).len() == 6).await;
    bus.parked().skip(user(1)).unwrap();
    assert_eq!(log.has(2).await, [(1, 2), (1, 3)]);
    bus.parked().drop(user(2)).unwrap();
    until("nothing is parked", async || parked(&bus).is_empty()).await;
    assert_eq!(log.all(), [(1, 2), (1, 3)]);
    running.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_with_the_user_of_its_subject() {
    let bus = Bus::new(Consumers::default()).await;
    bus.publish_raw(&format!("users.v1.enabled.{}", user(1)), b"{\"specversion\":\"1.0\"".to_vec())
        .await;
    bus.publish(&told(1, 2)).await;
    bus.publish(&told(2, 1)).await;
    let (log, refused) = (Log::new(), Refused::default());
    let running = start(&bus, &log, &refused).await;
    assert_eq!(log.has(1).await, [(2, 1)]);
    bus.is_done(FEED_STREAM).await;
    assert_eq!(parked(&bus), [(1, 1), (1, 2)]);
    let first = &bus.parked().list().unwrap()[0];
    assert!(first.reason.starts_with("it cannot be read"), "{}", first.reason);
    assert_eq!(first.payload, b"{\"specversion\":\"1.0\"");
    bus.parked().retry(user(1)).unwrap();
    until("the request was taken up", async || requests(&bus) == 0).await;
    assert_eq!(parked(&bus), [(1, 1), (1, 2)]);
    bus.parked().skip(user(1)).unwrap();
    assert_eq!(log.has(2).await, [(2, 1), (1, 2)]);
    running.stop().await.unwrap();
}

/// A handler that panics is one that fails.
#[tokio::test]
async fn a_panic_parks_the_event() {
    let bus = Bus::new(Consumers::default()).await;
    bus.publish(&told(1, 1)).await;
    bus.publish(&told(2, 1)).await;
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            assert!(event != told(1, 1), "poison");
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    assert_eq!(log.has(1).await, [(2, 1)]);
    assert_eq!(bus.parked().list().unwrap()[0].reason, "the handler panicked");
    running.stop().await.unwrap();
}

#[tokio::test]
async fn a_deletion_takes_what_is_parked_of_the_user_with_it() {
    let bus = Bus::new(Consumers::default()).await;
    for revision in 1..=3 {
        bus.publish(&told(1, revision)).await;
    }
    bus.publish(&told(2, 1)).await;
    let (log, refused) = (Log::new(), Refused::of(&[(1, 2), (2, 1)]));
    let running = start(&bus, &log, &refused).await;
    until("three are parked", async || parked(&bus).len() == 3).await;
    bus.publish(&deleted(1, 4)).await;
    assert_eq!(log.has(2).await, [(1, 1), (1, 4)]);
    bus.is_done(FEED_STREAM).await;
    // Nobody else's.
    assert_eq!(parked(&bus), [(2, 4)]);
    assert!(!holds(&bus, "u1@example.com"), "an address of a deleted user");
    assert!(holds(&bus, "u2@example.com"));

    // What comes late of a user who is gone does not bring them back.
    bus.publish(&told(1, 3)).await;
    bus.publish(&told(3, 1)).await;
    assert_eq!(log.has(3).await[2..], [(3, 1)]);
    running.stop().await.unwrap();
}

/// Whether a word stands in any file of the state folder.
fn holds(bus: &Bus, word: &str) -> bool {
    fn any(folder: &std::path::Path, word: &str) -> bool {
        fs::read_dir(folder).unwrap().any(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                return any(&path, word);
            }
            String::from_utf8_lossy(&fs::read(path).unwrap()).contains(word)
        })
    }
    any(&bus.state(), word)
}

/// A handler that can do nothing at all must not set the whole world aside.
#[tokio::test]
async fn when_too_much_is_parked_it_ends_and_loses_nothing() {
    let bus = Bus::new(Consumers::default()).await;
    for of in 1..=4 {
        bus.publish(&told(of, 1)).await;
    }
    let refused = Refused::of(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
    let settings = bus.settings().parked_events_max(2).retry_for(Duration::ZERO);
    let handler = {
        let refused = refused.clone();
        move |event: FeedEvent| {
            let outcome = refused.check(&event);
            async { outcome }
        }
    };
    let error = Running::start(settings, handler).await.ended().await.unwrap_err();
    assert!(matches!(error, ClientError::ParkedFull(2)), "{error}");
    assert_eq!(parked(&bus), [(1, 1), (2, 2)]);

    refused.heal();
    for of in 1..=2 {
        bus.parked().retry(user(of)).unwrap();
    }
    let log = Log::new();
    let running = start(&bus, &log, &refused).await;
    let mut seen = log.has(4).await;
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 1), (3, 1), (4, 1)]);
    running.stop().await.unwrap();
}

/// What the server stores as the answer to a question is about nobody, whomever its subject names.
#[tokio::test]
async fn a_message_that_roster_did_not_write_is_passed_over() {
    let bus = Bus::new(Consumers::default()).await;
    bus.publish(&told(1, 1)).await;
    for kind in ["deleted", "enabled"] {
        bus.publish_foreign(&format!("users.v1.{kind}.{}", user(1))).await;
    }
    bus.publish(&told(1, 2)).await;
    let (log, refused) = (Log::new(), Refused::default());
    let running = start(&bus, &log, &refused).await;
    assert_eq!(log.has(2).await, [(1, 1), (1, 2)]);
    bus.is_done(FEED_STREAM).await;
    assert_eq!(parked(&bus), []);
    running.stop().await.unwrap();
}
