//! A stream with one writer: what is let in behind the last message, as the server really does it.

use std::time::Duration;

use events::Position;
use events::feed::FEED_STREAM_SUBJECTS;
use futures::future::join_all;
use nats_access::Role;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Outcome, Sequel, feed_stream};
use tokio::time::{sleep, timeout};

use crate::support::{BYTES_MAX, account, connect, limits};

async fn feed() -> EventLog {
    feed_and_operator().await.0
}

fn operator_log(operator: async_nats::Client) -> EventLog {
    EventLog::new(operator, "USER_EVENTS", limits())
}

async fn feed_and_operator() -> (EventLog, async_nats::Client) {
    let account = account();
    let mut settings = Settings::merge("", []).unwrap();
    settings.feed.bytes_max = BYTES_MAX;
    let log = async |role| EventLog::new(connect(account, role).await, "USER_EVENTS", limits());
    let spec = feed_stream(&settings.log, &settings.feed);
    log(Role::Operator).await.provision(&spec).await.unwrap();
    let feed = log(Role::Projector).await;
    feed.verify(&spec).await.unwrap();
    (feed, connect(account, Role::Operator).await)
}

fn messages(from: u64, count: u64) -> Vec<Sequel> {
    let message = |n: u64| Sequel {
        subject: format!("users.v1.registered.{n}"),
        payload: "{}".into(),
        headers: vec![
            ("Roster-Event-Type", "users.v1.registered".to_owned()),
            ("Roster-Users-Position", n.to_string()),
        ],
        kept: None,
    };
    (from..from + count).map(message).collect()
}

#[tokio::test]
async fn what_does_not_know_the_last_message_is_not_let_in() {
    let feed = feed().await;
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await.unwrap();
    assert_eq!((tail.end, tail.last.is_none()), (Position(0), true));

    let stored = |n| Outcome::Stored(Position(n));
    assert_eq!(feed.append_behind(Position(0), &messages(1, 1)).await, stored(1));
    assert_eq!(feed.append_behind(Position(0), &messages(1, 1)).await, Outcome::Conflict);
    assert_eq!(feed.append_behind(Position(1), &messages(2, 998)).await, stored(999));
    // A batch again: whole, or not at all.
    assert_eq!(feed.append_behind(Position(1), &messages(2, 998)).await, Outcome::Conflict);
    assert_eq!(feed.append_behind(Position(500), &messages(2, 3)).await, Outcome::Conflict);
    assert_eq!(feed.append_behind(Position(2_000), &messages(2, 3)).await, Outcome::Conflict);
    assert_eq!(feed.append_behind(Position(999), &messages(1_000, 1_000)).await, stored(1_999));

    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await.unwrap();
    assert_eq!(tail.end, Position(1_999));
    let last = tail.last.unwrap();
    assert_eq!(last.position, Position(1_999));
    assert_eq!(last.subject, "users.v1.registered.1999");
    assert_eq!(last.header("Roster-Users-Position").as_deref(), Some("1999"));
}

/// Two writers that both look and write: every number is there once, and in order.
#[tokio::test]
async fn of_two_writers_each_message_comes_from_one() {
    const LAST: u64 = 300;
    let feed = feed().await;
    let write = async |chunk: u64| loop {
        let tail = feed.tail(&FEED_STREAM_SUBJECTS).await.unwrap();
        let next = tail.last.map_or(1, |last| {
            last.header("Roster-Users-Position").unwrap().parse::<u64>().unwrap() + 1
        });
        if next > LAST {
            break;
        }
        let count = chunk.min(LAST + 1 - next);
        let outcome = feed.append_behind(tail.end, &messages(next, count)).await;
        assert!(matches!(outcome, Outcome::Stored(_) | Outcome::Conflict), "{outcome:?}");
    };
    join_all([1, 3, 7].map(write)).await;
    assert_eq!(feed.end().await.unwrap(), Position(LAST));
    for n in [1, 2, LAST / 2, LAST] {
        let message = feed.at(Position(n)).await.unwrap().unwrap();
        assert_eq!(message.subject, format!("users.v1.registered.{n}"));
    }
}

/// The last message may have gone when its time was over. The stream still knows how long it is, and what
/// is left of it says where its writer was.
#[tokio::test]
async fn the_end_of_a_stream_outlives_its_last_message() {
    let feed = feed().await;
    assert_eq!(
        feed.append_behind(Position(0), &messages(1, 2)).await,
        Outcome::Stored(Position(2))
    );
    let mut brief = messages(3, 2);
    for message in &mut brief {
        message.kept = Some(Duration::from_secs(1));
    }
    assert_eq!(feed.append_behind(Position(2), &brief).await, Outcome::Stored(Position(4)));
    let gone = async {
        loop {
            let tail = feed.tail(&FEED_STREAM_SUBJECTS).await.unwrap();
            assert_eq!(tail.end, Position(4));
            if tail.last.unwrap().position == Position(2) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(20), gone).await.expect("the messages go when their time is over");
    assert_eq!(feed.append_behind(Position(2), &messages(5, 1)).await, Outcome::Conflict);
    assert_eq!(
        feed.append_behind(Position(4), &messages(5, 1)).await,
        Outcome::Stored(Position(5))
    );
}

#[tokio::test]
async fn the_end_is_found_beneath_messages_that_the_writer_did_not_write() {
    let (feed, operator) = feed_and_operator().await;
    feed.append_behind(Position(0), &messages(1, 3)).await;
    let answer = || {
        bytes::Bytes::from_static(b"{\"type\":\"io.nats.jetstream.api.v1.stream_info_response\"}")
    };
    for n in 1..=5 {
        let subject = format!("users.v1.deleted.{n}");
        operator.request(subject, answer()).await.unwrap();
    }
    // One of them was taken out already.
    operator_log(operator.clone()).erase(Position(6)).await.unwrap();
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await.unwrap();
    assert_eq!((tail.end, tail.last.unwrap().position), (Position(8), Position(3)));
    // The writer goes on behind them.
    let stored = feed.append_behind(Position(8), &messages(4, 1)).await;
    assert_eq!(stored, Outcome::Stored(Position(9)));
    assert_eq!(feed.next_own(">", Position(3)).await.unwrap().unwrap().position, Position(9));
}

#[tokio::test]
async fn a_stream_with_nothing_of_its_writer_has_an_end_and_no_last_message() {
    let (feed, operator) = feed_and_operator().await;
    operator.request("users.v1.deleted.x", "{}".into()).await.unwrap();
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await.unwrap();
    assert_eq!((tail.end, tail.last.is_none()), (Position(1), true));
}
