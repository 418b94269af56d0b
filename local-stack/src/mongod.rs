//! A `mongod` that is the only member of a replica set.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};

use crate::data_dir::ServerDir;
use crate::error::ServerError;
use crate::obtain::Binaries;
use crate::program::Program;
use crate::server::{Probe, Server, with_port};
use crate::wire::command;

/// The name of the replica set. Transactions and change streams need one, even of one member.
pub const REPLICA_SET: &str = "rs0";

/// How long a `mongod` may take from its launch until it is a writable primary.
/// Usually it takes three seconds. If the data were last used on another port, the server first asks that port
/// whether it is itself. If something listens there that never answers, it gives up after 30 s; only then can its
/// configuration be changed.
pub const MONGOD_START_MAX_SECONDS: u64 = 60;

/// How long one probe of a starting server may take.
const PROBE_MAX_MS: u64 = 5_000;
/// The memory for cached data; the default is half of the machine's memory.
const CACHE_GIB: &str = "0.25";
/// The size of the replication log, which only change streams read here.
const OPLOG_MIB: &str = "512";
/// How long the server keeps announcing its shutdown to clients. The default of 15 s is for clients that can switch
/// to another member.
const SHUTDOWN_ANNOUNCED_MS: u64 = 100;
/// The server's code for "this node has no replica set configuration".
const NOT_YET_INITIALIZED: i64 = 94;

/// How to run a `mongod`.
#[derive(Debug)]
pub struct MongodOptions {
    /// Where its databases and its log are stored.
    pub data_dir: ServerDir,
    /// The port of `127.0.0.1`, or any free one; it may differ from that of an earlier start with
    /// the same data.
    pub port: Option<u16>,
}

/// A running `mongod`, the primary of its one-member replica set; dropping the handle stops it.
///
/// All methods block, with bounds.
#[derive(Debug)]
pub struct Mongod {
    server: Server,
    port: u16,
}

impl Mongod {
    /// Starts a server and waits until it is a writable primary.
    ///
    /// # Errors
    ///
    /// [`ServerError::PortInUse`]: the given port is taken. [`ServerError::Exited`] and [`ServerError::NotReady`]
    /// show the end of the server's log.
    pub fn start(binaries: &Binaries, options: MongodOptions) -> Result<Self, ServerError> {
        Self::start_at(&binaries.mongod, options)
    }

    pub(crate) fn start_at(executable: &Path, options: MongodOptions) -> Result<Self, ServerError> {
        let last = options.data_dir.path().with_extension("port");
        let mut mongod = Self {
            server: Server::prepare(Program::Mongod, executable, options.data_dir)?,
            port: 0,
        };
        mongod.port = with_port(Program::Mongod, options.port, &last, |port| mongod.launch(port))?;
        Ok(mongod)
    }

    /// Stops the server if it runs, then starts it on the same port with the same data.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and [`ServerError::NotStopped`].
    pub fn restart(&self) -> Result<(), ServerError> {
        self.launch(self.port)
    }

    /// Stops the server: cleanly within [`STOP_GRACE_SECONDS`](crate::STOP_GRACE_SECONDS), else
    /// by SIGKILL. Does nothing when it does not run.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotStopped`] when not even SIGKILL ends it.
    pub fn stop(&self) -> Result<(), ServerError> {
        self.server.stop()
    }

    /// Kills the server with SIGKILL and waits until it has ended, for tests of a crash.
    ///
    /// # Errors
    ///
    /// [`ServerError::NotStopped`] when it does not end.
    pub fn kill(&self) -> Result<(), ServerError> {
        self.server.kill()
    }

    /// The URL for drivers; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mongodb://127.0.0.1:{}/?replicaSet={REPLICA_SET}&directConnection=true", self.port)
    }

    /// The port of `127.0.0.1`; the same after a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server itself, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// Whether the server runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Where the server logs to. The file starts empty with each handle and is not rotated.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        self.server.log_file()
    }

    fn launch(&self, port: u16) -> Result<(), ServerError> {
        let data = self.server.folder().join("db");
        std::fs::create_dir_all(&data).map_err(ServerError::io("make the folder", &data))?;
        let mut arguments = vec![OsString::from("--dbpath"), data.into_os_string()];
        arguments.extend(
            [
                "--bind_ip",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--replSet",
                REPLICA_SET,
                "--oplogSize",
                OPLOG_MIB,
                "--wiredTigerCacheSizeGB",
                CACHE_GIB,
                "--nounixsocket",
                "--quiet",
                "--setParameter",
                "diagnosticDataCollectionEnabled=false",
                "--setParameter",
                &format!("shutdownTimeoutMillisForSignaledShutdown={SHUTDOWN_ANNOUNCED_MS}"),
            ]
            .map(OsString::from),
        );
        self.server.launch(port, &arguments, MONGOD_START_MAX_SECONDS, |pid| {
            match probe(port, pid) {
                Ok(probe) => probe,
                Err(error) => Probe::NotYet(format!("no answer on 127.0.0.1:{port} ({error})")),
            }
        })
    }
}

/// Probes the server and takes the next step towards a primary, if one is due.
fn probe(port: u16, pid: u32) -> io::Result<Probe> {
    let limit = Duration::from_millis(PROBE_MAX_MS);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;

    let status = command(&mut stream, doc! { "serverStatus": 1 })?;
    if integer(&status, "pid") != Some(i64::from(pid)) {
        return Ok(Probe::NotYet("another mongod answers on its port".to_owned()));
    }
    let host = format!("127.0.0.1:{port}");
    let hello = command(&mut stream, doc! { "hello": 1 })?;
    if is_ready(&hello, &host) {
        return Ok(Probe::Ready);
    }
    let current = command(&mut stream, doc! { "replSetGetConfig": 1 })?;
    let Some(step) = next_step(&current, &host) else {
        return Ok(Probe::NotYet(format!(
            "it is not a primary yet; replica set: {}",
            outcome(&current)
        )));
    };
    // Fails while the server is still reading its own configuration; the next probe tries again.
    let reply = command(&mut stream, step)?;
    Ok(Probe::NotYet(format!(
        "it is not a primary yet; setting up the replica set: {}",
        outcome(&reply)
    )))
}

/// An integer. The server sends small ones as either of the two integer types.
fn integer(document: &Document, name: &str) -> Option<i64> {
    document.get_i32(name).map(i64::from).or_else(|_| document.get_i64(name)).ok()
}

/// Whether a reply reports success, as `ok: 1.0`.
fn is_ok(reply: &Document) -> bool {
    reply.get_f64("ok").is_ok_and(|ok| ok == 1.0)
}

/// A writable primary whose replica set names its current address.
fn is_ready(hello: &Document, host: &str) -> bool {
    hello.get_bool("isWritablePrimary").unwrap_or(false)
        && hello.get_str("me").is_ok_and(|me| me == host)
}

/// The command that makes `host` the one member of the replica set, if it is not yet.
///
/// The stored configuration names the port of the previous start. A member that does not find itself in its
/// configuration belongs to no set, and only a forced change repairs that.
fn next_step(current: &Document, host: &str) -> Option<Document> {
    if !is_ok(current) {
        return (integer(current, "code") == Some(NOT_YET_INITIALIZED))
            .then(|| doc! { "replSetInitiate": configuration(host, 1) });
    }
    let config = current.get_document("config").ok()?;
    let members = config.get_array("members").ok()?;
    let mut hosts = members.iter().filter_map(|member| member.as_document()?.get_str("host").ok());
    if hosts.next() == Some(host) && hosts.next().is_none() {
        return None;
    }
    let version = integer(config, "version")?;
    Some(doc! { "replSetReconfig": configuration(host, version + 1), "force": true })
}

fn configuration(host: &str, version: i64) -> Document {
    doc! { "_id": REPLICA_SET, "version": version, "members": [{ "_id": 0, "host": host }] }
}

/// What a reply says about success.
fn outcome(reply: &Document) -> &str {
    if is_ok(reply) { "done" } else { reply.get_str("errmsg").unwrap_or("refused") }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::data_dir::DataDir;
    use crate::testing;

    const HOST: &str = "127.0.0.1:20001";

    fn start(data: &DataDir) -> Mongod {
        let options = MongodOptions { data_dir: data.mongod(), port: None };
        Mongod::start(testing::binaries(), options).unwrap()
    }

    fn ask(mongod: &Mongod, body: Document) -> Document {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, mongod.port())).unwrap();
        let reply = command(&mut stream, body).unwrap();
        assert_eq!(outcome(&reply), "done");
        reply
    }

    /// Inserts a document; acknowledged when it is in the journal.
    fn insert(mongod: &Mongod) {
        let concern = doc! { "w": "majority", "j": true };
        let documents = [doc! { "present": true }];
        let body = doc! { "insert": "kept", "documents": documents, "writeConcern": concern };
        assert_eq!(integer(&ask(mongod, body), "n"), Some(1));
    }

    fn count(mongod: &Mongod) -> i64 {
        integer(&ask(mongod, doc! { "count": "kept" }), "n").unwrap()
    }

    #[test]
    fn data_survive_a_kill_and_a_move_to_another_port() {
        let folder = testing::temp_dir();
        let data = DataDir::open(folder.path()).unwrap();
        let mongod = start(&data);
        let url = mongod.url();
        insert(&mongod);

        mongod.kill().unwrap();
        assert!(!mongod.is_running());
        mongod.restart().unwrap();
        assert_eq!(mongod.url(), url);
        assert_eq!(count(&mongod), 1);
        insert(&mongod);

        let first_port = mongod.port();
        drop(mongod);
        // The port of the last time, unless somebody else has it by now.
        let taken = std::net::TcpListener::bind(("127.0.0.1", first_port)).unwrap();
        let mongod = start(&data);
        assert_ne!(mongod.port(), first_port);
        drop(taken);
        assert_eq!(count(&mongod), 2);
        insert(&mongod);
        mongod.stop().unwrap();
        mongod.restart().unwrap();
        assert_eq!(count(&mongod), 3);
    }

    fn stored(host: &str) -> Document {
        doc! { "config": configuration(host, 41), "ok": 1.0 }
    }

    fn refusal(code: i32) -> Document {
        doc! { "ok": 0.0, "errmsg": "because", "code": code }
    }

    #[test]
    fn a_node_without_configuration_is_initiated() {
        let step = next_step(&refusal(94), HOST).unwrap();
        assert_eq!(step, doc! { "replSetInitiate": configuration(HOST, 1) });
        assert_eq!(next_step(&refusal(13), HOST), None);
        assert_eq!(outcome(&refusal(13)), "because");
    }

    #[test]
    fn a_configuration_for_another_port_is_replaced_by_its_successor() {
        let step = next_step(&stored("127.0.0.1:20002"), HOST).unwrap();
        assert_eq!(step, doc! { "replSetReconfig": configuration(HOST, 42), "force": true });
    }

    #[test]
    fn the_right_configuration_stays() {
        assert_eq!(next_step(&stored(HOST), HOST), None);
    }

    #[test]
    fn only_a_primary_under_the_present_address_is_ready() {
        let hello = |primary: bool, me: &str| doc! { "isWritablePrimary": primary, "me": me };
        assert!(is_ready(&hello(true, HOST), HOST));
        assert!(!is_ready(&hello(false, HOST), HOST));
        assert!(!is_ready(&hello(true, "127.0.0.1:20002"), HOST));
    }
}
