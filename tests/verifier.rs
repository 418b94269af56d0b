//! The examples that verify access tokens, as processes, and tokens that Roster would not make.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::examples::{Running, Said, example, examples, python};
use crate::{Client, System, wait_for};

/// `iss` of every system that says nothing else.
const ISSUER: &str = "http://127.0.0.1:8080";
/// The NATS user that the examples run as, which may follow what ended and nothing else.
const NATS_USER: &str = "product-verifier";

/// Takes lines `[header, claims]` and gives a token for each, signed with the key in the first argument; what says
/// that it is signed with HS256 is, with the text in the second.
const FORGE: &str = r#"
import base64, hmac, json, sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
text = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")
key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
for line in sys.stdin:
    header, claims = json.loads(line)
    message = b".".join(text(json.dumps(part).encode()) for part in (header, claims))
    symmetric = header.get("alg") == "HS256"
    signed = hmac.digest(sys.argv[2].encode(), message, "sha256") if symmetric else key.sign(message)
    print((message + b"." + text(signed)).decode())
"#;

/// Which example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifier {
    /// `examples/token-check`
    Rust,
    /// `examples/verifier.py`
    Python,
}

/// An example that runs and listens.
pub struct Verifying {
    /// Which.
    pub example: Verifier,
    /// Asks it.
    pub client: Client,
    _running: Running,
}

impl Verifier {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Rust, Self::Python];

    /// Its command, with the keys at a URL.
    pub fn command(self, system: &System, jwks: &str) -> Command {
        credentials(system);
        let mut command = match self {
            Self::Rust => Command::new(example("token-check")),
            Self::Python => Command::new(python()),
        };
        if self == Self::Python {
            command.arg(examples().join("verifier.py"));
        }
        command.args([NATS_USER, "--issuer", ISSUER, "--jwks", jwks]);
        match self {
            Self::Rust => command.args(["--listen", "127.0.0.1:0"]),
            Self::Python => command.args(["--port", "0"]),
        };
        command.env("NATS_URL", system.nats_url()).current_dir(system.file(""));
        command
    }

    /// Starts it, and waits until it listens.
    pub async fn start(self, command: Command) -> Verifying {
        let said = Said::default();
        let running = Running::start(command, &said);
        let url = || {
            let lines = said.lines();
            lines.iter().find_map(|line| line.strip_prefix("ready url=")).map(str::to_owned)
        };
        wait_for("an example to listen", || async { url().is_some() }).await;
        Verifying { example: self, client: Client::new(&url().unwrap()), _running: running }
    }

    /// Both, with the keys at a URL, ready to verify tokens.
    pub async fn both(system: &System, jwks: &str) -> [Verifying; 2] {
        let [rust, python] = Self::ALL;
        let rust = rust.start(rust.command(system, jwks)).await;
        let python = python.start(python.command(system, jwks)).await;
        let both = [rust, python];
        for verifying in &both {
            verifying.ready().await;
        }
        both
    }
}

impl Verifying {
    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        wait_for("an example to be ready", || async {
            self.client.get("/readyz").await.status == 200
        })
        .await;
    }

    /// What it answers to a token.
    pub async fn status(&self, token: &str) -> u16 {
        self.client.with_token(token).get("/whoami").await.status
    }
}

/// Has the operator make the credentials, unless they are there.
fn credentials(system: &System) {
    let file = format!("{NATS_USER}.creds");
    if system.file(&file).exists() {
        return;
    }
    let output = system.roster(&["services", "creds", "product", "--verifier", "--out", &file]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Where the keys of a system are, at one of its processes.
pub fn jwks(of: &crate::Process) -> String {
    format!("{}/.well-known/jwks.json", of.value("url"))
}

/// Header and claims of a token, whoever signed it.
pub fn parts(token: &str) -> (Value, Value) {
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let mut parts = token.split('.');
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

/// Signs what Roster would not, with its own key. A symmetric signature is made with the public key.
pub async fn forge(system: &System, tokens: &[(Value, Value)]) -> Vec<String> {
    let set = system.queries().get("/.well-known/jwks.json").await.expect(200);
    let public = &set.body["keys"][0];
    let text = |name: &str| public[name].as_str().unwrap().to_owned();
    let key = format!("command-api/signing-{}.pem", text("kid"));
    let mut forging = Command::new(python())
        .args(["-c", FORGE])
        .arg(system.secrets_dir().join(key))
        .arg(text("x"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String =
        tokens.iter().map(|(header, claims)| format!("{}\n", json!([header, claims]))).collect();
    forging.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = forging.wait_with_output().unwrap();
    assert!(output.status.success());
    let forged: Vec<String> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(forged.len(), tokens.len());
    forged
}

/// Gives keys out over TLS, with a certificate of an authority that nobody knows.
pub struct KeysOverTls {
    /// Where the keys are.
    pub url: String,
    /// The authority's certificate.
    pub authority: PathBuf,
    _running: Running,
}

/// Makes an authority and a certificate in the current folder, and serves what is in it.
const SERVE_TLS: &str = r#"
import datetime, http.server, ssl
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

def certificate(name, key, signer, issuer, authority):
    now = datetime.datetime.now(datetime.timezone.utc)
    named = lambda name: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
    builder = builder.add_extension(x509.BasicConstraints(authority, None), True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    builder = builder.add_extension(usage, True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    return builder.add_extension(signed_by, False).sign(signer, hashes.SHA256())

pem = serialization.Encoding.PEM
ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
authority = certificate("authority", ours, ours, "authority", True)
open("ca.pem", "wb").write(authority.public_bytes(pem))
served = certificate("localhost", theirs, ours, "authority", False).public_bytes(pem)
key = theirs.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
open("server.pem", "wb").write(served + key)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(f"https://localhost:{server.server_port}/jwks.json", flush=True)
server.serve_forever()
"#;

impl KeysOverTls {
    /// Starts it with the keys of a system.
    pub async fn of(system: &System, folder: &Path) -> Self {
        let set = system.queries().get("/.well-known/jwks.json").await.expect(200);
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("jwks.json"), &set.bytes).unwrap();
        let said = Said::default();
        let mut command = Command::new(python());
        command.args(["-c", SERVE_TLS]).current_dir(folder);
        let running = Running::start(command, &said);
        said.has(1).await;
        let url = said.lines()[0].clone();
        Self { url, authority: folder.join("ca.pem"), _running: running }
    }
}
