//! A server, its streams as the operator makes them, and handlers that write down what they got.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_nats::{ConnectOptions, HeaderMap, jetstream};
use events::client::{ClientError, Parked, Settings, Subscriber};
use events::feed::{
    FEED_STREAM, FEED_STREAM_SUBJECTS, FeedEvent, Happened, ProfileChange, PublicUser,
    Registration, SNAPSHOTS_STREAM, SNAPSHOTS_STREAM_SUBJECTS, Status, UserChanged, UserData,
};
use events::{Actor, Position, Revision, Timestamp, UserId};
use local_stack::testing::{TempDir, binaries, temp_dir};
use local_stack::{DataDir, NatsOptions, NatsServer};
use nats_access::{Account, Role, SubscriberName, TestTrust};
use serde_json::Map;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long anything that must happen may take.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
pub const NAME: &str = "mailer";
const ACCOUNTS: usize = 32;

/// An account of its own on some server, with the streams of the feed and one subscriber.
pub struct Bus {
    pub url: String,
    pub jetstream: jetstream::Context,
    pub folder: TempDir,
    /// A server that this test alone has.
    pub server: Option<NatsServer>,
}

/// How the consumers of the subscriber are made.
#[derive(Clone, Copy)]
pub struct Consumers {
    pub in_flight: i64,
    pub ack_wait: Duration,
    pub snapshots: bool,
}

impl Default for Consumers {
    fn default() -> Self {
        Self { in_flight: 1, ack_wait: Duration::from_secs(30), snapshots: false }
    }
}

impl Bus {
    /// On the server that all tests share.
    pub async fn new(consumers: Consumers) -> Self {
        static TRUST: OnceLock<TestTrust> = OnceLock::new();
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let trust = TRUST.get_or_init(|| TestTrust::with_accounts(ACCOUNTS));
        let account = trust.account(NEXT.fetch_add(1, Ordering::Relaxed));
        let url = local_stack::testing::nats(|| trust.server_config().unwrap()).url();
        Self::provisioned(url, account, None, temp_dir(), consumers).await
    }

    /// On a server that may be killed.
    pub async fn with_server(consumers: Consumers) -> Self {
        let trust = TestTrust::with_accounts(1);
        let folder = temp_dir();
        let config = trust.server_config().unwrap();
        let data_dir = DataDir::open(folder.path().join("server")).unwrap().nats();
        let options = NatsOptions { data_dir, port: None, config };
        let server = NatsServer::start(binaries(), options).unwrap();
        Self::provisioned(server.url(), trust.account(0), Some(server), folder, consumers).await
    }

    async fn provisioned(
        url: String,
        account: &Account,
        server: Option<NatsServer>,
        folder: TempDir,
        consumers: Consumers,
    ) -> Self {
        let operator = ConnectOptions::with_credentials(&account.creds(Role::Operator).unwrap())
            .unwrap()
            .custom_inbox_prefix(Role::Operator.inbox_prefix())
            .connect(&url)
            .await
            .unwrap();
        let jetstream = jetstream::new(operator);
        let name = SubscriberName::parse(NAME).unwrap();
        let creds = account.subscriber_creds(&name).unwrap();
        std::fs::write(folder.path().join("mailer.creds"), creds).unwrap();
        let bus = Self { url, jetstream, folder, server };
        bus.make_streams().await;
        bus.make_consumer(FEED_STREAM, "", consumers).await;
        if consumers.snapshots {
            bus.make_consumer(SNAPSHOTS_STREAM, "snapshot.v1.mailer.*", consumers).await;
        }
        bus
    }

    async fn make_streams(&self) {
        for (name, subjects, retention) in [
            (FEED_STREAM, &FEED_STREAM_SUBJECTS[..], RetentionPolicy::Limits),
            (SNAPSHOTS_STREAM, &SNAPSHOTS_STREAM_SUBJECTS[..], RetentionPolicy::WorkQueue),
        ] {
            let config = Config {
                name: name.to_owned(),
                subjects: subjects.iter().copied().map(str::to_owned).collect(),
                retention,
                discard: DiscardPolicy::New,
                max_bytes: 16 << 20,
                allow_direct: true,
                ..Config::default()
            };
            self.jetstream.create_stream(config).await.unwrap();
        }
    }

    async fn make_consumer(&self, stream: &str, filter: &str, consumers: Consumers) {
        let config = pull::Config {
            durable_name: Some(NAME.to_owned()),
            filter_subject: filter.to_owned(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: consumers.ack_wait,
            max_deliver: -1,
            max_ack_pending: consumers.in_flight,
            ..pull::Config::default()
        };
        self.jetstream.create_consumer_on_stream(config, stream).await.unwrap();
    }

    pub async fn publish(&self, event: &FeedEvent) {
        let subject = event.nats_subject().unwrap();
        self.publish_raw(&subject, event.to_json().unwrap()).await;
    }

    /// As the server stores an answer: without headers, and no event.
    pub async fn publish_foreign(&self, subject: &str) {
        let answer = r#"{"type":"io.nats.jetstream.api.v1.stream_info_response"}"#;
        let stored = self.jetstream.publish(subject.to_owned(), answer.into()).await.unwrap();
        stored.await.unwrap();
    }

    pub async fn publish_raw(&self, subject: &str, payload: Vec<u8>) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed).to_string();
        // A server that was killed a moment ago may not be found again yet; the id keeps a second attempt
        // from being a second message.
        until("the feed has the message", async || {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", id.as_str());
            headers.insert("Roster-Event-Type", "of the test");
            let (subject, payload) = (subject.to_owned(), payload.clone().into());
            match self.jetstream.publish_with_headers(subject, headers, payload).await {
                Ok(stored) => stored.await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    pub async fn publish_snapshot(&self, event: &FeedEvent) {
        let user = event.happened.user_id().unwrap();
        let subject = events::feed::snapshot(NAME, user);
        self.publish_raw(&subject, event.to_json().unwrap()).await;
    }

    pub async fn consumer(&self, stream: &str) -> jetstream::consumer::Info {
        let consumer: PullConsumer =
            self.jetstream.get_consumer_from_stream(NAME, stream).await.unwrap();
        consumer.cached_info().clone()
    }

    /// Waits until everything is acknowledged.
    pub async fn is_done(&self, stream: &str) {
        until("everything is acknowledged", async || {
            let info = self.consumer(stream).await;
            info.num_pending == 0 && info.num_ack_pending == 0
        })
        .await;
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn settings(&self) -> Settings {
        let creds = self.folder.path().join("mailer.creds");
        Settings::new(&self.url, NAME, creds, self.state())
            .retry_for(Duration::from_millis(200))
            .retry_pauses(Duration::from_millis(10), Duration::from_millis(50))
    }

    pub fn parked(&self) -> Parked {
        Parked::at(self.state())
    }
}

/// A subscriber that runs beside the test.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), ClientError>>,
}

impl Running {
    pub async fn start<F>(
        settings: Settings,
        handler: impl Fn(FeedEvent) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let mut subscriber = Subscriber::connect(settings).await.unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { subscriber.run(stopped, handler).await });
        Self { stop, task }
    }

    /// As Ctrl-C does.
    pub fn cancel(&self) {
        self.stop.cancel();
    }

    pub async fn stop(self) -> Result<(), ClientError> {
        self.cancel();
        self.ended().await
    }

    pub async fn ended(self) -> Result<(), ClientError> {
        timeout(WAIT_MAX, self.task).await.unwrap().unwrap()
    }

    /// As a crash does: whatever was begun is never finished, and nothing is said to the server.
    pub async fn die(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

/// What a handler was given: whose event, and which revision.
pub type Seen = (u128, u64);

/// A list that grows, and that can be waited for.
#[derive(Clone)]
pub struct Log {
    seen: Arc<watch::Sender<Vec<Seen>>>,
}

impl Log {
    pub fn new() -> Self {
        Self { seen: Arc::new(watch::Sender::new(Vec::new())) }
    }

    pub fn add(&self, event: &FeedEvent) {
        self.seen.send_modify(|seen| seen.push(seen_of(event)));
    }

    pub fn all(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Waits until there are so many.
    pub async fn has(&self, count: usize) -> Vec<Seen> {
        let mut seen = self.seen.subscribe();
        match timeout(WAIT_MAX, seen.wait_for(|seen| seen.len() >= count)).await {
            Ok(found) => found.unwrap().clone(),
            Err(_) => panic!("there were {} and not {count}: {:?}", self.all().len(), self.all()),
        }
    }
}

pub fn seen_of(event: &FeedEvent) -> Seen {
    let user = event.happened.user_id().map_or(0, |user| user.as_uuid().as_u128() & 0xffff);
    (user, event.revision.0)
}

/// What a test may let go wrong, and change while a handler runs.
#[derive(Clone, Default)]
pub struct Refused(Arc<Mutex<Vec<Seen>>>);

impl Refused {
    pub fn of(events: &[Seen]) -> Self {
        Self(Arc::new(Mutex::new(events.to_vec())))
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().clear();
    }

    pub fn check(&self, event: &FeedEvent) -> Result<(), String> {
        if self.0.lock().unwrap().contains(&seen_of(event)) {
            return Err("refused by the test".to_owned());
        }
        Ok(())
    }
}

/// Looks again and again, with a limit.
pub async fn until(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !look().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(WAIT_MAX, looking).await.is_ok(), "not within {WAIT_MAX:?}: {what}");
}

pub fn user(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(0x0190_a1b2_c3d4_7000_8000_0000_0000_0000 | n))
}

fn at() -> Timestamp {
    Timestamp::try_from("2026-01-31T12:00:00.250Z".to_owned()).unwrap()
}

fn public(n: u128) -> PublicUser {
    PublicUser {
        id: user(n),
        email: format!("u{n}@example.com"),
        email_verified: false,
        full_name: None,
        roles: vec!["user".to_owned()],
        status: Status::Active,
        metadata: Map::new(),
        created_at: at(),
        updated_at: at(),
    }
}

pub fn event(revision: u64, happened: Happened) -> FeedEvent {
    FeedEvent {
        id: Uuid::from_u128(u128::from(revision)),
        time: at(),
        revision: Revision(revision),
        position: Position(revision),
        actor: Actor::System,
        command_id: None,
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        data_schema: None,
        happened,
    }
}

/// The event of a user with that revision: a registration, or a change.
pub fn told(n: u128, revision: u64) -> FeedEvent {
    let user = public(n);
    if revision == 1 {
        let changed = Registration {
            email: user.email.clone(),
            email_verified: false,
            full_name: None,
            roles: user.roles.clone(),
            metadata: Map::new(),
            imported: None,
        };
        return event(1, Happened::Registered(UserChanged { changed, user }));
    }
    let changed = ProfileChange { full_name: Some(None), metadata: None };
    event(revision, Happened::ProfileChanged(UserChanged { changed, user }))
}

pub fn snapshot(n: u128, revision: u64) -> FeedEvent {
    event(revision, Happened::Snapshot(UserData { user: public(n) }))
}

pub fn deleted(n: u128, revision: u64) -> FeedEvent {
    let user = events::feed::DeletedUser { id: user(n), deleted_at: at() };
    event(revision, Happened::Deleted(events::feed::DeletedUserData { user }))
}
