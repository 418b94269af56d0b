//! The states of all users first, then what happened since.

use std::time::Duration;

use events::feed::{FEED_STREAM, SNAPSHOTS_STREAM};

use super::support::{Bus, Consumers, Log, Refused, Running, deleted, snapshot, told, until, user};

fn with_snapshots() -> Consumers {
    Consumers { snapshots: true, ack_wait: Duration::from_secs(1), ..Consumers::default() }
}

/// Users 1 to 3 with states at revision 5, and what came since.
async fn bus() -> Bus {
    let bus = Bus::new(with_snapshots()).await;
    for of in 1..=3 {
        bus.publish_snapshot(&snapshot(of, 5)).await;
    }
    // Told before the states were taken down, so that it is in them already.
    bus.publish(&told(1, 5)).await;
    for of in 1..=3 {
        bus.publish(&told(of, 6)).await;
    }
    bus
}

const WANTED: [(u128, u64); 6] = [(1, 5), (2, 5), (3, 5), (1, 6), (2, 6), (3, 6)];

#[tokio::test]
async fn states_come_first_and_then_everything_since_once() {
    let bus = bus().await;
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    assert_eq!(log.has(6).await, WANTED);
    bus.is_done(FEED_STREAM).await;
    bus.is_done(SNAPSHOTS_STREAM).await;
    running.stop().await.unwrap();
    // The work queue is empty: a second start begins with the feed.
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    bus.publish(&told(1, 7)).await;
    assert_eq!(log.has(7).await[6..], [(1, 7)]);
    running.stop().await.unwrap();
}

/// Dies in the second state: it is the next one that comes, and nothing of the feed before the third.
#[tokio::test]
async fn dying_among_the_states_goes_on_there() {
    let bus = bus().await;
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            let log = log.clone();
            async move {
                if log.all().len() == 1 {
                    log.add(&event);
                    std::future::pending::<()>().await;
                }
                log.add(&event);
                Ok(())
            }
        }
    })
    .await;
    assert_eq!(log.has(2).await, WANTED[..2]);
    running.die().await;
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    assert_eq!(log.has(5).await, WANTED[1..]);
    running.stop().await.unwrap();
}

/// A state that cannot be handled holds up its user alone, in the feed as well.
#[tokio::test]
async fn a_state_that_is_parked_comes_before_later_events() {
    let bus = bus().await;
    let (log, refused) = (Log::new(), Refused::of(&[(2, 5)]));
    let running = Running::start(bus.settings(), {
        let (log, refused) = (log.clone(), refused.clone());
        move |event| {
            let outcome = refused.check(&event);
            if outcome.is_ok() {
                log.add(&event);
            }
            async { outcome }
        }
    })
    .await;
    assert_eq!(log.has(4).await, [(1, 5), (3, 5), (1, 6), (3, 6)]);
    bus.is_done(FEED_STREAM).await;
    refused.heal();
    bus.parked().retry(user(2)).unwrap();
    assert_eq!(log.has(6).await[4..], [(2, 5), (2, 6)]);
    running.stop().await.unwrap();
}

/// What the operator has replayed comes in between, while the feed is followed; what was handled is passed over.
#[tokio::test]
async fn what_is_replayed_is_taken_in_between_and_what_was_handled_is_not() {
    let bus = Bus::new(with_snapshots()).await;
    bus.publish(&told(1, 1)).await;
    bus.publish(&told(2, 1)).await;
    let log = Log::new();
    let running = Running::start(bus.settings(), {
        let log = log.clone();
        move |event| {
            log.add(&event);
            async { Ok(()) }
        }
    })
    .await;
    assert_eq!(log.has(2).await, [(1, 1), (2, 1)]);
    for event in [told(1, 1), told(3, 1), told(3, 2), deleted(2, 2)] {
        bus.publish_snapshot(&event).await;
    }
    assert_eq!(log.has(5).await[2..], [(3, 1), (3, 2), (2, 2)]);
    bus.is_done(SNAPSHOTS_STREAM).await;
    // And the feed goes on.
    bus.publish(&told(1, 2)).await;
    assert_eq!(log.has(6).await[5..], [(1, 2)]);
    bus.is_done(FEED_STREAM).await;
    running.stop().await.unwrap();
}

/// A deletion that is replayed removes what is parked of the user, as that of the feed does.
#[tokio::test]
async fn a_deletion_that_is_replayed_removes_what_is_parked() {
    let bus = Bus::new(with_snapshots()).await;
    bus.publish(&told(1, 1)).await;
    let log = Log::new();
    let settings = bus.settings().retry_for(Duration::ZERO);
    let running = Running::start(settings, {
        let log = log.clone();
        move |event| {
            log.add(&event);
            let is_told = event.revision.0 > 1;
            async move { if is_told { Ok(()) } else { Err("not this one".to_owned()) } }
        }
    })
    .await;
    until("the event to be parked", async || bus.parked().list().unwrap().len() == 1).await;
    bus.publish_snapshot(&deleted(1, 2)).await;
    until("the parked to be removed", async || bus.parked().list().unwrap().is_empty()).await;
    assert_eq!(log.has(2).await, [(1, 1), (1, 2)]);
    running.stop().await.unwrap();
}
