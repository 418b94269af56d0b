//! One server with an account per test, and clients that record what the server reports.

use std::sync::OnceLock;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_nats::{Client, ConnectError, ConnectOptions, Event, HeaderMap, Message, jetstream};
use nats_access::{Account, Role, ServiceUser, SubscriberName, TestTrust};
use tokio::sync::mpsc;
use tokio::time::timeout;

pub const STREAM: &str = "USERS";
pub const SESSIONS: &str = "SESSIONS";
pub const MAILS: &str = "MAILS";
pub const FEED: &str = "USER_EVENTS";
pub const SNAPSHOTS: &str = "USER_SNAPSHOTS";
pub const MAILER: &str = "mailer";
/// How long to wait for anything that must happen.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
/// How many reports of the server a client stores.
const RECORDED_REPORTS_MAX: usize = 1_000;

/// The account of each test.
#[derive(Clone, Copy)]
pub enum Of {
    CommandApi,
    Throttle,
    Projector,
    ProjectorRecovery,
    QueryApi,
    DeniedCommandApi,
    DeniedProjector,
    DeniedQueryApi,
    DeniedMailer,
    DeniedEraser,
    MailerPulls,
    Subscriptions,
    Payload,
    Revocations,
    RevocationsFollowed,
    Mailer,
    Subscriber,
    DeniedSubscriber,
    Answers,
    Bait,
    OneSide,
    OtherSide,
    Strangers,
    Service,
    ServiceFollows,
    DeniedService,
    ServiceFilters,
    ServiceAnswers,
    ServicePushes,
    VerifierAnswers,
    Verifier,
    DeniedVerifier,
    Count,
}

pub fn account(of: Of) -> &'static Account {
    trust().account(of as usize)
}

/// The address of the server that all tests share.
pub fn url() -> String {
    local_stack::testing::nats(|| trust().server_config().unwrap()).url()
}

fn trust() -> &'static TestTrust {
    static TRUST: OnceLock<TestTrust> = OnceLock::new();
    TRUST.get_or_init(|| TestTrust::with_accounts(Of::Count as usize))
}

/// A client in a role, with the errors that the server reports to it.
pub struct Peer {
    pub client: Client,
    reports: mpsc::Receiver<String>,
}

impl Peer {
    pub async fn connect(account: &Account, role: Role) -> Self {
        Self::with_creds(&url(), &account.creds(role).unwrap(), role).await.unwrap()
    }

    pub async fn subscriber(account: &Account, name: &str) -> Self {
        let name = SubscriberName::parse(name).unwrap();
        let creds = account.subscriber_creds(&name).unwrap();
        Self::with_inbox(&url(), &creds, &name.inbox_prefix()).await.unwrap()
    }

    pub async fn service(account: &Account, user: &ServiceUser) -> Self {
        Self::service_at(&url(), account, user).await
    }

    pub async fn service_at(url: &str, account: &Account, user: &ServiceUser) -> Self {
        let creds = account.service_creds(user).unwrap();
        Self::with_inbox(url, &creds, &user.inbox_prefix()).await.unwrap()
    }

    pub async fn with_creds(url: &str, creds: &str, role: Role) -> Result<Self, ConnectError> {
        Self::with_inbox(url, creds, role.inbox_prefix()).await
    }

    async fn with_inbox(url: &str, creds: &str, inbox: &str) -> Result<Self, ConnectError> {
        let (sender, reports) = mpsc::channel(RECORDED_REPORTS_MAX);
        let client = ConnectOptions::with_credentials(creds)
            .unwrap()
            .custom_inbox_prefix(inbox)
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    if let Event::ServerError(error) = event {
                        sender.send(error.to_string()).await.unwrap();
                    }
                }
            })
            .connect(url)
            .await?;
        Ok(Self { client, reports })
    }

    /// Publishes to a subject that this role may not use, and waits until the server reports exactly that.
    pub async fn is_denied_publish(&mut self, subject: &str) {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.client.flush().await.unwrap();
        self.reported(&format!("Permissions Violation for Publish to \"{subject}\"")).await;
    }

    /// Subscribes to a subject that this role may not use, and waits until the server reports exactly that.
    pub async fn is_denied_subscribe(&mut self, subject: &str) {
        let _subscription = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.client.flush().await.unwrap();
        self.reported(&format!("Permissions Violation for Subscription to \"{subject}\"")).await;
    }

    /// The server has reported no error to this client so far.
    pub async fn has_no_report(&mut self) {
        // The answer to a ping arrives after all reports on earlier messages.
        self.client.flush().await.unwrap();
        let report = self.reports.try_recv();
        assert!(report.is_err(), "{report:?}");
    }

    /// Waits until the server reports exactly that.
    pub async fn reported(&mut self, wanted: &str) {
        let report = timeout(WAIT_MAX, self.reports.recv())
            .await
            .unwrap_or_else(|_| panic!("no report within {WAIT_MAX:?}: {wanted}"))
            .unwrap();
        assert!(report.to_lowercase().contains(&wanted.to_lowercase()), "{report}, not {wanted}");
    }

    /// Sends a request and returns the server's answer.
    pub async fn request(&self, subject: &str, headers: HeaderMap, payload: &str) -> Message {
        let answer = self.client.request_with_headers(
            subject.to_owned(),
            headers,
            payload.to_owned().into(),
        );
        timeout(WAIT_MAX, answer).await.unwrap().unwrap()
    }
}

/// The name of the consumer of notices.
pub const NOTICES: &str = "notices";

/// The operator of an account, who has created the streams and the mailer's consumers.
pub async fn operator_with_stream(account: &Account) -> Peer {
    let operator = Peer::connect(account, Role::Operator).await;
    make_streams(&operator).await;
    operator
}

/// Creates the streams and the mailer's consumers.
pub async fn make_streams(operator: &Peer) {
    let context = jetstream::new(operator.client.clone());
    let users =
        ["ev.user.*", "sec.user.*", "uq.email.*", "uq.role.*", "ik.*", "rv.user.*", "lk.*.*"];
    for (name, subjects) in [
        (STREAM, &users[..]),
        (SESSIONS, &["ev.session.*.*", "rv.session.*", "er.session.*"]),
        (FEED, &["users.v1.*.*", "sessions.v1.*.*"]),
        (SNAPSHOTS, &["snapshot.v1.*.*"]),
        (MAILS, &["mail.order.*", "mail.notice.*", "mail.parked.*"]),
    ] {
        let config = Config {
            name: name.to_owned(),
            subjects: subjects.iter().copied().map(str::to_owned).collect(),
            retention: match name {
                MAILS | SNAPSHOTS => RetentionPolicy::WorkQueue,
                _ => RetentionPolicy::Limits,
            },
            discard: DiscardPolicy::New,
            max_bytes: 1024 * 1024,
            allow_direct: true,
            allow_atomic_publish: true,
            allow_message_ttl: true,
            deny_purge: true,
            ..Config::default()
        };
        context.create_stream(config).await.unwrap();
    }
    for (stream, name, filter) in [
        (STREAM, MAILER, "ev.user.*"),
        (MAILS, MAILER, "mail.order.*"),
        (MAILS, NOTICES, "mail.notice.*"),
    ] {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subject: filter.to_owned(),
            ..pull::Config::default()
        };
        context.create_consumer_on_stream(config, stream).await.unwrap();
    }
}

/// The filter of the mailer's consumer of facts, as reported to the operator.
pub async fn filter_of_mailer(operator: &Peer) -> String {
    let context = jetstream::new(operator.client.clone());
    let consumer: PullConsumer = context.get_consumer_from_stream(MAILER, STREAM).await.unwrap();
    consumer.cached_info().config.filter_subject.clone()
}

pub fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(*name, *value);
    }
    headers
}

pub fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.payload).unwrap()
}
