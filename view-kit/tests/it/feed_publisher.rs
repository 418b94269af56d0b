//! The publisher of a feed, whatever happens to it, its log and its feed.

use std::time::Duration;

use async_nats::{Client, jetstream};
use events::{DecodeError, ServiceNames};
use futures::StreamExt;
use service_kit::event_log::{
    EVENT_TYPE_HEADER, EventLog, Followed, Limits, SILENCE_DEFAULT, Sequel, service_feed_stream,
};
use service_kit::health::Readiness;
use service_kit::metrics::Metrics;
use service_kit::telemetry::Telemetry;
use service_kit::trace::Tracer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use view_kit::FollowLimits;
use view_kit::feed_publisher::{Feed, FeedPublisher, FeedSource, PublishError, SourceLog};

use crate::support::{client, garble, log, make_stream, say, wait_for};

const NAMES: ServiceNames = ServiceNames::fixed("note", "notes");

/// Header with the position in the log.
const HEADER: &str = "Notes-Position";
/// What cannot be read.
const UNREADABLE: &[u8] = br#"{"text": 7}"#;

/// Publishes every message as it is.
struct Copied;

impl FeedSource for Copied {
    type Event = Sequel;

    fn event(&self, message: &Followed) -> Result<Option<Sequel>, DecodeError> {
        if &*message.payload == UNREADABLE {
            return Err(DecodeError::Inconsistent("a text that is a number"));
        }
        Ok(Some(Sequel {
            subject: message.subject.replace("ev.note.", "notes.v1.said."),
            payload: message.payload.clone(),
            headers: vec![(EVENT_TYPE_HEADER, "notes.v1.said".to_owned())],
            kept: None,
        }))
    }

    async fn messages(&self, events: Vec<Sequel>) -> Result<Vec<Option<Sequel>>, PublishError> {
        Ok(events.into_iter().map(Some).collect())
    }
}

async fn make_feed(client: &Client) {
    feed(client).provision(&service_feed_stream(&NAMES, 1, 1 << 20)).await.unwrap();
}

fn feed(client: &Client) -> EventLog {
    let limits = Limits {
        request_timeout: Duration::from_secs(2),
        append_deadline: Duration::from_secs(5),
        silence_max: SILENCE_DEFAULT,
    };
    EventLog::new(client.clone(), &NAMES.feed_stream(), limits)
}

fn publisher(client: &Client) -> (Readiness, JoinHandle<()>) {
    let limits = FollowLimits {
        batch_events_max: 3,
        parked_max: 1,
        operation_timeout: Duration::from_secs(5),
        lag_max: Duration::from_secs(60),
    };
    let watch = Telemetry { metrics: Metrics::new("notes"), tracer: Tracer::default() };
    let filters = vec!["ev.note.*".to_owned()];
    let feed = Feed {
        source: Copied,
        logs: vec![SourceLog { log: log(client), filters, header: HEADER }],
        stream: feed(client),
        name: "NOTE_EVENTS",
        subjects: NAMES.feed_subjects().to_vec(),
        check: "feed",
        parked_list: "the list",
    };
    let publisher = FeedPublisher::of(feed, limits, None, &watch);
    let readiness = publisher.readiness();
    (readiness, tokio::spawn(async move { publisher.run(&CancellationToken::new()).await }))
}

/// The positions in the log of the messages in the feed.
async fn published(client: &Client) -> Vec<u64> {
    let stream = jetstream::new(client.clone()).get_stream(NAMES.feed_stream()).await.unwrap();
    let count = usize::try_from(stream.cached_info().state.messages).unwrap();
    let consumer = stream.create_consumer(jetstream::consumer::pull::Config::default());
    let messages = consumer.await.unwrap().messages().await.unwrap().take(count);
    let position = |message: Result<jetstream::Message, _>| {
        let headers = message.unwrap().message.headers.unwrap();
        headers.get(HEADER).unwrap().as_str().parse::<u64>().unwrap()
    };
    messages.map(position).collect().await
}

#[tokio::test]
async fn publishers_that_race_and_are_killed_publish_each_event_once_and_in_order() {
    let client = client().await;
    let log = make_stream(&client, "one").await;
    make_feed(&client).await;
    let (_, mut first) = publisher(&client);
    let (readiness, second) = publisher(&client);
    for n in 1..=60_u64 {
        say(&log, &format!("n{}", n % 7), &n.to_string()).await;
        if n % 10 == 0 {
            first.abort();
            first = publisher(&client).1;
        }
    }
    let all: Vec<u64> = (1..=60).collect();
    wait_for("everything to be published", async || published(&client).await.len() >= 60).await;
    assert_eq!(published(&client).await, all);
    assert_eq!(readiness.check().await, Ok(()));
    first.abort();
    second.abort();
}

#[tokio::test]
async fn a_log_that_ends_before_the_feed_is_refused() {
    let client = client().await;
    let log = make_stream(&client, "one").await;
    make_feed(&client).await;
    for text in ["first", "second"] {
        say(&log, "a", text).await;
    }
    let (_, first) = publisher(&client);
    wait_for("both to be published", async || published(&client).await == [1, 2]).await;
    first.abort();

    jetstream::new(client.clone()).delete_stream("NOTES").await.unwrap();
    let log = make_stream(&client, "two").await;
    say(&log, "a", "restored").await;
    let (readiness, second) = publisher(&client);
    let why = "the feed is published through 2 of NOTES, but the log ends at 1: they do not belong together";
    let refused = async || readiness.check().await == Err(vec![("feed", why.to_owned())]);
    wait_for("the refusal", refused).await;
    assert_eq!(published(&client).await, [1, 2]);
    second.abort();
}

#[tokio::test]
async fn a_parked_aggregate_keeps_its_order_when_it_can_be_read_again() {
    let client = client().await;
    let log = make_stream(&client, "one").await;
    make_feed(&client).await;
    say(&log, "a", "first").await;
    let unreadable = garble(&log, "a").await;
    say(&log, "a", "third").await;
    say(&log, "b", "fourth").await;
    let (readiness, first) = publisher(&client);
    let parked = async || {
        readiness.check().await == Err(vec![("feed", "1 parked: see the list".to_owned())])
    };
    wait_for("the rest to be published", parked).await;
    assert_eq!(published(&client).await, [1, 4]);

    garble(&log, "b").await;
    let stopped = async || {
        readiness
            .check()
            .await
            .is_err_and(|why| why[0].1.contains("position 5 of NOTES cannot be read"))
    };
    wait_for("the publisher to stop", stopped).await;
    first.abort();

    let notes = jetstream::new(client.clone()).get_stream("NOTES").await.unwrap();
    for sequence in [unreadable.0, 5] {
        notes.delete_message(sequence).await.unwrap();
    }
    let (_, second) = publisher(&client);
    // The position stays: nothing between is published again.
    wait_for("the parked one to be published", async || published(&client).await == [1, 4, 4])
        .await;
    say(&log, "a", "sixth").await;
    wait_for("the next one", async || published(&client).await == [1, 4, 4, 6]).await;
    second.abort();
}
