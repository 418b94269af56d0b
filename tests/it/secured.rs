//! Everything over TLS as `docs/production.md` says, and what each mistake looks like.

use std::process::{Child, Command, Stdio};

use e2e::{Client, PASSWORD, Process, Secured, examples, wait_for};
use serde_json::json;

/// A mail server that speaks TLS from the first byte and writes each mail to its output. It ends with its input.
const MAIL_SERVER: &str = r#"
import os, socket, ssl, sys, threading
port, certificate, taken = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)

def converse(plain):
    try:
        lines = context.wrap_socket(plain, server_side=True).makefile("rwb")
        def say(text):
            lines.write(text + b"\r\n")
            lines.flush()
        say(b"220 ready")
        for line in lines:
            verb = line.split()[0].upper()
            if verb == b"DATA":
                say(b"354 go on")
                mail = b""
                while not mail.endswith(b"\r\n.\r\n"):
                    mail += lines.readline()
                with open(taken, "ab") as file:
                    file.write(mail)
            say(b"221 bye" if verb == b"QUIT" else b"250 yes")
    except (OSError, ValueError):
        pass

def serve(listener):
    while True:
        threading.Thread(target=converse, args=(listener.accept()[0],), daemon=True).start()

listener = socket.create_server(("127.0.0.1", port))
threading.Thread(target=serve, args=(listener,), daemon=True).start()
sys.stdin.read()
os._exit(0)
"#;

struct MailServer(Child);

impl MailServer {
    fn start(secured: &Secured) -> Self {
        let mut command = Command::new(examples::python());
        command.args(["-c", MAIL_SERVER, &secured.smtp_port().to_string()]);
        command.arg(secured.secrets("mongod").join("server.pem")).arg(secured.file("mails"));
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn mails(secured: &Secured) -> String {
    std::fs::read_to_string(secured.file("mails")).unwrap_or_default()
}

/// What `/readyz` says, once a part of it is as expected.
async fn readyz_says(service: &Process, part: &str) -> String {
    let private = Client::new(&service.value("private"));
    let said = || async {
        let answer = private.get("/readyz").await;
        String::from_utf8_lossy(&answer.bytes).into_owned()
    };
    wait_for(&format!("/readyz to say {part}"), || async { said().await.contains(part) }).await;
    said().await
}

async fn is_ready(service: &Process) {
    let private = Client::new(&service.value("private"));
    wait_for("a service to be ready", || async { private.get("/readyz").await.status == 200 })
        .await;
}

fn is_no_dump(text: &str) {
    for part in ["labels", "Kind:", "Topology", "server response"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_services_work_over_tls_with_the_settings_of_the_documentation() {
    let secured = Secured::start().await;
    let _mail_server = MailServer::start(&secured);
    let admin = [("ROSTER_ADMIN_EMAIL", "you@example.com"), ("ROSTER_ADMIN_PASSWORD", PASSWORD)];
    let operator = secured.settings("operator", &[]);
    let output = secured.roster(&["provision"], &operator, &admin);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let start = |service: &str| secured.service(service, &secured.settings(service, &[]));
    let services = ["command-api", "query-api", "projector", "reactor"].map(start);
    for service in &services {
        is_ready(service).await;
    }
    let [commands, queries, ..] = &services;
    let (commands, queries) =
        (Client::new(&commands.value("url")), Client::new(&queries.value("url")));
    commands.register("ada@example.com").await.expect(201);
    let token = commands.login("ada@example.com", PASSWORD).await;
    let me = queries.with_token(&token).get("/api/v1/auth/me").await.expect(200);
    assert_eq!(me.body["email"], json!("ada@example.com"));
    wait_for("the mail to be taken over TLS", || async {
        mails(&secured).contains("ada@example.com")
    })
    .await;
    for (command, part) in [("doctor", "TLS"), ("lag", "views")] {
        let output = secured.roster(&[command], &operator, &[]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(part), "{command}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_in_tls_names_the_setting() {
    let secured = Secured::start().await;
    let admin = [("ROSTER_ADMIN_EMAIL", "you@example.com"), ("ROSTER_ADMIN_PASSWORD", PASSWORD)];
    let output = secured.roster(&["provision"], &secured.settings("operator", &[]), &admin);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let other = other_authority(&secured);
    let wrong_ca = format!("ca_file = {other:?}");

    // NATS: without the authority, and with another one.
    for line in ["ca_file = \"\"", wrong_ca.as_str()] {
        for process in ["command-api", "query-api", "projector", "reactor"] {
            let settings = secured.settings(process, &[("ca_file", line)]);
            let output = secured.roster(&[process], &settings, &[]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                !output.status.success() && said.contains("nats.ca_file"),
                "{process} with {line}: {said}"
            );
        }
    }

    // MongoDB: in the clear, and with another authority.
    for process in ["projector", "query-api"] {
        let own = secured.secrets(process);
        std::fs::copy(&other, own.join("other.pem")).unwrap();
        let over_tls = format!("&tls=true&tlsCAFile={}/", own.display());
        for (from, to, part) in [
            (
                format!("{over_tls}ca.pem"),
                String::new(),
                "add tls=true and tlsCAFile to mongodb.url",
            ),
            ("/ca.pem".to_owned(), "/other.pem".to_owned(), "let tlsCAFile in mongodb.url name"),
        ] {
            let settings = secured.settings(process, &[]);
            secured.change_mongodb_url(process, &from, &to);
            let service = secured.service(process, &settings);
            is_no_dump(&readyz_says(&service, part).await);
            service.kill();
        }
    }
    is_no_dump(&secured.log_of("projector"));
    is_no_dump(&secured.log_of("query-api"));

    // The mail server: the authorities of the system, and another one.
    let _mail_server = MailServer::start(&secured);
    let commands = secured.service("command-api", &secured.settings("command-api", &[]));
    Client::new(&commands.value("url")).register("ada@example.com").await.expect(201);
    for line in ["smtp_ca_file = \"\"".to_owned(), format!("smtp_ca_file = {other:?}")] {
        let reactor =
            secured.service("reactor", &secured.settings("reactor", &[("smtp_ca_file", &line)]));
        wait_for("the reactor to name mail.smtp_ca_file", || async {
            secured.log_of("reactor").contains("mail.smtp_ca_file")
        })
        .await;
        std::fs::remove_file(secured.file("reactor.log")).unwrap();
        reactor.kill();
    }
    assert_eq!(mails(&secured), "", "nothing is sent to a server that is not trusted");
}

/// An authority that has signed nothing here.
fn other_authority(secured: &Secured) -> std::path::PathBuf {
    let file = secured.file("other.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=other", "-keyout"])
        .arg(secured.file("other.key"))
        .arg("-out")
        .arg(&file)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    file
}
