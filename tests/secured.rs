//! A system as `docs/production.md` sets it up by hand: TLS everywhere, users with passwords in MongoDB, settings in files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use local_stack::free_port;
use local_stack::testing::{BareMongod, TempDir, binaries, temp_dir};
use mongodb::Client as Driver;
use mongodb::bson::{Document, doc};

use crate::{Process, binary, wait_for};

/// Where the files of the repository are that an operator copies.
fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Servers with TLS, and the settings of each process. Its servers end when it is dropped.
pub struct Secured {
    /// Ports that the documentation names, and the free ones that are in their place here.
    ports: BTreeMap<&'static str, u16>,
    mongod: BareMongod,
    nats: Child,
    dir: TempDir,
}

impl Secured {
    /// Makes keys and certificates, starts NATS and MongoDB, and makes the users of MongoDB.
    pub async fn start() -> Self {
        let dir = temp_dir();
        let secrets = dir.path().join("secrets");
        run(Command::new(binary()).args(["init", "--dir"]).arg(&secrets));
        run(Command::new("bash").arg(repository().join("deploy/certificates.sh")).arg(&secrets));
        let ports = ["nats", "monitor", "smtp"].map(|name| (name, free_port().unwrap()));
        let ports = BTreeMap::from(ports);
        let nats = start_nats(&secrets, &ports, &dir.path().join("nats.log"));
        let file = |name: &str| secrets.join("mongod").join(name).to_str().unwrap().to_owned();
        let (server, ca, key) = (file("server.pem"), file("ca.pem"), file("keyfile"));
        let options = [
            "--replSet",
            "rs0",
            "--keyFile",
            &key,
            "--tlsMode=requireTLS",
            "--tlsCertificateKeyFile",
            &server,
            "--tlsCAFile",
            &ca,
            "--tlsAllowConnectionsWithoutCertificates",
        ];
        let mongod = BareMongod::start(dir.path(), options);
        let secured = Self { ports, mongod, nats, dir };
        secured.make_users().await;
        secured
    }

    /// What `deploy/mongod-setup.js` does in mongosh.
    async fn make_users(&self) {
        let direct = |user: &str| {
            let url = self.mongodb_url(user);
            async move { Driver::with_uri_str(url).await.unwrap().database("admin") }
        };
        let host = format!("localhost:{}", self.mongod.port());
        // The last steps are only taken once there is a user, and the first only while there is none.
        let first = direct("").await;
        let set = doc! {"_id": "rs0", "members": [{"_id": 0, "host": host}]};
        let initiate = doc! {"replSetInitiate": set};
        wait_for("mongod to take its first command", || {
            let (first, initiate) = (first.clone(), initiate.clone());
            async move { first.run_command(initiate).await.is_ok() }
        })
        .await;
        let root = self.user("root", vec![doc! {"role": "root", "db": "admin"}]);
        wait_for("mongod to be primary", || {
            let (first, root) = (first.clone(), root.clone());
            async move { first.run_command(root).await.is_ok() }
        })
        .await;
        let root = direct("root").await;
        for (user, role) in [("projector", "readWrite"), ("query-api", "read")] {
            let user = self.user(user, vec![doc! {"role": role, "db": "roster"}]);
            root.run_command(user).await.unwrap();
        }
    }

    fn user(&self, user: &str, roles: Vec<Document>) -> Document {
        doc! {
            "createUser": user, "pwd": self.password(user), "roles": roles,
            "mechanisms": ["SCRAM-SHA-256"],
        }
    }

    fn password(&self, user: &str) -> String {
        let file = self.secrets("mongod").join(format!("{user}.password"));
        std::fs::read_to_string(file).unwrap().trim().to_owned()
    }

    /// To the one server, whether it is in a set yet or not; without a user over the exception for the loopback.
    fn mongodb_url(&self, user: &str) -> String {
        let login = if user.is_empty() {
            String::new()
        } else {
            format!("{user}:{}@", self.password(user))
        };
        let ca = self.secrets("mongod").join("ca.pem");
        format!(
            "mongodb://{login}localhost:{}/?directConnection=true&authSource=admin&tls=true&tlsCAFile={}",
            self.mongod.port(),
            ca.display()
        )
    }

    /// The folder of a process.
    pub fn secrets(&self, process: &str) -> PathBuf {
        self.dir.path().join("secrets").join(process)
    }

    /// Where mails are taken over TLS.
    pub fn smtp_port(&self) -> u16 {
        self.ports["smtp"]
    }

    /// Settings of a process as the documentation has them, with changes to lines: `("ca_file = …", "…")` by what
    /// they begin with. The file's path.
    pub fn settings(&self, process: &str, changes: &[(&str, &str)]) -> PathBuf {
        let own = self.secrets(process);
        let own = own.to_str().unwrap();
        let (nats, smtp) = (self.ports["nats"], self.ports["smtp"]);
        let user = if process == "projector" { "projector" } else { "query-api" };
        let url = format!(
            "mongodb://{user}:{}@localhost:{}/?replicaSet=rs0&authSource=admin&tls=true&tlsCAFile={own}/ca.pem",
            self.password(user),
            self.mongod.port()
        );
        private(&self.secrets(process).join("mongodb.url"), &url);
        private(&self.secrets(process).join("smtp.url"), &format!("smtps://localhost:{smtp}"));
        let mut text = format!(
            "[http]\nlisten = \"127.0.0.1:0\"\nprivate_listen = \"127.0.0.1:0\"\n\
             [nats]\nurl = \"tls://localhost:{nats}\"\ncredentials_file = \"{own}/nats.creds\"\n\
             ca_file = \"{own}/ca.pem\"\nstart_wait_s = 0\n\
             [log]\nallow_single_replica = true\n\
             [secrets]\ndir = \"{own}\"\n\
             [tokens]\nissuer = \"https://id.example.com\"\n"
        );
        if process != "command-api" && process != "reactor" {
            text += &format!("[mongodb]\nurl_file = \"{own}/mongodb.url\"\n");
        }
        if process == "reactor" {
            text += &format!(
                "[mail]\ntransport = \"smtp\"\nsmtp_url_file = \"{own}/smtp.url\"\n\
                 smtp_ca_file = \"{own}/ca.pem\"\nfrom = \"Example <no-reply@example.com>\"\n"
            );
        }
        for (beginning, line) in changes {
            let replaced =
                text.lines().map(|one| if one.starts_with(beginning) { line } else { one });
            let replaced = replaced.collect::<Vec<_>>().join("\n");
            assert_ne!(text.trim_end(), replaced, "no line {beginning} in the settings");
            text = replaced;
        }
        let file = self.dir.path().join(format!("{process}-{}.toml", text_name(changes)));
        private(&file, &text);
        file
    }

    /// Replaces the connection string of a process, which [`Self::settings`] has written.
    pub fn change_mongodb_url(&self, process: &str, from: &str, to: &str) {
        let file = self.secrets(process).join("mongodb.url");
        let url = std::fs::read_to_string(&file).unwrap();
        assert!(url.contains(from), "{from} in {url}");
        private(&file, &url.replace(from, to));
    }

    /// Runs a command of the operator, with the settings in a file.
    pub fn roster(
        &self,
        arguments: &[&str],
        settings: &Path,
        variables: &[(&str, &str)],
    ) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--config").arg(settings).current_dir(self.dir.path());
        command.envs(variables.iter().copied()).output().unwrap()
    }

    /// Starts a service and waits until it listens.
    pub fn service(&self, service: &str, settings: &Path) -> Process {
        let log = self.log_file(service);
        let settings = settings.to_str().unwrap();
        Process::start(&[service, "--config", settings], &[], &log)
    }

    /// What the services of a name wrote to their log.
    pub fn log_of(&self, service: &str) -> String {
        std::fs::read_to_string(self.log_file(service)).unwrap_or_default()
    }

    fn log_file(&self, service: &str) -> PathBuf {
        self.dir.path().join(format!("{service}.log"))
    }

    /// A file beside the others.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.nats.kill();
        let _ = self.nats.wait();
    }
}

/// NATS with the files of `nats/`, in the folder whose part `nats` `roster init` has made.
fn start_nats(secrets: &Path, ports: &BTreeMap<&'static str, u16>, log: &Path) -> Child {
    for file in ["server.conf", "tls.conf"] {
        std::fs::copy(repository().join("nats").join(file), secrets.join(file)).unwrap();
    }
    let at = |name: &str| format!("127.0.0.1:{}", ports[name]);
    let file = |name: &str| secrets.join("nats").join(name).to_str().unwrap().to_owned();
    let store = format!("{:?}", secrets.join("store").to_str().unwrap());
    let mut command = Command::new(&binaries().nats_server);
    command
        .args(["--config", "server.conf"])
        .current_dir(secrets)
        .env("NATS_SERVER_NAME", "nats-1")
        .env("NATS_LISTEN", at("nats"))
        .env("NATS_MONITOR", at("monitor"))
        .env("NATS_STORE_DIR", store)
        .env("NATS_FILE_STORE_MAX", "21GB")
        .env("NATS_TLS_CERT", file("server.pem"))
        .env("NATS_TLS_KEY", file("server.pem"))
        .env("NATS_TLS_CA", file("ca.pem"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(log).unwrap());
    let child = command.spawn().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(at("nats")).is_err() {
        let log = std::fs::read_to_string(log).unwrap();
        assert!(std::time::Instant::now() < deadline, "NATS does not listen: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Writes a file that only its owner reads.
fn private(file: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(file, text).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn text_name(changes: &[(&str, &str)]) -> String {
    let names = changes.iter().flat_map(|(_, line)| line.chars());
    let name: String = names.filter(char::is_ascii_alphanumeric).take(40).collect();
    if name.is_empty() { "documented".to_owned() } else { name }
}
