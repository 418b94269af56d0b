//! The servers, one account and one database for each test, and the fold of a service that keeps notes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, jetstream};
use events::{CommandId, DecodeError, Position};
use futures::TryStreamExt;
use mongodb::IndexModel;
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{Bson, Document, Uuid, doc};
use serde::Deserialize;
use service_kit::ambient;
use service_kit::event_log::{Append, EventLog, Followed, Guard, Limits, Outcome, Write};
use service_kit::health::Readiness;
use service_kit::metrics::Metrics;
use service_kit::telemetry::Telemetry;
use service_kit::trace::Tracer;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use view_kit::{
    Fold, FollowLimits, View, ViewDatabase, ViewFollower, Writes, collection, replacement,
};

/// Longest wait for something that must come.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
const ACCOUNTS: usize = 16;
/// What the second layout stops at until [`open_the_gate`].
pub const GATE: &str = "gate";
static IS_OPEN: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

pub fn open_the_gate() {
    *IS_OPEN.0.lock().unwrap() = true;
    IS_OPEN.1.notify_all();
}

fn wait_at_the_gate() {
    let closed = IS_OPEN.0.lock().unwrap();
    let opened = IS_OPEN.1.wait_timeout_while(closed, WAIT_MAX * 2, |is_open| !*is_open).unwrap();
    assert!(!opened.1.timed_out(), "nobody opened the gate");
}

/// An account of its own, so that every test has a stream of the same name.
pub async fn client() -> Client {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let account = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(account < ACCOUNTS, "there are more tests than accounts");
    let server = local_stack::testing::nats(|| {
        let account =
            |n| format!("  T{n} {{ jetstream: enabled, users: [{{user: t{n}, password: t}}] }}\n");
        format!("accounts {{\n{}}}\n", (0..ACCOUNTS).map(account).collect::<String>())
    });
    ConnectOptions::with_user_and_password(format!("t{account}"), "t".to_owned())
        .connect(server.url())
        .await
        .unwrap()
}

pub async fn database() -> ViewDatabase {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("view_kit_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    open(&name).await
}

async fn open(name: &str) -> ViewDatabase {
    ViewDatabase::open(&local_stack::testing::mongod().url(), name, "notes").await.unwrap()
}

/// The stream of notes, as an operator makes it.
pub async fn make_stream(client: &Client, lineage: &str) -> EventLog {
    let config = jetstream::stream::Config {
        name: Notes::<1>::STREAM.to_owned(),
        subjects: Notes::<1>::FILTERS.iter().map(|filter| (*filter).to_owned()).collect(),
        metadata: HashMap::from([("roster-lineage".to_owned(), lineage.to_owned())]),
        ..jetstream::stream::Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await.unwrap();
    log(client)
}

pub fn log(client: &Client) -> EventLog {
    let limits = Limits {
        request_timeout: Duration::from_secs(2),
        append_deadline: Duration::from_secs(5),
        silence_max: service_kit::event_log::SILENCE_DEFAULT,
    };
    EventLog::new(client.clone(), Notes::<1>::STREAM, limits)
}

/// Writes what a note says from now on.
pub async fn say(log: &EventLog, note: &str, text: &str) -> Position {
    store(log, note, serde_json::json!({"text": text}).to_string()).await
}

/// Writes what nobody can read.
pub async fn garble(log: &EventLog, note: &str) -> Position {
    store(log, note, r#"{"text": 7}"#.to_owned()).await
}

async fn store(log: &EventLog, note: &str, payload: String) -> Position {
    let subject = format!("ev.note.{note}");
    let guard = log.last(&subject).await.unwrap().map_or(Guard::absent(), |last| last.guard());
    let command = CommandId::from_uuid(ambient::new_uuid());
    let write = Write::new(subject, guard, payload).event(ambient::new_uuid(), "note.said.v1");
    let append = Append::new(command, write);
    let Outcome::Stored(position) = log.append(&append).await else { panic!("not stored") };
    position
}

/// Notes: the last text of each.
#[derive(Default)]
pub struct Notes<const LAYOUT: u32>(HashMap<String, (Position, String)>);

#[derive(Deserialize)]
struct Said {
    text: String,
}

impl<const LAYOUT: u32> Fold for Notes<LAYOUT> {
    const STREAM: &'static str = "NOTES";
    const FILTERS: &'static [&'static str] = &["ev.note.*"];
    const ROOTS: &'static [&'static str] = &["ev.note."];

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let said: Said = serde_json::from_slice(&message.payload)?;
        if LAYOUT > 1 && said.text == GATE {
            // Everything else goes on meanwhile.
            block_in_place(wait_at_the_gate);
        }
        let note = Self::aggregate(&message.subject).to_owned();
        self.0.insert(note, (message.position, said.text));
        Ok(())
    }

    fn writes(&self, number: u32) -> Result<Vec<Writes>, BsonError> {
        let updates = self.0.iter().map(|(note, (position, text))| {
            let position = i64::try_from(position.0).unwrap();
            let document = doc! {"_id": key(note), "position": position, "text": text};
            replacement(key(note), position, doc! {"$literal": document})
        });
        let collection = collection(Self::NAME, number);
        Ok(vec![Writes { collection, updates: updates.collect() }])
    }
}

/// The id of a note in the database: its name, which may be a UUID.
fn key(note: &str) -> Bson {
    note.parse()
        .map_or_else(|_| note.into(), |id: uuid::Uuid| Uuid::from_bytes(*id.as_bytes()).into())
}

impl<const LAYOUT: u32> View for Notes<LAYOUT> {
    const NAME: &'static str = "notes";
    const LAYOUT: u32 = LAYOUT;

    fn indexes() -> Vec<IndexModel> {
        vec![IndexModel::builder().keys(doc! {"text": 1, "_id": 1}).build()]
    }
}

/// What the views say: each note with its position and its text.
pub async fn shown<V: View>(database: &ViewDatabase) -> Vec<(String, i64, String)> {
    let notes = database.database().collection::<Document>(&V::collection());
    let found = notes.find(doc! {}).sort(doc! {"_id": 1}).await.unwrap();
    let found: Vec<Document> = found.try_collect().await.unwrap();
    let note = |note: Document| {
        let text = |member| note.get_str(member).unwrap().to_owned();
        (text("_id"), note.get_i64("position").unwrap(), text("text"))
    };
    found.into_iter().map(note).collect()
}

/// A projector that runs, until it is killed.
pub struct Running {
    pub readiness: Readiness,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn start<V: View>(client: &Client, database: &ViewDatabase) -> Self {
        Self::start_with::<V>(client, database, 10).await
    }

    pub async fn start_with<V: View>(
        client: &Client,
        database: &ViewDatabase,
        parked_max: usize,
    ) -> Self {
        let watch = Telemetry { metrics: Metrics::new("notes"), tracer: Tracer::default() };
        let limits = FollowLimits {
            batch_events_max: 1,
            parked_max,
            operation_timeout: Duration::from_secs(5),
            lag_max: Duration::from_secs(60),
        };
        // As a process that was killed, it leaves no connections to the next one.
        let (log, database) = (log(client), open(database.database().name()).await);
        let follower = ViewFollower::<V>::build(client, log, database, limits, &watch);
        let follower = follower.await.unwrap();
        let readiness = follower.readiness();
        let task = tokio::spawn(follower.run(CancellationToken::new()));
        Self { readiness, task }
    }

    /// Why it is not ready; empty when it is.
    pub async fn trouble(&self) -> String {
        match self.readiness.check().await {
            Ok(()) => String::new(),
            Err(failed) => failed.into_iter().map(|(_, why)| why).collect(),
        }
    }

    pub async fn is_ready(&self) -> bool {
        self.trouble().await.is_empty()
    }

    /// In the middle of whatever it does.
    pub async fn kill(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled(), "it ran until it was killed");
    }
}

/// Waits for a state; fails with the reason when it does not come.
pub async fn wait_for(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
