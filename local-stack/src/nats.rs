//! A `nats-server` with JetStream.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::data_dir::ServerDir;
use crate::error::ServerError;
use crate::obtain::Binaries;
use crate::program::Program;
use crate::server::{Probe, Server, with_port};

/// How long a `nats-server` may take from its launch until it is ready.
pub const NATS_START_MAX_SECONDS: u64 = 30;

/// How long one probe of a starting server may take.
const PROBE_MAX_MS: u64 = 1_000;
/// The longest first line that is read from a server.
const INFO_BYTES_MAX: u64 = 64 * 1024;
/// The configuration file in the data folder.
const CONFIG_FILE: &str = "nats.conf";

/// How to run a `nats-server`.
#[derive(Debug)]
pub struct NatsOptions {
    /// Where its streams, its configuration and its log are stored.
    pub data_dir: ServerDir,
    /// The port of `127.0.0.1`, or any free one.
    pub port: Option<u16>,
    /// More configuration in the server's own language, for example accounts or an operator. It must not set
    /// `listen`, `server_name` or `jetstream`: these are set here.
    pub config: String,
}

/// A running `nats-server`; dropping the handle stops it.
///
/// JetStream is on and syncs every write to disk, so that an acknowledged message survives
/// [`kill`](Self::kill). All methods block, with bounds.
#[derive(Debug)]
pub struct NatsServer {
    server: Server,
    port: u16,
    name: String,
    config: String,
}

impl NatsServer {
    /// Starts a server and waits until it accepts connections with JetStream on.
    ///
    /// # Errors
    ///
    /// [`ServerError::PortInUse`]: the given port is taken. [`ServerError::Exited`] and [`ServerError::NotReady`]
    /// show the end of the server's log, also for a mistake in the given configuration.
    pub fn start(binaries: &Binaries, options: NatsOptions) -> Result<Self, ServerError> {
        Self::start_at(&binaries.nats_server, options)
    }

    pub(crate) fn start_at(executable: &Path, options: NatsOptions) -> Result<Self, ServerError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let last = options.data_dir.path().with_extension("port");
        let mut nats = Self {
            server: Server::prepare(Program::NatsServer, executable, options.data_dir)?,
            port: 0,
            // A unique name, so that an answer on the port can be attributed to this server.
            name: format!(
                "roster-{}-{}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ),
            config: options.config,
        };
        nats.port = with_port(Program::NatsServer, options.port, &last, |port| nats.launch(port))?;
        Ok(nats)
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

    /// The URL for clients; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
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
        let folder = self.server.folder();
        let store = folder.join("jetstream");
        let store =
            store.to_str().ok_or_else(|| ServerError::PathNotUtf8 { path: store.clone() })?;
        let path = folder.join(CONFIG_FILE);
        fs::write(&path, configuration(port, &self.name, store, &self.config))
            .map_err(ServerError::io("write", &path))?;
        let arguments = [OsString::from("--config"), path.into_os_string()];
        self.server.launch(port, &arguments, NATS_START_MAX_SECONDS, |_| probe(port, &self.name))
    }
}

/// The whole configuration. It sets no monitoring port, so there is none. The server checks the size limits of
/// streams against `max_file_store` before anything is written. The default, three quarters of the free disk space,
/// is often too small on a developer's machine for production's limits.
fn configuration(port: u16, name: &str, store: &str, extra: &str) -> String {
    format!(
        "listen: \"127.0.0.1:{port}\"\n\
         server_name: \"{name}\"\n\
         jetstream {{\n    store_dir: {}\n    max_file_store: 64TB\n    sync_interval: always\n}}\n\
         {extra}\n",
        quoted(store)
    )
}

/// A string in the server's configuration language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn probe(port: u16, name: &str) -> Probe {
    match first_line(port) {
        Err(error) => Probe::NotYet(format!("no answer on 127.0.0.1:{port} ({error})")),
        Ok(line) => parse_info(&line, name),
    }
}

/// The line a server sends to every client that connects.
fn first_line(port: u16) -> io::Result<String> {
    let limit = Duration::from_millis(PROBE_MAX_MS);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut line = String::new();
    BufReader::new(stream.take(INFO_BYTES_MAX)).read_line(&mut line)?;
    Ok(line)
}

fn parse_info(line: &str, name: &str) -> Probe {
    let info: Option<serde_json::Value> =
        line.strip_prefix("INFO ").and_then(|json| serde_json::from_str(json).ok());
    let Some(info) = info else {
        return Probe::NotYet("the answer on its port is not that of a nats-server".to_owned());
    };
    let field = |key: &str| info.get(key);
    if field("server_name").and_then(serde_json::Value::as_str) != Some(name) {
        return Probe::NotYet("another nats-server answers on its port".to_owned());
    }
    if field("jetstream").and_then(serde_json::Value::as_bool) != Some(true) {
        return Probe::NotYet("JetStream is not on".to_owned());
    }
    Probe::Ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_server_with_jetstream_is_ready() {
        let ready = r#"INFO {"server_id":"X","server_name":"mine","jetstream":true}"#;
        assert!(matches!(parse_info(ready, "mine"), Probe::Ready));
        for (line, reason) in [
            (ready, "another"),
            (r#"INFO {"server_name":"yours"}"#, "JetStream"),
            ("HTTP/1.1 400 Bad Request\r\n", "not that of"),
            ("", "not that of"),
        ] {
            let Probe::NotYet(text) = parse_info(line, "yours") else {
                panic!("{line} was accepted as ready");
            };
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn the_configuration_quotes_the_folder_and_keeps_the_extra_text() {
        let text = configuration(4222, "name", r#"/a "b"\c"#, "max_payload: 1MB");
        assert!(text.contains(r#"store_dir: "/a \"b\"\\c""#), "{text}");
        assert!(text.contains("listen: \"127.0.0.1:4222\""), "{text}");
        assert!(text.contains("sync_interval: always"), "{text}");
        assert!(text.contains("max_file_store: 64TB"), "{text}");
        assert!(text.ends_with("max_payload: 1MB\n"), "{text}");
    }
}
