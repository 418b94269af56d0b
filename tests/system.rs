//! A whole Roster: own processes for each service on real servers.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use local_stack::testing::{TempDir, binaries, temp_dir};
use local_stack::{DataDir, Mongod, MongodOptions, NatsOptions, NatsServer};
use nats_access::{Role, TestTrust};

use crate::mail::{self, Mail};
use crate::{Client, Cluster, Process, wait_for};

/// Address of the administrator that every system has.
pub const ADMIN_EMAIL: &str = "admin@example.com";
/// Its password.
pub const ADMIN_PASSWORD: &str = "a password for the administrator";

/// What links in mails begin with. Nothing is there: a test takes the token out of the link.
pub const LINK_BASE: &str = "https://roster.example.com/links";

/// Systems that one test process can have on the shared servers.
const SHARED_MAX: usize = 256;
/// Systems so far, of either kind.
static SYSTEMS: AtomicUsize = AtomicUsize::new(0);

fn shared_trust() -> &'static TestTrust {
    static TRUST: OnceLock<TestTrust> = OnceLock::new();
    TRUST.get_or_init(|| TestTrust::with_accounts(SHARED_MAX))
}

/// The servers under a system.
pub enum Servers {
    /// One pair for all tests of the process; each has its own account and database.
    Shared,
    /// A pair that only this test has, and may stop and kill.
    Own(Box<(NatsServer, Mongod)>),
    /// Three nodes that only this test has; the views are on the shared server.
    Cluster(Cluster),
}

/// A system. Its processes end when they are dropped.
pub struct System {
    servers: Servers,
    environment: Environment,
    dir: TempDir,
    operator_creds: String,
    /// The command side.
    pub command_api: Process,
    /// The query side.
    pub query_api: Process,
    /// The projector; `None` while a test has it down.
    pub projector: Option<Process>,
    /// The reactor; its mails are files. `None` while a test has it down.
    pub reactor: Option<Process>,
}

/// Where `roster init` writes the credentials of a role. The reactor has two.
pub(crate) fn initial_creds(secrets: &Path, role: Role) -> PathBuf {
    let (folder, file) = match role {
        Role::Mailer => ("reactor", "nats.creds"),
        Role::Eraser => ("reactor", "eraser.creds"),
        Role::Operator | Role::CommandApi | Role::QueryApi | Role::Projector => {
            (role.name(), "nats.creds")
        }
    };
    secrets.join(folder).join(file)
}

/// Where a system of the tests has them: named by the service, and those of the eraser beside them.
pub(crate) fn creds_file(role: Role) -> String {
    let name = if role == Role::Mailer { "reactor" } else { role.name() };
    format!("{name}.creds")
}

impl System {
    /// A system on the shared servers.
    pub async fn shared() -> Self {
        Self::shared_with(&[]).await
    }

    /// The same with settings of its own, as variables.
    pub async fn shared_with(settings: &[(&str, &str)]) -> Self {
        let number = next_number();
        let nats = local_stack::testing::nats(|| shared_trust().server_config().unwrap());
        let account = shared_trust().account(number);
        let creds = |role: Role| account.creds(role).unwrap();
        let dir = temp_dir();
        shared_trust().write_seeds(number, &trust_dir(dir.path())).unwrap();
        let urls = (nats.url(), local_stack::testing::mongod().url());
        Self::start(Servers::Shared, number, dir, urls, creds, settings).await
    }

    /// A system on servers of its own.
    pub async fn own() -> Self {
        Self::own_with(&[]).await
    }

    /// The same with settings of its own, as variables.
    pub async fn own_with(settings: &[(&str, &str)]) -> Self {
        let number = next_number();
        let trust = TestTrust::with_accounts(1);
        let dir = temp_dir();
        let data = DataDir::open(dir.path().join("servers")).unwrap();
        trust.write_seeds(0, &trust_dir(dir.path())).unwrap();
        let config = trust.server_config().unwrap();
        let options = NatsOptions { data_dir: data.nats(), port: None, config };
        let nats = NatsServer::start(binaries(), options).unwrap();
        let options = MongodOptions { data_dir: data.mongod(), port: None };
        let mongod = Mongod::start(binaries(), options).unwrap();
        let urls = (nats.url(), mongod.url());
        let creds = |role: Role| trust.account(0).creds(role).unwrap();
        Self::start(Servers::Own(Box::new((nats, mongod))), number, dir, urls, creds, settings)
            .await
    }

    /// A system on a cluster of three, with the keys that `roster init` makes.
    pub async fn cluster() -> Self {
        let number = next_number();
        let dir = temp_dir();
        let secrets = dir.path().join("secrets");
        init(dir.path());
        let cluster = Cluster::start(&secrets);
        // The same trust in the place where all systems of tests have theirs.
        std::os::unix::fs::symlink(secrets.join("operator").join("nats"), trust_dir(dir.path()))
            .unwrap();
        let urls = (cluster.url(), local_stack::testing::mongod().url());
        let creds = |role: Role| std::fs::read_to_string(initial_creds(&secrets, role)).unwrap();
        Self::start(Servers::Cluster(cluster), number, dir, urls, creds, &[]).await
    }

    async fn start(
        servers: Servers,
        number: usize,
        dir: TempDir,
        (nats_url, mongodb_url): (String, String),
        creds: impl Fn(Role) -> String,
        settings: &[(&str, &str)],
    ) -> Self {
        let path = |name: &str| dir.path().join(name);
        init(dir.path());
        for role in Role::ALL {
            let file = path(&creds_file(role));
            std::fs::write(&file, creds(role)).unwrap();
            std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        }
        let replicas = if matches!(servers, Servers::Cluster(_)) { 3 } else { 1 };
        let environment =
            Environment::new(dir.path(), number, (nats_url, mongodb_url), replicas, settings);
        let mut operator = environment.of("operator");
        operator.push(("ROSTER_ADMIN_EMAIL".to_owned(), ADMIN_EMAIL.to_owned()));
        operator.push(("ROSTER_ADMIN_PASSWORD".to_owned(), ADMIN_PASSWORD.to_owned()));
        // A cluster elects its leaders first, and refuses until it has: the operator tries again.
        wait_for("the log to be provisioned", || {
            let done = run(&["provision"], &operator, &path("provision.log"));
            async move { done }
        })
        .await;
        Self::running(servers, environment, dir).await
    }

    /// Starts the services where the log is ready for them.
    pub(crate) async fn running(servers: Servers, environment: Environment, dir: TempDir) -> Self {
        let path = |name: &str| dir.path().join(name);
        let start = |name: &str| Process::start(&[name], &environment.of(name), &path(name));
        let system = Self {
            command_api: start("command-api"),
            query_api: start("query-api"),
            projector: Some(start("projector")),
            reactor: Some(start("reactor")),
            operator_creds: std::fs::read_to_string(path("operator.creds")).unwrap(),
            servers,
            environment,
            dir,
        };
        system.ready().await;
        system
    }

    /// Waits until every service says that it is ready.
    pub async fn ready(&self) {
        for (_, service) in self.services() {
            let private = Client::new(&service.value("private"));
            wait_for("a service to be ready", || async {
                private.try_send("GET", "/readyz", None).await.is_some_and(|a| a.status == 200)
            })
            .await;
        }
    }

    /// The running services with their names.
    pub fn services(&self) -> impl Iterator<Item = (&'static str, &Process)> {
        let services = [
            ("command-api", Some(&self.command_api)),
            ("query-api", Some(&self.query_api)),
            ("projector", self.projector.as_ref()),
            ("reactor", self.reactor.as_ref()),
        ];
        services.into_iter().filter_map(|(name, process)| Some((name, process?)))
    }

    /// A client of the command side.
    pub fn commands(&self) -> Client {
        Client::new(&self.command_api.value("url"))
    }

    /// A client of the query side, with connections of its own.
    pub fn queries(&self) -> Client {
        Client::new(&self.query_api.value("url"))
    }

    /// Both as the administrator.
    pub async fn as_administrator(&self) -> (Client, Client) {
        let token = self.commands().login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
        (self.commands().with_token(&token), self.queries().with_token(&token))
    }

    /// A further process of a service in this system.
    pub fn another(&self, service: &str) -> Process {
        self.another_with(service, &[])
    }

    /// The same with further settings, as variables.
    pub fn another_with(&self, service: &str, settings: &[(&str, &str)]) -> Process {
        static OTHERS: AtomicUsize = AtomicUsize::new(0);
        let number = OTHERS.fetch_add(1, Ordering::Relaxed);
        let log = self.dir.path().join(format!("{service}-{number}"));
        let mut variables = self.environment.of(service);
        variables.extend(settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        Process::start(&[service], &variables, &log)
    }

    /// Kills a command side and starts another one.
    pub fn restart_command_api(&mut self) {
        let next = self.another("command-api");
        std::mem::replace(&mut self.command_api, next).kill();
    }

    /// Kills the projector.
    pub fn kill_projector(&mut self) {
        self.projector.take().unwrap().kill();
    }

    /// Starts a projector.
    pub fn start_projector(&mut self) {
        let log = self.dir.path().join("projector");
        let environment = self.environment.of("projector");
        self.projector = Some(Process::start(&["projector"], &environment, &log));
    }

    /// Starts a projector that writes to a database of another name; the system reads from there too.
    pub fn start_projector_in(&mut self, database: &str) {
        self.environment.database = format!("{}_{database}", self.environment.database);
        self.start_projector();
    }

    /// Leaves the views as they are, and has others built from the log in a database of their own.
    pub async fn rebuild_views(&mut self) {
        self.kill_projector();
        self.start_projector_in("rebuilt");
        let next = self.another("query-api");
        std::mem::replace(&mut self.query_api, next).kill();
        self.ready().await;
    }

    /// Kills the reactor: nothing is mailed, and nothing is erased.
    pub fn kill_reactor(&mut self) {
        self.reactor.take().unwrap().kill();
    }

    /// Kills the reactor and starts another one.
    pub fn restart_reactor(&mut self) {
        let log = self.dir.path().join("reactor");
        let next = Process::start(&["reactor"], &self.environment.of("reactor"), &log);
        if let Some(before) = self.reactor.replace(next) {
            before.kill();
        }
    }

    /// The mails to an address so far, oldest first. In any case: a mail program may write a domain in
    /// lower case.
    pub fn mails_to(&self, address: &str) -> Vec<Mail> {
        let mut mails = mail::all_in(&self.environment.mail_dir());
        mails.retain(|mail| mail.to.eq_ignore_ascii_case(address));
        mails
    }

    /// Waits until an address has so many mails, and gives them, oldest first.
    pub async fn wait_for_mails_to(&self, address: &str, count: usize) -> Vec<Mail> {
        wait_for("mails", || async { self.mails_to(address).len() >= count }).await;
        self.mails_to(address)
    }

    /// The event log's server, for a test that has its own.
    pub fn nats(&self) -> &NatsServer {
        match &self.servers {
            Servers::Own(own) => &own.0,
            Servers::Shared | Servers::Cluster(_) => panic!("shared servers are not stopped"),
        }
    }

    /// The views' server, for a test that has its own.
    pub fn mongod(&self) -> &Mongod {
        match &self.servers {
            Servers::Own(own) => &own.1,
            Servers::Shared | Servers::Cluster(_) => panic!("shared servers are not stopped"),
        }
    }

    /// The nodes, for a test that has a cluster.
    pub fn nodes(&mut self) -> &mut Cluster {
        match &mut self.servers {
            Servers::Cluster(cluster) => cluster,
            Servers::Shared | Servers::Own(_) => panic!("there is one node"),
        }
    }

    /// The event log as the operator sees it.
    pub async fn operator(&self) -> async_nats::Client {
        async_nats::ConnectOptions::with_credentials(&self.operator_creds)
            .unwrap()
            .connect(self.environment.nats_url.split(',').collect::<Vec<_>>())
            .await
            .unwrap()
    }

    /// The database of the views, to damage it.
    pub async fn views(&self) -> mongodb::Database {
        let client = mongodb::Client::with_uri_str(&self.environment.mongodb_url).await.unwrap();
        client.database(&self.environment.database)
    }

    /// The folder of the servers, for a test that has its own.
    pub fn servers_dir(&self) -> PathBuf {
        self.dir.path().join("servers")
    }

    /// The folder that `roster init` made.
    pub fn secrets_dir(&self) -> PathBuf {
        self.dir.path().join("secrets")
    }

    /// Runs a command of the operator.
    pub fn roster(&self, arguments: &[&str]) -> Output {
        self.roster_with(arguments, &[])
    }

    /// The same with further settings, as variables.
    pub fn roster_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        self.roster_command(arguments).envs(settings.iter().copied()).output().unwrap()
    }

    /// A command of the operator that was not started yet.
    pub fn roster_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::binary());
        command.args(arguments).envs(self.environment.of("operator")).current_dir(self.dir.path());
        command
    }

    /// Starts a command of the operator that does not end by itself; what it says goes into a file.
    pub fn roster_in_the_background(&self, arguments: &[&str], file: &str) -> std::process::Child {
        let output = std::fs::File::create(self.file(file)).unwrap();
        self.roster_command(arguments).stdout(output).spawn().unwrap()
    }

    /// A file in the folder of this system, where commands of the operator run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a service with further settings, as variables, and does not wait for it.
    pub fn spawn_with(&self, service: &str, settings: &[(&str, &str)], log: &str) -> Process {
        let mut variables = self.environment.of(service);
        variables.extend(settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())));
        Process::spawn(&[service], &variables, &self.dir.path().join(log))
    }

    /// Where the views are: the address of the server and the name of the database.
    pub fn views_at(&self) -> (&str, &str) {
        (&self.environment.mongodb_url, &self.environment.database)
    }

    /// Addresses of the event log.
    pub fn nats_url(&self) -> &str {
        &self.environment.nats_url
    }

    /// What a service wrote to its log.
    pub fn log_of(&self, service: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(service)).unwrap_or_default()
    }
}

/// The number of the next system.
pub(crate) fn next_number() -> usize {
    SYSTEMS.fetch_add(1, Ordering::Relaxed)
}

/// Where a system's parts are.
pub(crate) struct Environment {
    dir: PathBuf,
    database: String,
    nats_url: String,
    mongodb_url: String,
    replicas: u8,
    /// Beside those of every test.
    settings: Vec<(String, String)>,
}

impl Environment {
    pub(crate) fn new(
        dir: &Path,
        number: usize,
        (nats_url, mongodb_url): (String, String),
        replicas: u8,
        settings: &[(&str, &str)],
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            database: format!("e2e_{number}"),
            nats_url,
            mongodb_url,
            replicas,
            settings: settings.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    pub(crate) fn nats_url(&self) -> &str {
        &self.nats_url
    }

    fn mail_dir(&self) -> PathBuf {
        self.dir.join("mail")
    }

    /// Settings of one service, all through variables.
    pub(crate) fn of(&self, role: &str) -> Vec<(String, String)> {
        let file = |name: PathBuf| name.to_str().unwrap().to_owned();
        [
            ("ROSTER_DEPLOYMENT", "development".to_owned()),
            ("ROSTER_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("ROSTER_HTTP_PRIVATE_LISTEN", "127.0.0.1:0".to_owned()),
            ("ROSTER_NATS_URL", self.nats_url.clone()),
            ("ROSTER_NATS_CREDENTIALS_FILE", file(self.dir.join(format!("{role}.creds")))),
            ("ROSTER_MONGODB_URL", self.mongodb_url.clone()),
            ("ROSTER_MONGODB_DATABASE", self.database.clone()),
            ("ROSTER_SECRETS_DIR", file(self.dir.join("secrets").join(role))),
            ("ROSTER_SECRETS_TRUST_DIR", file(trust_dir(&self.dir))),
            ("ROSTER_LOG_BYTES_MAX", (64_u64 << 20).to_string()),
            // The server sets the room aside when a stream is made.
            ("ROSTER_LOG_SESSIONS_BYTES_MAX", (64_u64 << 20).to_string()),
            ("ROSTER_LOG_MAILS_BYTES_MAX", (8_u64 << 20).to_string()),
            ("ROSTER_LOG_THROTTLE_BYTES_MAX", (8_u64 << 20).to_string()),
            ("ROSTER_LOG_THROTTLE_CLOSED_BYTES_MAX", (8_u64 << 20).to_string()),
            ("ROSTER_LOG_THROTTLE_COUNTS_BYTES_MAX", (8_u64 << 20).to_string()),
            ("ROSTER_FEED_BYTES_MAX", (64_u64 << 20).to_string()),
            ("ROSTER_FEED_SNAPSHOTS_BYTES_MAX", (8_u64 << 20).to_string()),
            ("ROSTER_AUDIT_BYTES_MAX", (2_u64 << 20).to_string()),
            ("ROSTER_SECURITY_BYTES_MAX", (8_u64 << 20).to_string()),
            ("ROSTER_LOG_REPLICAS", self.replicas.to_string()),
            // All clients of a test come from one address.
            ("ROSTER_THROTTLE_ENABLED", "false".to_owned()),
            ("ROSTER_MAIL_TRANSPORT", "folder".to_owned()),
            ("ROSTER_MAIL_FOLDER", file(self.mail_dir())),
            ("ROSTER_MAIL_LINK_BASE", LINK_BASE.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(self.settings.iter().cloned())
        .collect()
    }
}

/// Where the keys of NATS are that a system's users are signed with.
pub(crate) fn trust_dir(dir: &Path) -> PathBuf {
    dir.join("trust")
}

/// Makes keys and credentials; what is there stays.
fn init(dir: &Path) {
    let secrets = dir.join("secrets");
    let arguments = ["init", "--dir", secrets.to_str().unwrap()];
    assert!(run(&arguments, &[], &dir.join("init.log")), "roster init");
}

/// Runs a command of the operator to its end.
fn run(arguments: &[&str], variables: &[(String, String)], log: &Path) -> bool {
    let output = Command::new(crate::binary())
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    std::fs::write(log, &output.stderr).unwrap();
    output.status.success()
}
