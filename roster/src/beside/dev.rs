//! Further services in `roster dev`: each a process of its own with its own credentials, keys and database, as it would
//! be in production.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use events::ServiceNames;
use futures::future::{join_all, select_all, try_join_all};
use local_stack::{DataDir, ServerDir, SupervisedProcess, SupervisedProcessOptions};
use nats_access::Trust;
use service_kit::config::Settings;
use tokio::task::spawn_blocking;

use super::{find, keys, manifest};
use crate::cli::say;
use crate::supervise::{Supervised, supervise};

/// Time for a service to make its streams.
const PROVISION_MAX_SECONDS: u64 = 60;
/// Time for a service to say that it is ready.
const READY_MAX_SECONDS: u64 = 30;
/// Where it listens at first: anywhere.
const ANYWHERE: &str = "127.0.0.1:0";
/// Variables that are Roster's own begin so, some of them secrets: no other program gets them.
const ROSTER_VARIABLES: &str = "ROSTER_";

/// A service that is to run: its names, its executable and its folder.
pub struct Wanted {
    names: ServiceNames,
    executable: PathBuf,
    dir: ServerDir,
}

/// Reads the manifests in some folders and looks for the executables. Nothing is made.
pub fn wanted(folders: &[PathBuf], data: &DataDir) -> anyhow::Result<Vec<Wanted>> {
    let mut taken = HashSet::new();
    let mut wanted = Vec::new();
    for folder in folders {
        let names = manifest::read(folder)?;
        for name in [names.service(), names.log_stream(), names.feed_stream()] {
            if !taken.insert(name.clone()) {
                bail!("two of the services have {name}: give them other names");
            }
        }
        let executable = find::executable(&names.service())?;
        let dir = data.companion(&names.service());
        wanted.push(Wanted { names, executable, dir });
    }
    Ok(wanted)
}

/// What there is for the services.
pub struct Around<'a> {
    /// The settings of Roster as it runs.
    pub settings: &'a Settings,
    /// Where clients reach Roster, which is what its tokens say that they are from.
    pub url: &'a str,
    /// The keys of NATS.
    pub trust: &'a Trust,
    /// The folder with the credentials of those keys; `None` when NATS is another's, and the settings say how to get in.
    pub creds: Option<&'a Path>,
    /// The folder with the keys of all services.
    pub secrets: &'a Path,
}

/// The services that run here.
pub struct Beside {
    services: Vec<Arc<Service>>,
}

struct Service {
    names: ServiceNames,
    companion: SupervisedProcess,
    /// Variables of `provision`, beside those of both.
    as_operator: Vec<(String, String)>,
    /// Variables of `serve`, beside those of both.
    as_itself: Vec<(String, String)>,
    /// Where it listened first: clients keep the address over a restart.
    addresses: OnceLock<Addresses>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    public: SocketAddr,
    private: SocketAddr,
}

impl Beside {
    /// Makes keys, credentials and folders. Nothing runs yet.
    pub fn prepare(wanted: Vec<Wanted>, around: &Around<'_>) -> anyhow::Result<Self> {
        let services = wanted.into_iter().map(|wanted| {
            let name = wanted.names.service();
            let service = Service::prepare(wanted, around);
            service.map(Arc::new).with_context(|| format!("cannot prepare {name}"))
        });
        Ok(Self { services: services.collect::<anyhow::Result<_>>()? })
    }

    /// Has each make its streams and its consumer.
    pub async fn provision(&self) -> anyhow::Result<()> {
        let all = self.services.iter().map(|service| {
            let service = Arc::clone(service);
            spawn_blocking(move || service.provision())
        });
        for done in join_all(all).await {
            done??;
        }
        Ok(())
    }

    /// Starts them and says where they listen, a line each.
    pub async fn start(&self) -> anyhow::Result<()> {
        let all = self.services.iter().map(|service| {
            let service = Arc::clone(service);
            async move { spawn_blocking(move || service.start()).await? }
        });
        let addresses = try_join_all(all).await?;
        for (service, Addresses { public, private }) in self.services.iter().zip(addresses) {
            say(&format!("{}=http://{public} private=http://{private}", service.names));
        }
        Ok(())
    }

    /// Restarts what dies; ends with the name of one that keeps dying.
    pub async fn watch(&self) -> String {
        if self.services.is_empty() {
            return std::future::pending().await;
        }
        let all = self.services.iter().map(|service| Box::pin(supervise(Arc::clone(service))));
        select_all(all).await.0
    }

    /// Stops them, also those that are just being started.
    pub async fn stop(&self) {
        let all = self.services.iter().map(|service| {
            let service = Arc::clone(service);
            spawn_blocking(move || service.companion.stop())
        });
        for stopped in join_all(all).await {
            if let Ok(Err(error)) = stopped {
                tracing::warn!(%error, "a service did not stop cleanly");
            }
        }
    }
}

impl Service {
    fn prepare(wanted: Wanted, around: &Around<'_>) -> anyhow::Result<Self> {
        let Wanted { names, executable, dir } = wanted;
        let name = names.service();
        let secrets = std::path::absolute(around.secrets.join(&name))?;
        let operator = around.creds.map(|creds| creds.join("operator.creds"));
        let own = around.creds.map(|creds| creds.join(format!("{name}.creds")));
        keys::make(&secrets)?;
        if let Some(own) = &own {
            keys::make_creds(around.trust, &names, own)?;
        }
        let variables = Variables { prefix: names.variable_prefix(), around };
        let as_operator = variables.credentials(operator.as_deref())?;
        let as_itself = variables.credentials(own.as_deref())?;
        let companion = SupervisedProcess::prepare(SupervisedProcessOptions {
            name,
            executable,
            dir,
            variables: variables.of_both(names.database(), &secrets)?,
            hidden: of_roster(),
        })?;
        Ok(Self { names, companion, as_operator, as_itself, addresses: OnceLock::new() })
    }

    fn provision(&self) -> anyhow::Result<()> {
        let limit = PROVISION_MAX_SECONDS;
        Ok(self.companion.run("provision", &self.as_operator, limit)?)
    }

    fn start(&self) -> anyhow::Result<Addresses> {
        let mut variables = self.as_itself.clone();
        if let Some(Addresses { public, private }) = self.addresses.get() {
            let prefix = self.names.variable_prefix();
            variables.push((format!("{prefix}HTTP_LISTEN"), public.to_string()));
            variables.push((format!("{prefix}HTTP_PRIVATE_LISTEN"), private.to_string()));
        }
        let line = self.companion.start("serve", &variables, READY_MAX_SECONDS)?;
        let addresses = addresses_in(&line)
            .with_context(|| format!("{} says {line:?} and not where it listens", self.names))?;
        Ok(*self.addresses.get_or_init(|| addresses))
    }
}

impl Supervised for Service {
    fn name(&self) -> &str {
        self.companion.name()
    }

    fn is_running(&self) -> bool {
        self.companion.is_running()
    }

    fn restart(&self) -> anyhow::Result<()> {
        self.start().map(|_| ())
    }
}

/// The settings of a service, as its variables.
struct Variables<'a> {
    prefix: String,
    around: &'a Around<'a>,
}

impl Variables<'_> {
    fn of_both(&self, database: &str, secrets: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let Around { settings, url, .. } = self.around;
        let mut variables = vec![
            ("DEPLOYMENT", "development".to_owned()),
            ("NATS_URL", settings.nats.url.clone()),
            ("MONGODB_URL", settings.mongodb.url.clone()),
            ("MONGODB_DATABASE", database.to_owned()),
            ("TOKENS_ISSUER", settings.tokens.issuer.clone()),
            ("TOKENS_AUDIENCE", settings.tokens.audience.clone()),
            ("TOKENS_JWKS_URL", format!("{url}/.well-known/jwks.json")),
            ("SECRETS_DIR", text(secrets)?),
            ("HTTP_LISTEN", ANYWHERE.to_owned()),
            ("HTTP_PRIVATE_LISTEN", ANYWHERE.to_owned()),
        ];
        if !settings.nats.ca_file.as_os_str().is_empty() {
            variables.push(("NATS_CA_FILE", text(&std::path::absolute(&settings.nats.ca_file)?)?));
        }
        if !settings.telemetry.otlp_endpoint.is_empty() {
            let endpoint = settings.telemetry.otlp_endpoint.clone();
            variables.push(("TELEMETRY_OTLP_ENDPOINT", endpoint));
        }
        Ok(variables.into_iter().map(|(name, value)| self.named(name, value)).collect())
    }

    /// Those of the settings where NATS is another's.
    fn credentials(&self, own: Option<&Path>) -> anyhow::Result<Vec<(String, String)>> {
        let given = &self.around.settings.nats.credentials_file;
        let file = own.unwrap_or(given);
        let value = match file.as_os_str().is_empty() {
            true => String::new(),
            false => text(&std::path::absolute(file)?)?,
        };
        Ok(vec![self.named("NATS_CREDENTIALS_FILE", value)])
    }

    fn named(&self, name: &str, value: String) -> (String, String) {
        (format!("{}{name}", self.prefix), value)
    }
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is no text", path.display()))?.to_owned())
}

/// The names of Roster's own variables in this process.
#[expect(clippy::disallowed_methods, reason = "names alone, to keep them from other programs")]
fn of_roster() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter(|name| name.starts_with(ROSTER_VARIABLES)).collect()
}

/// `ready url=http://… private=http://…`
fn addresses_in(line: &str) -> Option<Addresses> {
    let value = |name: &str| {
        let part = line.split(' ').find_map(|part| part.strip_prefix(name))?;
        part.strip_prefix("=http://")?.trim_end_matches('/').parse().ok()
    };
    Some(Addresses { public: value("url")?, private: value("private")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_says_where_a_service_listens() {
        let addresses = |public: &str, private: &str| Addresses {
            public: public.parse().unwrap(),
            private: private.parse().unwrap(),
        };
        let line = "ready url=http://127.0.0.1:81 private=http://127.0.0.1:82";
        assert_eq!(addresses_in(line), Some(addresses("127.0.0.1:81", "127.0.0.1:82")));
        let line = "ready private=http://[::1]:82 more=x url=http://[::1]:81/";
        assert_eq!(addresses_in(line), Some(addresses("[::1]:81", "[::1]:82")));
        for bad in [
            "ready url=http://127.0.0.1:81",
            "ready url=127.0.0.1:81 private=http://127.0.0.1:82",
            "ready url=http://localhost private=http://127.0.0.1:82",
            "ready",
        ] {
            assert_eq!(addresses_in(bad), None, "{bad}");
        }
    }
}
