//! Further services beside Roster's own: their credentials, and their place in `roster dev`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, consumer::pull, stream};
use e2e::{Client, Process, System, binary, wait_for};
use events::ServiceNames;
use local_stack::testing::temp_dir;
use serde_json::Value;

const GADGET: ServiceNames = ServiceNames::fixed("gadget", "gadgets");

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn answer(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A client with credentials, as a service connects.
async fn connect(url: &str, creds: &Path, inbox: &str) -> async_nats::Client {
    let options = ConnectOptions::with_credentials(&fs::read_to_string(creds).unwrap()).unwrap();
    options.custom_inbox_prefix(inbox).connect(url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_made_once_and_good_for_what_the_names_say() {
    let system = System::shared().await;
    let operator = jetstream::new(system.operator().await);
    for (name, subjects) in [
        (GADGET.log_stream(), GADGET.log_subjects().to_vec()),
        (GADGET.feed_stream(), GADGET.feed_subjects().to_vec()),
    ] {
        let config =
            stream::Config { name, subjects, max_bytes: 1 << 20, ..stream::Config::default() };
        operator.create_stream(config).await.unwrap();
    }
    let creds =
        |more: &[&str]| system.roster(&[&["services", "creds", "gadget", "--json"], more].concat());
    let first = answer(&creds(&["--out", "gadget.creds"]));
    for (member, wanted) in [
        ("service", "gadget-service"),
        ("outcome", "made"),
        ("inbox_prefix", "_INBOX_gadget-service"),
        ("log_stream", "GADGETS"),
        ("feed_stream", "GADGET_EVENTS"),
        ("consumer", "gadget-service"),
        ("creds", "gadget.creds"),
    ] {
        assert_eq!(first[member], wanted, "{first}");
    }
    assert!(first["user"].as_str().unwrap().starts_with('U'), "{first}");
    let file = system.file("gadget.creds");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    let service = connect(system.nats_url(), &file, &GADGET.inbox_prefix()).await;
    let stored = service.request(GADGET.events("one"), "{}".into()).await.unwrap();
    let stored: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert_eq!((&stored["stream"], &stored["seq"]), (&"GADGETS".into(), &1.into()), "{stored}");

    // Again it is the same user, also when the file is of an older version; another file is another user.
    let again = answer(&creds(&["--out", "gadget.creds"]));
    assert_eq!((&again["outcome"], &again["user"]), (&"unchanged".into(), &first["user"]));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{text}\n")).unwrap();
    let renewed = answer(&creds(&["--out", "gadget.creds"]));
    assert_eq!((&renewed["outcome"], &renewed["user"]), (&"renewed".into(), &first["user"]));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    assert_ne!(answer(&creds(&["--out", "other.creds"]))["user"], first["user"]);

    // What is somebody else's stays.
    for foreign in ["operator.creds", "other.creds"] {
        let before = fs::read(system.file(foreign)).unwrap();
        let output = system.roster(&["services", "creds", "widget", "--out", foreign]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("no credentials of widget-service"), "{}", said(&output));
        assert_eq!(fs::read(system.file(foreign)).unwrap(), before, "{foreign}");
    }
    // Names of Roster's are wrong use, and nothing is written down of them.
    for wrong in [&["user"][..], &["gadget", "--plural", "users"], &["Gadget"], &["gad-get"]] {
        let arguments = [&["services", "creds", "--out", "wrong.creds"], wrong].concat();
        assert_eq!(system.roster(&arguments).status.code(), Some(2), "{wrong:?}");
    }
    assert!(!system.file("wrong.creds").exists());

    // A subscriber of that name would have its consumer where the service has its own.
    let output = system.roster(&["subscribers", "add", "gadget-service"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("name of a service"), "{}", said(&output));

    // Access is taken away from one user, and not from the next one in the file.
    let key = first["user"].as_str().unwrap();
    for outcome in ["revoked", "already"] {
        let revoked = answer(&system.roster(&["services", "revoke", key, "--json"]));
        assert_eq!((&revoked["user"], &revoked["outcome"]), (&first["user"], &outcome.into()));
    }
    assert_eq!(system.roster(&["services", "revoke", "gadget"]).status.code(), Some(2));
    // A restore must not let them in again.
    let output = system.roster(&["backup", "copy"]);
    assert!(output.status.success(), "{}", said(&output));
    let revoked = fs::read_to_string(system.file("copy/keys/nats/revoked")).unwrap();
    assert_eq!(revoked, format!("{key}\n"));
    let next = answer(&creds(&["--out", "gadget.creds"]));
    assert_eq!(next["outcome"], "made");
    assert_ne!(next["user"], first["user"]);

    let listed =
        answer(&system.roster(&["audit", "list", "--command", "services-creds", "--json"]));
    let outcomes: Vec<_> =
        listed["items"].as_array().unwrap().iter().map(|event| &event["data"]["outcome"]).collect();
    assert_eq!(outcomes.len(), 14, "{listed}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "failed").count(), 2);
    let result = &listed["items"][1]["data"]["result"];
    assert_eq!((&result["user"], &result["outcome"]), (&first["user"], &"made".into()));
    assert!(!listed.to_string().contains("gadget.creds"), "no name of a file: {listed}");
}

/// What a verifier in any language does: it hears what ends access.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verifier_hears_what_ends_access() {
    let system = System::shared().await;
    let output = system.roster(&[
        "services",
        "creds",
        "shop",
        "--verifier",
        "--json",
        "--out",
        "shop.creds",
    ]);
    let made = answer(&output);
    assert_eq!(made["service"], "shop-verifier");
    assert!(made.get("log_stream").is_none(), "{made}");
    let inbox = made["inbox_prefix"].as_str().unwrap();
    let client = connect(system.nats_url(), &system.file("shop.creds"), inbox).await;
    let log = jetstream::new(client).get_stream_no_info("USERS").await.unwrap();
    let config = pull::Config {
        name: Some("follow-shop".to_owned()),
        filter_subject: "rv.user.*".to_owned(),
        ack_policy: jetstream::consumer::AckPolicy::None,
        ..pull::Config::default()
    };
    let mut heard = log.create_consumer(config).await.unwrap().messages().await.unwrap();

    let (commands, _) = system.as_administrator().await;
    let user = commands.register("ada@example.com").await.expect(201);
    let id = user.body["id"].as_str().unwrap();
    commands.delete(&format!("/api/v1/users/{id}")).await.expect(204);
    let wanted = format!("rv.user.{id}");
    let next = async {
        loop {
            let message = futures::StreamExt::next(&mut heard).await.unwrap().unwrap();
            if message.subject.as_str() == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(e2e::STATE_WAIT_MAX, next).await.unwrap();
}

#[test]
fn further_services_get_a_folder_of_their_own() {
    let dir = temp_dir();
    let secrets = dir.path().join("secrets");
    let init = |services: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["init", "--dir", secrets.to_str().unwrap()]);
        for service in services {
            command.args(["--service", service]);
        }
        command.output().unwrap()
    };
    assert!(init(&[]).status.success());
    assert!(!secrets.join("gadget-service").exists());
    assert!(init(&["gadget:gadgets", "city:cities"]).status.success());
    let read = |name: &str| fs::read(secrets.join(name)).unwrap();
    let files = |service: &str| {
        ["nats.creds", "service.key"].map(|file| {
            let path = format!("{service}/{file}");
            let mode = fs::metadata(secrets.join(&path)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{path}");
            read(&path)
        })
    };
    let mode = fs::metadata(secrets.join("gadget-service")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let (gadget, city) = (files("gadget-service"), files("city-service"));
    assert_ne!(gadget[1], city[1], "each has a key of its own");
    // Again, all of it stays.
    assert!(init(&["gadget:gadgets"]).status.success());
    assert_eq!((files("gadget-service"), files("city-service")), (gadget, city));
    for wrong in ["user:users", "gadget:", "Gadget"] {
        assert_eq!(init(&[wrong]).status.code(), Some(2), "{wrong}");
    }
}

/// A program that does what a service must: it writes down what it is given, says that it is ready, and ends on SIGTERM.
/// A full service is tried where it lives; here it is what `roster dev` does with any.
const PROGRAM: &str = r#"#!/bin/sh
env > "$1.env"
echo $$ > "$1.pid"
case $1 in
provision) ;;
serve)
    trap 'echo "ended cleanly"; exit 0' TERM
    case $GADGET_HTTP_LISTEN in
    *:0) echo "ready url=http://127.0.0.1:4711 private=http://127.0.0.1:4712" ;;
    *) echo "ready url=http://$GADGET_HTTP_LISTEN private=http://$GADGET_HTTP_PRIVATE_LISTEN" ;;
    esac
    while :; do sleep 0.1; done
    ;;
esac
"#;

/// A folder with a service, and one with its program.
fn gadget(dir: &Path, program: &str) -> (PathBuf, PathBuf) {
    let (folder, bin) = (dir.join("gadget"), dir.join("bin"));
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(&bin).unwrap();
    fs::write(folder.join("service.toml"), "name = \"gadget\"\nplural = \"gadgets\"\n").unwrap();
    let file = bin.join("gadget-service");
    fs::write(&file, program).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
    (folder, bin)
}

/// The data folder of `roster dev`, how to start it, and where the service runs in it.
struct Dev {
    data: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Dev {
    fn new(dir: &Path, folder: &Path, bin: &Path) -> Self {
        let data = dir.join("data");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", &text(&data), "--with"];
        let mut arguments: Vec<String> = arguments.map(str::to_owned).to_vec();
        arguments.push(text(folder));
        let path = format!("{}:{}", text(bin), std::env::var("PATH").unwrap());
        let variables = [
            ("PATH", path.as_str()),
            ("ROSTER_ADMIN_EMAIL", e2e::ADMIN_EMAIL),
            ("ROSTER_ADMIN_PASSWORD", e2e::ADMIN_PASSWORD),
            ("GADGET_COLOUR", "red"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { data, arguments, variables: variables.to_vec() }
    }

    fn arguments(&self) -> Vec<&str> {
        self.arguments.iter().map(String::as_str).collect()
    }

    fn start(&self, log: &Path) -> Process {
        Process::start(&self.arguments(), &self.variables, log)
    }

    /// A file in the folder that the service runs in.
    fn of_service(&self, name: &str) -> PathBuf {
        self.data.join("services/gadget-service").join(name)
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.of_service("gadget-service.log")).unwrap_or_default()
    }

    /// What the service was given when it was run last with an argument.
    fn given(&self, argument: &str) -> impl Fn(&str) -> Option<String> {
        let text = fs::read_to_string(self.of_service(&format!("{argument}.env"))).unwrap();
        move |name| {
            let prefix = format!("{name}=");
            text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
        }
    }

    /// The process of the service that was started last, while it runs.
    fn pid(&self) -> Option<String> {
        let pid = fs::read_to_string(self.of_service("serve.pid")).ok()?.trim().to_owned();
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        line.contains("gadget-service\0serve").then_some(pid)
    }
}

#[tokio::test]
async fn dev_provisions_starts_restarts_and_stops_a_further_service() {
    let dir = temp_dir();
    let (folder, bin) = gadget(dir.path(), PROGRAM);
    let dev = Dev::new(dir.path(), &folder, &bin);
    let log = dir.path().join("log");
    let process = dev.start(&log);
    // A line of its own before Roster's.
    let line = process.said.iter().find(|line| line.starts_with("gadget=")).unwrap();
    assert_eq!(line, "gadget=http://127.0.0.1:4711 private=http://127.0.0.1:4712");
    let (url, nats) = (process.value("url"), process.value("nats"));
    Client::new(&url).register("ada@example.com").await.expect(201);

    let data = dev.data.to_str().unwrap();
    let (provision, serve) = (dev.given("provision"), dev.given("serve"));
    let operator = format!("{data}/nats/operator.creds");
    assert_eq!(provision("GADGET_NATS_CREDENTIALS_FILE"), Some(operator));
    let own = format!("{data}/nats/gadget-service.creds");
    assert_eq!(serve("GADGET_NATS_CREDENTIALS_FILE"), Some(own.clone()));
    for given in [&provision, &serve] {
        for (name, value) in [
            ("GADGET_NATS_URL", nats.clone()),
            ("GADGET_MONGODB_URL", process.value("mongodb")),
            ("GADGET_MONGODB_DATABASE", "gadget".to_owned()),
            ("GADGET_TOKENS_ISSUER", url.clone()),
            ("GADGET_TOKENS_AUDIENCE", "roster".to_owned()),
            ("GADGET_TOKENS_JWKS_URL", format!("{url}/.well-known/jwks.json")),
            ("GADGET_SECRETS_DIR", format!("{data}/secrets/gadget-service")),
            ("GADGET_HTTP_LISTEN", "127.0.0.1:0".to_owned()),
            ("GADGET_HTTP_PRIVATE_LISTEN", "127.0.0.1:0".to_owned()),
            ("GADGET_COLOUR", "red".to_owned()),
        ] {
            assert_eq!(given(name), Some(value), "{name}");
        }
        assert_eq!(given("ROSTER_ADMIN_PASSWORD"), None, "Roster's own stay with it");
    }
    // The key set is there, the credentials are good, and the key is of 32 bytes.
    Client::new(&url).get("/.well-known/jwks.json").await.expect(200);
    let client = connect(&nats, Path::new(&own), &GADGET.inbox_prefix()).await;
    client.flush().await.unwrap();
    let key = dev.data.join("secrets/gadget-service/service.key");
    let key = fs::read_to_string(key).unwrap();
    assert_eq!(base64_bytes(key.trim()), 32);

    // Killed, it is started again where clients know it to be.
    let first = dev.pid().unwrap();
    assert!(Command::new("kill").args(["-KILL", &first]).status().unwrap().success());
    wait_for("another process", || async {
        dev.pid().is_some_and(|pid| pid != first) && dev.logged().matches("ready url").count() == 2
    })
    .await;
    let again = dev.given("serve");
    assert_eq!(again("GADGET_HTTP_LISTEN").as_deref(), Some("127.0.0.1:4711"));
    assert_eq!(again("GADGET_HTTP_PRIVATE_LISTEN").as_deref(), Some("127.0.0.1:4712"));

    assert!(process.end("-TERM").success());
    assert!(dev.logged().ends_with("ended cleanly\n"), "{}", dev.logged());
    assert_eq!(dev.pid(), None);

    // Keys and credentials stay over a restart of it all; and a kill of it all leaves nothing behind.
    let before = (fs::read(&own).unwrap(), key);
    let process = dev.start(&log);
    assert!(dev.pid().is_some());
    let key = fs::read_to_string(dev.data.join("secrets/gadget-service/service.key")).unwrap();
    assert_eq!((fs::read(&own).unwrap(), key), before);
    process.kill();
    wait_for("the service to end with it", || async { dev.pid().is_none() }).await;
}

fn base64_bytes(text: &str) -> usize {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap().len()
}

/// Ends with an error, and says something.
async fn refused(dev: &Dev, log: &Path) -> (Option<i32>, String) {
    let mut process = Process::spawn(&dev.arguments(), &dev.variables, log);
    let mut status = None;
    wait_for("it to end", || {
        status = process.ended();
        let ended = status.is_some();
        async move { ended }
    })
    .await;
    (status.unwrap().code(), fs::read_to_string(log).unwrap())
}

#[tokio::test]
async fn what_is_missing_or_broken_is_said() {
    let dir = temp_dir();
    let (folder, bin) = gadget(dir.path(), "#!/bin/sh\necho the reason; exit 3\n");
    let dev = Dev::new(dir.path(), &folder, &bin);
    let log = |name: &str| dir.path().join(name);

    let nowhere = Dev { variables: Vec::new(), ..Dev::new(dir.path(), &folder, &bin) };
    let (code, text) = refused(&nowhere, &log("nowhere")).await;
    assert_eq!(code, Some(1));
    assert!(text.contains("cargo build -p gadget-service"), "{text}");
    assert!(!dev.data.join("nats").exists(), "nothing was begun");

    let (code, text) = refused(&dev, &log("broken")).await;
    assert_eq!(code, Some(1));
    for part in ["gadget-service provision", "exit status: 3", "the reason"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    fs::write(folder.join("service.toml"), "name = \"user\"\nplural = \"users\"\n").unwrap();
    let (code, text) = refused(&dev, &log("taken")).await;
    assert_eq!(code, Some(1));
    assert!(text.contains("service.toml") && text.contains("taken"), "{text}");
}

#[tokio::test]
async fn a_service_that_keeps_dying_ends_it() {
    let dir = temp_dir();
    let program = PROGRAM.replace("    while :; do sleep 0.1; done\n", "    sleep 2; exit 1\n");
    let (folder, bin) = gadget(dir.path(), &program);
    let dev = Dev::new(dir.path(), &folder, &bin);
    let (code, text) = refused(&dev, &dir.path().join("log")).await;
    assert_eq!(code, Some(3));
    assert!(text.contains("gadget-service keeps dying"), "{text}");
    assert_eq!(dev.logged().matches("ready url").count(), 6, "restarted five times: {text}");
}
