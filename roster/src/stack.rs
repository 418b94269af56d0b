//! The servers of `roster dev`: started together, restarted when they die, stopped at the end.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use local_stack::{Binaries, DataDir, Mongod, MongodOptions, NatsOptions, NatsServer};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::cli::progress;
use crate::supervise::{Supervised, supervise};

/// The servers that run here. One that was given from outside is not among them.
#[derive(Clone)]
pub struct Stack {
    nats: Option<Arc<NatsServer>>,
    mongod: Option<Arc<Mongod>>,
}

macro_rules! server {
    ($kind:ty, $name:literal) => {
        impl Supervised for $kind {
            fn name(&self) -> &str {
                $name
            }
            fn is_running(&self) -> bool {
                <$kind>::is_running(self)
            }
            fn restart(&self) -> anyhow::Result<()> {
                Ok(<$kind>::restart(self)?)
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
    pub async fn watch(&self, stop: &CancellationToken) -> Option<String> {
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

/// As [`supervise`]; without a server there is nothing to end with.
async fn watch(server: Option<Arc<impl Supervised>>) -> String {
    match server {
        Some(server) => supervise(server).await,
        None => std::future::pending().await,
    }
}

/// The data folder, locked for this process.
pub async fn open(path: &Path) -> anyhow::Result<DataDir> {
    let path = path.to_owned();
    let opened = spawn_blocking(move || DataDir::open(path)).await?;
    opened.context("cannot use the data folder")
}
