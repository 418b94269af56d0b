//! The servers of `roster dev`: started together, restarted when they die, stopped at the end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use local_stack::{Binaries, DataDir, Mongod, MongodOptions, NatsOptions, NatsServer, ServerError};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::cli::progress;

/// How often the servers are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Deaths in a row after which nothing is restarted any more.
const FAILURES_MAX: u32 = 5;
/// A server that ran this long has recovered: its next death counts as the first.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// The servers that run here. One that was given from outside is not among them.
#[derive(Clone)]
pub struct Stack {
    nats: Option<Arc<NatsServer>>,
    mongod: Option<Arc<Mongod>>,
}

/// What a server can be asked to do, whichever it is.
trait Server: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn is_running(&self) -> bool;
    fn restart(&self) -> Result<(), ServerError>;
}

macro_rules! server {
    ($kind:ty, $name:literal) => {
        impl Server for $kind {
            fn name(&self) -> &'static str {
                $name
            }
            fn is_running(&self) -> bool {
                <$kind>::is_running(self)
            }
            fn restart(&self) -> Result<(), ServerError> {
                <$kind>::restart(self)
            }
        }
    };
}

server!(NatsServer, "nats-server");
server!(Mongod, "mongod");

impl Stack {
    /// Obtains and starts the servers that are wanted, side by side.
    pub async fn start(
        data_dir: DataDir,
        nats_config: Option<String>,
        with_mongod: bool,
    ) -> anyhow::Result<Self> {
        if nats_config.is_none() && !with_mongod {
            return Ok(Self { nats: None, mongod: None });
        }
        let binaries = spawn_blocking(|| Binaries::obtain(&|line| progress(&line.to_string())))
            .await?
            .context("cannot obtain the servers")?;
        let binaries = Arc::new(binaries);
        let nats = nats_config.map(|config| {
            let options = NatsOptions { data_dir: data_dir.nats(), port: None, config };
            let binaries = Arc::clone(&binaries);
            spawn_blocking(move || NatsServer::start(&binaries, options))
        });
        let mongod = with_mongod.then(|| {
            let options = MongodOptions { data_dir: data_dir.mongod(), port: None };
            let binaries = Arc::clone(&binaries);
            spawn_blocking(move || Mongod::start(&binaries, options))
        });
        let nats = match nats {
            None => None,
            Some(starting) => Some(Arc::new(starting.await?.context("cannot start nats-server")?)),
        };
        let mongod = match mongod {
            None => None,
            Some(starting) => Some(Arc::new(starting.await?.context("cannot start mongod")?)),
        };
        Ok(Self { nats, mongod })
    }

    /// Address of the NATS that runs here.
    pub fn nats_url(&self) -> Option<String> {
        self.nats.as_ref().map(|nats| nats.url())
    }

    /// Address of the MongoDB that runs here.
    pub fn mongodb_url(&self) -> Option<String> {
        self.mongod.as_ref().map(|mongod| mongod.url())
    }

    /// Restarts what dies until `stop`; returns the name of a server that keeps dying.
    pub async fn watch(&self, stop: &CancellationToken) -> Option<&'static str> {
        let given_up = async {
            tokio::select! {
                name = watch(self.nats.clone()) => name,
                name = watch(self.mongod.clone()) => name,
            }
        };
        tokio::select! {
            () = stop.cancelled() => None,
            name = given_up => Some(name),
        }
    }

    /// Stops both.
    pub async fn stop(self) {
        let (nats, mongod) = (self.nats, self.mongod);
        let stopped = spawn_blocking(move || {
            let nats = nats.map_or(Ok(()), |nats| nats.stop());
            let mongod = mongod.map_or(Ok(()), |mongod| mongod.stop());
            nats.and(mongod)
        });
        if let Ok(Err(error)) = stopped.await {
            tracing::warn!(%error, "a server did not stop cleanly");
        }
    }
}

/// Restarts one server whenever it dies; ends with its name when it keeps dying.
async fn watch(server: Option<Arc<impl Server>>) -> &'static str {
    let Some(server) = server else { return std::future::pending().await };
    let mut failures = 0;
    let mut died_at: Option<Instant> = None;
    let mut look = interval(WATCH_EVERY);
    loop {
        look.tick().await;
        let asked = Arc::clone(&server);
        if spawn_blocking(move || asked.is_running()).await.unwrap_or(true) {
            continue;
        }
        if died_at.is_some_and(|died_at| died_at.elapsed() > RECOVERED_AFTER) {
            failures = 0;
        }
        died_at = Some(Instant::now());
        failures += 1;
        if failures > FAILURES_MAX {
            return server.name();
        }
        tracing::warn!(server = server.name(), failures, "a server died and is restarted");
        let asked = Arc::clone(&server);
        if let Ok(Err(error)) = spawn_blocking(move || asked.restart()).await {
            tracing::warn!(server = server.name(), %error, "the restart failed");
        }
    }
}

/// The data folder, locked for this process.
pub async fn open(path: &Path) -> anyhow::Result<DataDir> {
    let path = path.to_owned();
    let opened = spawn_blocking(move || DataDir::open(path)).await?;
    opened.context("cannot use the data folder")
}
