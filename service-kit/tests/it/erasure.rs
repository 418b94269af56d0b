//! What a secure delete of the real server does to the bytes on its disk, and what it does not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use events::{Position, subjects};
use futures::StreamExt as _;
use local_stack::testing::{TempDir, binaries, temp_dir};
use local_stack::{DataDir, NatsOptions, NatsServer};
use nats_access::{Role, TestTrust};
use service_kit::config::Settings;
use service_kit::event_log::{
    Append, EVENT_TYPE_HEADER, EventLog, Guard, Outcome, Write, erasures, sessions_stream,
    users_stream,
};

use crate::support::{account, command, connect, limits, log, of_writer, spec};

/// Bound of the streams; their blocks have 4 MB then.
const BYTES_MAX: u64 = 24 << 20;
/// Messages that fill such a block and begin the next one.
const BLOCKFUL: u64 = 300;

/// A server that is killed, and the folder with its files.
struct Server {
    nats: NatsServer,
    trust: TestTrust,
    dir: TempDir,
}

impl Server {
    fn start() -> Self {
        Self::start_with(|_| String::new())
    }

    /// One that encrypts what it stores.
    fn start_encrypted() -> Self {
        Self::start_with(|folder| {
            let store = folder.join("jetstream");
            format!(
                "jetstream {{ store_dir: {store:?}, sync_interval: always, cipher: aes, key: \"k\" }}"
            )
        })
    }

    /// What comes later in a configuration counts.
    fn start_with(more: impl Fn(&Path) -> String) -> Self {
        let (trust, dir) = (TestTrust::with_accounts(1), temp_dir());
        let data = DataDir::open(dir.path().join("servers")).unwrap();
        let server = data.nats();
        let config = format!("{}\n{}", trust.server_config().unwrap(), more(server.path()));
        let options = NatsOptions { data_dir: server, port: None, config };
        Self { nats: NatsServer::start(binaries(), options).unwrap(), trust, dir }
    }

    async fn operator(&self) -> async_nats::Client {
        let creds = self.trust.account(0).creds(Role::Operator).unwrap();
        let options = async_nats::ConnectOptions::with_credentials(&creds).unwrap();
        options.connect(self.nats.url()).await.unwrap()
    }

    async fn log(&self, stream: &str) -> EventLog {
        EventLog::new(self.operator().await, stream, limits())
    }

    /// Whether a text stands in any file of the server.
    fn has(&self, text: &str) -> bool {
        has(self.dir.path(), text.as_bytes())
    }
}

/// The files of messages in a folder, with their content.
fn blocks(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(blocks(&path));
        } else if path.extension().is_some_and(|extension| extension == "blk") {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

fn has(folder: &Path, text: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return has(&path, text);
        }
        // A file may be replaced while it is looked at.
        std::fs::read(&path).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text))
    })
}

async fn put(log: &EventLog, subject: &str, payload: Vec<u8>) -> Position {
    let last = log.last(subject).await.unwrap();
    let guard = last.map_or(Guard::absent(), |last| last.guard());
    let write = of_writer(subject, guard, payload);
    let outcome = log.append(&Append::new(command(), write)).await;
    let Outcome::Stored(position) = outcome else { panic!("{outcome:?}") };
    position
}

/// Something that packs to half its size.
fn filler(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = vec![0; 16 << 10];
    for chunk in bytes.chunks_mut(16) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk[..8].copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Fills a block and begins the next one; the filled one is packed then.
async fn fill_block(log: &EventLog, subject: &str) -> Vec<Position> {
    let mut positions = Vec::new();
    for n in 0..BLOCKFUL {
        positions.push(put(log, &format!("{subject}{n}"), filler(n)).await);
    }
    positions
}

#[tokio::test]
async fn what_is_erased_is_gone_from_the_disk_and_the_stream_still_knows_its_end() {
    let server = Server::start();
    let log = server.log(subjects::USERS_STREAM).await;
    let mut settings = Settings::merge("", []).unwrap();
    settings.log.bytes_max = BYTES_MAX;
    log.provision(&users_stream(&settings.log)).await.unwrap();

    // Unlike each other and the rest, so that they stand in a packed block as they are.
    let canaries = ["QZXJKVWPYGHMLTRSDBFNC", "wvutsrqponmlkjihgfedcba", "0918273645546372819"];
    let mut positions = Vec::new();
    for (n, canary) in canaries.iter().enumerate() {
        let name = format!(r#"{{"name":"{canary}"}}"#);
        positions.push(put(&log, "ev.user.x", name.into_bytes()).await);
        if n == 0 {
            fill_block(&log, "ev.user.filler").await;
        }
    }
    for canary in canaries {
        assert!(server.has(canary), "{canary}: looking finds what is there");
    }
    // In a packed block, inside the newest block, and the last message of the stream.
    for (canary, position) in canaries.iter().zip(&positions) {
        assert!(log.erase(*position).await.unwrap());
        assert!(!server.has(canary), "{canary} is still on the disk");
    }
    let end = positions[2];
    assert_eq!(log.end().await.unwrap(), end);

    server.nats.kill().unwrap();
    server.nats.restart().unwrap();
    let log = server.log(subjects::USERS_STREAM).await;
    assert_eq!(log.end().await.unwrap(), end, "the end is kept, although its message is gone");
    for (canary, position) in canaries.iter().zip(&positions) {
        assert!(log.at(*position).await.unwrap().is_none());
        assert!(!server.has(canary));
    }
    assert_eq!(put(&log, "ev.user.x", b"{}".to_vec()).await, Position(end.0 + 1));
}

/// Messages that the server drops of itself (more than are kept of a subject, too old, acknowledged in a work
/// queue) are dead, and their bytes stay: erasure does not see them any more. docs/erasure.md says so.
#[tokio::test]
async fn what_leaves_by_a_limit_stays_on_the_disk_until_its_block_is_rewritten() {
    let server = Server::start();
    let log = server.log(subjects::SESSIONS_STREAM).await;
    let mut settings = Settings::merge("", []).unwrap();
    settings.log.sessions_bytes_max = BYTES_MAX;
    log.provision(&sessions_stream(&settings.log, &settings.sessions)).await.unwrap();
    let canary = "QZXJKVWPYGHMLTRSDBFNC";
    let first = put(&log, "ev.session.x.y", canary.as_bytes().to_vec()).await;
    for _ in 0..16 {
        put(&log, "ev.session.x.y", b"{}".to_vec()).await;
    }
    assert!(log.at(first).await.unwrap().is_none(), "more than 16 are not kept");
    assert!(server.has(canary), "what is dropped is not overwritten");
    let others = fill_block(&log, "ev.session.z.").await;
    assert!(server.has(canary));
    for position in &others[..others.len() / 2] {
        assert!(log.erase(*position).await.unwrap());
    }
    assert!(!server.has(canary), "more than half of the block is dead, and it is rewritten");
}

/// Why the eraser does not purge a subject, which would be a thousand times as fast: docs/adr/0015.
#[tokio::test]
async fn a_purge_by_subject_leaves_the_text_on_the_disk() {
    let server = Server::start();
    let log = server.log(subjects::USERS_STREAM).await;
    let mut settings = Settings::merge("", []).unwrap();
    settings.log.bytes_max = BYTES_MAX;
    log.provision(&users_stream(&settings.log)).await.unwrap();
    let context = async_nats::jetstream::new(server.operator().await);
    let stream = context.get_stream(subjects::USERS_STREAM).await.unwrap();
    // Roster's streams forbid it, and what is forbidden is never allowed again: a stream of the same kind.
    assert!(stream.purge().filter("ev.user.x").await.is_err());
    let mut config = stream.cached_info().config.clone();
    (config.name, config.subjects, config.deny_purge) =
        ("PURGED".to_owned(), vec!["purged.>".to_owned()], false);
    let stream = context.create_stream(config).await.unwrap();
    let purged = server.log("PURGED").await;

    let canary = "QZXJKVWPYGHMLTRSDBFNC";
    let subject = "purged.user.x";
    let position = put(&purged, subject, canary.as_bytes().to_vec()).await;
    fill_block(&purged, "purged.filler").await;
    assert_eq!(stream.purge().filter(subject).await.unwrap().purged, 1);
    assert!(server.has(canary), "a purge overwrites nothing");
    assert!(!purged.erase(position).await.unwrap(), "and what is purged cannot be erased later");
    assert!(server.has(canary));
}

/// Encryption of the store takes the place of overwriting: docs/erasure.md.
#[tokio::test]
async fn in_an_encrypted_store_no_text_is_on_the_disk_and_nothing_is_overwritten() {
    let server = Server::start_encrypted();
    let log = server.log(subjects::USERS_STREAM).await;
    let mut settings = Settings::merge("", []).unwrap();
    settings.log.bytes_max = BYTES_MAX;
    log.provision(&users_stream(&settings.log)).await.unwrap();
    let canary = "QZXJKVWPYGHMLTRSDBFNC";
    let position = put(&log, "ev.user.x", canary.as_bytes().to_vec()).await;
    fill_block(&log, "ev.user.filler").await;
    assert!(!server.has(canary), "it never was in a file as it is");
    let before = blocks(server.dir.path());
    assert!(log.erase(position).await.unwrap());
    assert!(log.at(position).await.unwrap().is_none());
    let after = blocks(server.dir.path());
    let (first, newest) = (before.keys().next().unwrap(), before.keys().next_back().unwrap());
    assert_ne!(first, newest, "one block is filled");
    assert!(before[first] == after[first], "the block of the message is rewritten");
}

#[tokio::test]
async fn who_erases_is_told_the_type_of_an_event_and_nothing_of_its_content() {
    let account = account();
    let operator = log(connect(account, Role::Operator).await);
    operator.provision(&spec()).await.unwrap();
    operator.provision_consumer(&erasures()).await.unwrap();
    let id = service_kit::ambient::new_uuid();
    let write = Write::new("ev.user.x".to_owned(), Guard::absent(), r#"{"name":"Ada"}"#);
    let write = write.event(id, "user.deleted.v1");
    let commands = log(connect(account, Role::CommandApi).await);
    let outcome = commands.append(&Append::new(command(), write)).await;
    assert_eq!(outcome, Outcome::Stored(Position(1)));
    let reactor = log(connect(account, Role::Eraser).await);
    let mut tasks = Box::pin(reactor.take(&erasures(), 1).await.unwrap());
    let task = tasks.next().await.unwrap().unwrap();
    assert_eq!(task.header(EVENT_TYPE_HEADER), Some("user.deleted.v1"));
    assert_eq!(task.payload(), b"");
    task.ack().await.unwrap();
}
