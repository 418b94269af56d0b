//! A place to restore a backup to: servers with the keys of the backup, and nothing on them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use local_stack::testing::{TempDir, binaries, temp_dir};
use local_stack::{DataDir, Mongod, MongodOptions, NatsOptions, NatsServer};
use nats_access::Role;

use crate::system::{Environment, creds_file, initial_creds, next_number, trust_dir};
use crate::{Cluster, Process, Servers, System, binary};

/// Servers that nothing was restored to yet.
pub struct Site {
    servers: Servers,
    environment: Environment,
    dir: TempDir,
}

impl Site {
    /// Writes the keys of a backup with `roster restore --keys`, and starts servers that trust them.
    pub fn of(backup: &Path, settings: &[(&str, &str)]) -> Self {
        Self::with_keys(keys_of(backup, &[]), settings)
    }

    /// The same of a backup that is encrypted.
    pub fn of_encrypted(backup: &Path, identity: &Path, settings: &[(&str, &str)]) -> Self {
        Self::with_keys(keys_of(backup, &[Path::new("--identity"), identity]), settings)
    }

    fn with_keys(dir: TempDir, settings: &[(&str, &str)]) -> Self {
        let data = DataDir::open(dir.path().join("servers")).unwrap();
        let config = std::fs::read_to_string(dir.path().join("secrets/nats/auth.conf")).unwrap();
        let options = NatsOptions { data_dir: data.nats(), port: None, config };
        let nats = NatsServer::start(binaries(), options).unwrap();
        let options = MongodOptions { data_dir: data.mongod(), port: None };
        let mongod = Mongod::start(binaries(), options).unwrap();
        let urls = (nats.url(), mongod.url());
        let environment = Environment::new(dir.path(), next_number(), urls, 1, settings);
        Self { servers: Servers::Own(Box::new((nats, mongod))), environment, dir }
    }

    /// The same with three nodes; the views are on the shared server.
    pub fn cluster_of(backup: &Path) -> Self {
        let dir = keys_of(backup, &[]);
        let cluster = Cluster::start(&dir.path().join("secrets"));
        let urls = (cluster.url(), local_stack::testing::mongod().url());
        let environment = Environment::new(dir.path(), next_number(), urls, 3, &[]);
        Self { servers: Servers::Cluster(cluster), environment, dir }
    }

    /// Runs a command of the operator.
    pub fn roster(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts one, to be killed.
    pub fn spawn_roster(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).envs(self.environment.of("operator")).current_dir(self.dir.path());
        command
    }

    /// Starts a service and does not wait for it; what it logs is in the file that is given with it.
    pub fn spawn(&self, service: &str) -> (Process, PathBuf) {
        let log = self.dir.path().join(format!("{service}.log"));
        (Process::spawn(&[service], &self.environment.of(service), &log), log)
    }

    /// The event log as the operator sees it.
    pub async fn operator(&self) -> async_nats::Client {
        let creds = self.dir.path().join("operator.creds");
        let options = async_nats::ConnectOptions::with_credentials_file(creds).await.unwrap();
        options.connect(self.environment.nats_url().split(',').collect::<Vec<_>>()).await.unwrap()
    }

    /// Starts the services.
    pub async fn start(self) -> System {
        System::running(self.servers, self.environment, self.dir).await
    }
}

/// A folder with the keys of a backup, and the credentials that are made of them.
fn keys_of(backup: &Path, arguments: &[&Path]) -> TempDir {
    let dir = temp_dir();
    let secrets = dir.path().join("secrets");
    let output = Command::new(binary())
        .arg("restore")
        .args([backup, Path::new("--keys"), &secrets])
        .args(arguments)
        .env("ROSTER_DEPLOYMENT", "development")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::os::unix::fs::symlink(secrets.join("operator/nats"), trust_dir(dir.path())).unwrap();
    for role in Role::ALL {
        let creds = initial_creds(&secrets, role);
        std::fs::copy(creds, dir.path().join(creds_file(role))).unwrap();
    }
    dir
}
