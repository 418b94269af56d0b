//! A nats-server with the streams of the feed and nothing else of Roster: for subscribers that are tried with
//! more than a system would tell in a test's time. What the feed says is written here, by the operator.

#![allow(clippy::disallowed_methods, reason = "here the feed is written as a test needs it")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::{ConnectOptions, HeaderMap, jetstream};
use events::feed::{
    FEED_STREAM, FEED_STREAM_SUBJECTS, FeedEvent, SNAPSHOTS_STREAM, SNAPSHOTS_STREAM_SUBJECTS,
    snapshot, snapshots_for,
};
use local_stack::testing::{TempDir, binaries, temp_dir};
use local_stack::{DataDir, NatsOptions, NatsServer};
use nats_access::{Role, SubscriberName, TestTrust};

use crate::wait_for;

/// The server, and one subscriber with its credentials in [`FeedBus::file`]`("NAME.creds")`.
pub struct FeedBus {
    /// The server, which may be killed.
    pub server: NatsServer,
    context: jetstream::Context,
    name: String,
    folder: TempDir,
}

impl FeedBus {
    /// Starts it, with a subscriber that begins with snapshots.
    pub async fn with_subscriber(name: &str, ack_wait: Duration) -> Self {
        let trust = TestTrust::with_accounts(1);
        let folder = temp_dir();
        let config = trust.server_config().unwrap();
        let data_dir = DataDir::open(folder.path().join("server")).unwrap().nats();
        let options = NatsOptions { data_dir, port: None, config };
        let server = NatsServer::start(binaries(), options).unwrap();
        let account = trust.account(0);
        let client = ConnectOptions::with_credentials(&account.creds(Role::Operator).unwrap())
            .unwrap()
            .custom_inbox_prefix(Role::Operator.inbox_prefix())
            .connect(server.url())
            .await
            .unwrap();
        let creds = account.subscriber_creds(&SubscriberName::parse(name).unwrap()).unwrap();
        std::fs::write(folder.path().join(format!("{name}.creds")), creds).unwrap();
        let context = jetstream::new(client);
        let bus = Self { server, context, name: name.to_owned(), folder };
        bus.provision(ack_wait).await;
        bus
    }

    async fn provision(&self, ack_wait: Duration) {
        let snapshots = snapshots_for(&self.name);
        for (name, subjects, retention, filter) in [
            (FEED_STREAM, &FEED_STREAM_SUBJECTS[..], RetentionPolicy::Limits, ""),
            (
                SNAPSHOTS_STREAM,
                &SNAPSHOTS_STREAM_SUBJECTS[..],
                RetentionPolicy::WorkQueue,
                &*snapshots,
            ),
        ] {
            let config = Config {
                name: name.to_owned(),
                subjects: subjects.iter().copied().map(str::to_owned).collect(),
                retention,
                max_bytes: 64 << 20,
                ..Config::default()
            };
            self.context.create_stream(config).await.unwrap();
            let config = pull::Config {
                durable_name: Some(self.name.clone()),
                filter_subject: filter.to_owned(),
                ack_policy: AckPolicy::Explicit,
                ack_wait,
                max_deliver: -1,
                max_ack_pending: 1,
                ..pull::Config::default()
            };
            self.context.create_consumer_on_stream(config, name).await.unwrap();
        }
    }

    /// Puts an event into the feed.
    pub async fn publish(&self, event: &FeedEvent) {
        self.publish_as(&event.nats_subject().unwrap(), event).await;
    }

    /// Puts a state into the subscriber's work queue.
    pub async fn publish_snapshot(&self, event: &FeedEvent) {
        let user = event.happened.user_id().unwrap();
        self.publish_as(&snapshot(&self.name, user), event).await;
    }

    /// Puts an event under a subject of the test's choice.
    pub async fn publish_as(&self, subject: &str, event: &FeedEvent) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        // A server that was killed a moment ago may not be found again yet; the id keeps a second attempt
        // from being a second message.
        wait_for("the feed to take a message", || async {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            headers.insert("Roster-Event-Type", event.happened.kind());
            let (subject, payload) = (subject.to_owned(), event.to_json().unwrap().into());
            match self.context.publish_with_headers(subject, headers, payload).await {
                Ok(stored) => stored.await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    /// Whether the subscriber has acknowledged everything.
    pub async fn is_done(&self) -> bool {
        for stream in [SNAPSHOTS_STREAM, FEED_STREAM] {
            let consumer: Result<PullConsumer, _> =
                self.context.get_consumer_from_stream(&self.name, stream).await;
            // A server that starts may not answer yet.
            let Ok(consumer) = consumer else { return false };
            let info = consumer.cached_info();
            if info.num_pending > 0 || info.num_ack_pending > 0 {
                return false;
            }
        }
        true
    }

    /// Whether the subscriber waits for the next message of the feed.
    pub async fn is_asked(&self) -> bool {
        let consumer: Result<PullConsumer, _> =
            self.context.get_consumer_from_stream(&self.name, FEED_STREAM).await;
        consumer.is_ok_and(|consumer| consumer.cached_info().num_waiting > 0)
    }

    /// Removes the consumer of the feed, as `roster subscribers remove` does.
    pub async fn remove_subscriber(&self) {
        self.context.delete_consumer_from_stream(&self.name, FEED_STREAM).await.unwrap();
    }

    /// A file in the folder of this test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
