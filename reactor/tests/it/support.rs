//! One server for all tests of this process. Each test has an account with its own streams, a folder, and as many
//! reactors as it starts.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use events::{
    Actor, CommandId, Cutoff, EmailClaim, Event, Fact, LinkPurpose, LinkRecord, Position, Snapshot,
    Timestamp, UserFact, UserId, UserRevocation, UserState, feed, subjects,
    subjects::{MAIL_NOTICES_FILTER, MAIL_ORDERS_FILTER},
};
use local_stack::testing::{TempDir, temp_dir};
use nats_access::{Account, Role, TestTrust};
use reactor::{App, ParkedMails, Streams};
use service_kit::ambient;
use service_kit::config::{MailTransport, Settings};
use service_kit::event_log::{
    Append, EventLog, Guard, Limits, Outcome, THROTTLE_COUNTS_STREAM, Write, erasures, feed_stream,
    mailer_events, mailer_notices, mailer_orders, mails_stream, security_stream, sessions_stream,
    snapshots_stream, throttle_counts_stream, users_stream,
};
use service_kit::health::Readiness;
use service_kit::keys::{LINK_KEY_FILE, MAIL_KEY_FILE, SecretKey};
use service_kit::links::{Binding, Link, Links, Unverified};
use service_kit::mail_jobs::{Mail, MailJob, MailJobs};
use service_kit::security::SECURITY_STREAM;
use service_kit::telemetry::Telemetry;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The longest wait for a state: the messages of a killed reactor are redelivered after half a minute.
const STATE_WAIT_MAX: Duration = Duration::from_secs(90);
/// The size limit of one test's streams.
const BYTES_MAX: u64 = 1 << 20;

const START: Position = Position(0);

pub const ADA: &str = "Ada@example.com";

fn trust() -> &'static TestTrust {
    static TRUST: OnceLock<TestTrust> = OnceLock::new();
    TRUST.get_or_init(|| TestTrust::with_accounts(64))
}

/// Waits for a state, and fails with the reason if it does not occur.
pub async fn wait_for<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + STATE_WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The log and the work queue of one test, as the command side and the operator see them.
pub struct System {
    dir: TempDir,
    pub settings: Settings,
    pub users: EventLog,
    pub sessions: EventLog,
    pub mails: EventLog,
    /// The feed and the snapshots, as the operator sees them.
    pub feed: EventLog,
    pub snapshots: EventLog,
    operator: EventLog,
    pub links: Links,
    pub orders: MailJobs,
}

/// A running reactor.
pub struct Reactor {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pub readiness: Readiness,
}

impl Reactor {
    pub async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    /// Stops the reactor wherever it is.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }
}

async fn connect(account: &Account, role: Role) -> async_nats::Client {
    let server = local_stack::testing::nats(|| trust().server_config().unwrap());
    async_nats::ConnectOptions::with_credentials(&account.creds(role).unwrap())
        .unwrap()
        .custom_inbox_prefix(role.inbox_prefix())
        .connect(server.url())
        .await
        .unwrap()
}

impl System {
    pub async fn start() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let account = trust().account(NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = temp_dir();
        let path = |name: &str| dir.path().join(name);
        let mut settings = Settings::merge("", []).unwrap();
        settings.log.bytes_max = BYTES_MAX;
        settings.log.mails_bytes_max = BYTES_MAX;
        settings.log.sessions_bytes_max = BYTES_MAX;
        settings.log.throttle_bytes_max = BYTES_MAX;
        settings.feed.bytes_max = BYTES_MAX;
        settings.feed.snapshots_bytes_max = BYTES_MAX;
        settings.erasure.second_look_s = 1;
        settings.nats.url = local_stack::testing::nats(|| trust().server_config().unwrap()).url();
        settings.nats.credentials_file = path("nats.creds");
        std::fs::write(path("nats.creds"), account.creds(Role::Mailer).unwrap()).unwrap();
        std::fs::write(path("eraser.creds"), account.creds(Role::Eraser).unwrap()).unwrap();
        settings.secrets.dir = dir.path().to_owned();
        settings.mail.transport = MailTransport::Folder;
        settings.mail.folder = path("mail");
        settings.mail.link_base = "https://id.example.com/links".to_owned();
        let (link_key, mail_key) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
        link_key.write_new(&path(LINK_KEY_FILE)).unwrap();
        mail_key.write_new(&path(MAIL_KEY_FILE)).unwrap();

        let operator = connect(account, Role::Operator).await;
        let limits = Limits::of(&settings);
        let log =
            |client: &async_nats::Client, stream| EventLog::new(client.clone(), stream, limits);
        let (users, mails) =
            (log(&operator, subjects::USERS_STREAM), log(&operator, subjects::MAILS_STREAM));
        users.provision(&users_stream(&settings.log)).await.unwrap();
        mails.provision(&mails_stream(&settings.log)).await.unwrap();
        let bucket = log(&operator, THROTTLE_COUNTS_STREAM);
        bucket.provision(&throttle_counts_stream(&settings.log)).await.unwrap();
        let sessions = log(&operator, subjects::SESSIONS_STREAM);
        let security = log(&operator, SECURITY_STREAM);
        security.provision(&security_stream(&settings.log, &settings.security)).await.unwrap();
        let feed = log(&operator, feed::FEED_STREAM);
        let snapshots = log(&operator, feed::SNAPSHOTS_STREAM);
        sessions.provision(&sessions_stream(&settings.log, &settings.sessions)).await.unwrap();
        feed.provision(&feed_stream(&settings.log, &settings.feed)).await.unwrap();
        snapshots.provision(&snapshots_stream(&settings.log, &settings.feed)).await.unwrap();
        users.provision_consumer(&mailer_events()).await.unwrap();
        users.provision_consumer(&erasures()).await.unwrap();
        mails.provision_consumer(&mailer_orders()).await.unwrap();
        mails.provision_consumer(&mailer_notices()).await.unwrap();
        let commands = connect(account, Role::CommandApi).await;
        Self {
            users: log(&commands, subjects::USERS_STREAM),
            sessions: log(&commands, subjects::SESSIONS_STREAM),
            feed,
            snapshots,
            mails: log(&commands, subjects::MAILS_STREAM),
            operator: mails,
            links: Links::new(link_key),
            orders: MailJobs::new(mail_key).unwrap(),
            settings,
            dir,
        }
    }

    /// Starts a reactor with the current settings.
    pub async fn reactor(&self) -> Reactor {
        let watch = Telemetry::start(&self.settings.telemetry, "test").unwrap();
        let app = App::build(&self.settings, &watch).await.unwrap();
        let (stop, readiness) = (CancellationToken::new(), app.readiness());
        let task = tokio::spawn(app.run(stop.clone()));
        Reactor { stop, task, readiness }
    }

    pub fn parked(&self) -> ParkedMails {
        let key = SecretKey::read(&self.dir.path().join(MAIL_KEY_FILE)).unwrap();
        ParkedMails::new(self.operator.clone(), MailJobs::new(key).unwrap())
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("mail")
    }

    /// Waits until all work is done.
    pub async fn settled(&self) {
        wait_for("all work to be done", || async {
            // Events first, since they lead to jobs. The consumer's pending count lags a little behind the stream, so
            // this checks the stream.
            self.users_left().await.is_none() && self.mails_left().await == 0
        })
        .await;
    }

    /// How many mails are still to be sent, including those that wait.
    pub async fn mails_left(&self) -> usize {
        let mut left = 0;
        for filter in [MAIL_ORDERS_FILTER, MAIL_NOTICES_FILTER] {
            let mut behind = START;
            while let Some(next) = self.mails.next(filter, behind).await.unwrap() {
                behind = next.position;
                left += 1;
            }
        }
        left
    }

    /// An event that has not been handled yet.
    pub async fn users_left(&self) -> Option<Position> {
        let backlog = self.operator.verify_consumer(&mailer_events()).await.unwrap();
        if backlog.under_way > 0 {
            return Some(backlog.delivered);
        }
        let next = self.users.next(subjects::USER_EVENTS_FILTER, backlog.delivered).await.unwrap();
        next.map(|next| next.position)
    }

    /// Whether every erasure is finished.
    pub async fn erased(&self) -> bool {
        let backlog = self.operator.verify_consumer(&erasures()).await.unwrap();
        let last = self.users.end().await.unwrap();
        backlog.under_way == 0 && backlog.pending == 0 && backlog.delivered == last
    }

    /// Writes one message on a subject, unconditionally.
    pub async fn put(&self, subject: String, payload: Vec<u8>) -> Position {
        put(&self.users, subject, payload, None).await
    }

    /// Appends an event of a user at the current time.
    pub async fn happens(&self, user: UserId, actor: Actor, fact: UserFact) -> Event {
        self.happened(user, actor, fact, ambient::now()).await
    }

    pub async fn happened(
        &self,
        user: UserId,
        actor: Actor,
        fact: UserFact,
        time: Timestamp,
    ) -> Event {
        let event = self.event(user, actor, fact, time).await;
        let mark = Some((event.id, event.fact.wire_type()));
        put(&self.users, subjects::user_events(user), event.to_json().unwrap(), mark).await;
        event
    }

    /// Writes the messages of a deletion like the command side: in one batch, an empty credential and the last event.
    pub async fn delete(&self, user: UserId) {
        let event = self.event(user, Actor::System, UserFact::Deleted, ambient::now()).await;
        let write = async |subject: String, payload: Vec<u8>| {
            let last = self.users.last(&subject).await.unwrap();
            Write::new(subject, last.map_or(Guard::absent(), |last| last.guard()), payload)
        };
        let last = write(subjects::user_events(user), event.to_json().unwrap()).await;
        let last = last.event(event.id, event.fact.wire_type());
        let emptied = write(subjects::user_credential(user), b"sealed nothing".to_vec()).await;
        let append = Append::new(event.command_id, last).with(emptied);
        let outcome = self.users.append(&append).await;
        assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
    }

    async fn event(&self, user: UserId, actor: Actor, fact: UserFact, time: Timestamp) -> Event {
        let subject = subjects::user_events(user);
        let state = match self.users.last(&subject).await.unwrap() {
            None => UserState::Absent,
            Some(last) => Event::from_json(&last.payload).unwrap().after.into(),
        };
        let after: Snapshot = state.evolve(user, &fact, time).unwrap().snapshot().unwrap();
        Event {
            id: ambient::new_uuid(),
            time,
            actor,
            command_id: CommandId::from_uuid(ambient::new_uuid()),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            fact,
            after,
        }
    }

    /// The streams that are searched for residue, with the operator's permissions.
    pub fn streams(&self) -> Streams {
        let open = |stream: &'static str| match stream {
            subjects::USERS_STREAM => self.users.clone(),
            subjects::SESSIONS_STREAM => self.sessions.clone(),
            subjects::MAILS_STREAM => self.mails.clone(),
            feed::FEED_STREAM => self.feed.clone(),
            _ => self.snapshots.clone(),
        };
        let key = SecretKey::read(&self.dir.path().join(MAIL_KEY_FILE)).unwrap();
        Streams::new(open, MailJobs::new(key).unwrap())
    }

    /// A user with an address, its claim and a password. The event is too old to lead to a mail.
    pub async fn user(&self, email: &str, claim: &str) -> UserId {
        let user = new_user();
        let held = EmailClaim::held(user);
        self.put(subjects::email_claim(claim), serde_json::to_vec(&held).unwrap()).await;
        self.put(subjects::user_credential(user), b"sealed".to_vec()).await;
        let system = Actor::System;
        self.happens(user, system, registered(email, true)).await;
        user
    }

    pub async fn place(&self, order: &MailJob) {
        let placed = self.orders.place(&self.mails, order).await;
        assert!(matches!(placed, Outcome::Stored(_)), "{placed:?}");
    }

    /// Parks a mail.
    pub async fn park(&self, subject: String, payload: Vec<u8>) {
        put(&self.operator, subject, payload, None).await;
    }

    pub async fn is_waiting(&self, order: &MailJob) -> bool {
        let waits = async |subject: String| self.mails.last(&subject).await.unwrap().is_some();
        waits(subjects::mail_order(order.id)).await || waits(subjects::mail_notice(order.id)).await
    }

    pub async fn record(&self, purpose: LinkPurpose, user: UserId) -> Option<LinkRecord> {
        let stored = self.users.last(&subjects::link(purpose, user)).await.unwrap();
        stored.map(|stored| serde_json::from_slice(&stored.payload).unwrap())
    }

    /// Uses a link like the command side.
    pub async fn use_link(&self, purpose: LinkPurpose, user: UserId) {
        let used = self.record(purpose, user).await.unwrap().used();
        self.put(subjects::link(purpose, user), serde_json::to_vec(&used).unwrap()).await;
    }

    /// The link in a mail, checked against the log as the command side does.
    pub async fn verified(&self, mail: &Received) -> Link {
        let unverified: Unverified = Links::read(&mail.token()).unwrap();
        let user = unverified.user();
        let last = self.users.last(&subjects::user_events(user)).await.unwrap().unwrap();
        let Snapshot::Present(after) = Event::from_json(&last.payload).unwrap().after else {
            panic!("deleted")
        };
        let email = events::EmailAddress::parse(&after.email).unwrap();
        let credential = self.users.last(&subjects::user_credential(user)).await.unwrap();
        let credential = credential.map(|stored| stored.position).unwrap_or_default();
        let cutoff = self.users.last(&subjects::user_revocation(user)).await.unwrap();
        let cutoff = cutoff.map_or_else(Cutoff::default, |stored| {
            let revocation: UserRevocation = serde_json::from_slice(&stored.payload).unwrap();
            Cutoff::of(revocation, stored.position)
        });
        let binding = Binding { email: email.canonical(), credential, cutoff };
        self.links.verify(unverified, &binding, ambient::now()).unwrap()
    }

    /// All mails in the folder, oldest first.
    pub fn received(&self) -> Vec<Received> {
        received(&self.folder())
    }
}

/// Writes one message on a subject, unconditionally.
pub async fn put(
    log: &EventLog,
    subject: String,
    payload: Vec<u8>,
    event: Option<(Uuid, &'static str)>,
) -> Position {
    let last = log.last(&subject).await.unwrap();
    let guard = last.map_or(Guard::absent(), |last| last.guard());
    let command = CommandId::from_uuid(ambient::new_uuid());
    let write = Write::new(subject, guard, payload);
    let write = event.map_or(write.clone(), |(id, kind)| write.event(id, kind));
    let outcome = log.append(&Append::new(command, write)).await;
    let Outcome::Stored(position) = outcome else { panic!("{outcome:?}") };
    position
}

pub fn new_user() -> UserId {
    UserId::from_uuid(ambient::new_uuid())
}

pub fn registered(email: &str, email_verified: bool) -> UserFact {
    UserFact::Registered {
        email: email.to_owned(),
        email_verified,
        full_name: None,
        roles: vec!["user".to_owned()],
        metadata: serde_json::Map::new(),
        imported: None,
    }
}

pub fn order(mail: Mail) -> MailJob {
    MailJob { id: ambient::new_uuid(), ordered_at: ambient::now(), mail }
}

pub fn reset(claim: &str) -> MailJob {
    order(Mail::ResetPassword { claim: claim.to_owned() })
}

/// A received mail.
#[derive(Debug, Clone)]
pub struct Received {
    pub raw: String,
    pub to: String,
    pub subject: String,
    pub message_id: String,
    pub text: String,
}

impl Received {
    pub fn read(raw: &str) -> Self {
        let (head, body) = raw.split_once("\r\n\r\n").unwrap();
        let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let header = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_default().to_owned()
        };
        let boundary = header("Content-Type");
        let (_, boundary) = boundary.split_once("boundary=\"").unwrap();
        let boundary = format!("--{}", boundary.split_once('"').unwrap().0);
        let plain = body.split(&boundary).find(|part| part.contains("text/plain")).unwrap();
        let (_, text) = plain.split_once("\r\n\r\n").unwrap();
        Self {
            to: header("To"),
            subject: header("Subject"),
            message_id: header("Message-ID"),
            text: decoded(text),
            raw: raw.to_owned(),
        }
    }

    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once("?token=").unwrap();
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

/// Decodes quoted-printable.
fn decoded(text: &str) -> String {
    let text = text.replace("=\r\n", "");
    let mut parts = text.split('=');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn received(folder: &Path) -> Vec<Received> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "eml"))
        .collect();
    files.sort();
    files.iter().map(|file| Received::read(&std::fs::read_to_string(file).unwrap())).collect()
}

pub fn id(order: &MailJob) -> Uuid {
    order.id
}
