//! Finds what would stop a process at its start, without connecting to anything.
//!
//! `roster check-config` and each service run the same checks, so a configuration that is reported as valid starts.
//! Insecure settings are rejected in production and reported as warnings in development ([`Preflight::insecure`]).
//!
//! Not for checks whether servers are available and provisioned.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use async_nats::ServerAddr;
use url::Url;

use crate::config::{AllowPlain, Deployment, PlainConnection, TelemetrySettings};
use crate::key_ring::Ring;
use crate::keys::SecretKey;
use crate::signing_keys::{KeyRing, private_key_file};
use crate::{config, logging, nats};

/// The first line of a file with NATS credentials.
const CREDENTIALS_HEAD: &str = "-----BEGIN NATS USER JWT-----";
/// The first line of a certificate in PEM.
const CERTIFICATE_HEAD: &str = "-----BEGIN CERTIFICATE-----";
/// Permissions that only the owner of a secret may have.
const OTHERS: u32 = 0o077;
/// The same if the group may read, as Kubernetes mounts secrets for a process that is not root.
const OTHERS_THAN_READERS: u32 = 0o037;

/// Why a working setting is rejected.
const PRODUCTION: &str = "deployment is \"production\", the default, which refuses what is insecure; \
                          \"development\" is for machines of developers and warns of it";

/// Collects faults and warnings.
#[derive(Debug)]
pub struct Preflight {
    deployment: Deployment,
    allow_plain: AllowPlain,
    allow_group_read: bool,
    faults: Vec<String>,
    warnings: Vec<String>,
    has_refused: bool,
}

impl Preflight {
    /// Starts with the faults that were found before.
    #[must_use]
    pub fn new(deployment: Deployment, allow_plain: &str, faults: Vec<String>) -> Self {
        // An invalid list of connections is reported as a fault of the settings.
        let allow_plain = allow_plain.parse().unwrap_or_default();
        let (allow_group_read, has_refused) = (false, false);
        Self {
            deployment,
            allow_plain,
            allow_group_read,
            faults,
            warnings: Vec::new(),
            has_refused,
        }
    }

    /// Whether the group of a secret's file may read it.
    #[must_use]
    pub const fn allow_group_read(mut self, allow: bool) -> Self {
        self.allow_group_read = allow;
        self
    }

    /// Whether this is a production deployment.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.deployment == Deployment::Production
    }

    /// Adds a fault with which the process cannot work.
    pub fn fault(&mut self, text: impl Into<String>) {
        self.faults.push(text.into());
    }

    /// Adds something that is not permitted in production.
    pub fn insecure(&mut self, text: impl Into<String>) {
        let said = match self.deployment {
            Deployment::Production => {
                self.has_refused = true;
                &mut self.faults
            }
            Deployment::Development => &mut self.warnings,
        };
        let text = text.into();
        // A file with several contents is checked for each of them.
        if !said.contains(&text) {
            said.push(text);
        }
    }

    /// Adds something that production permits only if the operator allows it.
    fn plain(&mut self, connection: PlainConnection, text: &str) {
        if !self.allow_plain.contains(connection) {
            let name = connection.as_str();
            self.insecure(format!(
                "{text} (or allow_plain = \"{name}\", if something else protects it)"
            ));
        }
    }

    /// Adds the error of a failed attempt.
    pub fn tried<T>(
        &mut self,
        setting: &str,
        result: Result<T, impl std::error::Error>,
    ) -> Option<T> {
        result.map_err(|error| self.fault(described(setting, &error))).ok()
    }

    /// `[telemetry]`
    pub fn telemetry(&mut self, settings: &TelemetrySettings) {
        if let Err(why) = logging::filter(settings) {
            self.fault(why);
        }
    }

    /// `[nats]`: addresses, credentials, certificate authority.
    pub fn nats(&mut self, settings: &config::Nats) {
        let has_user = match nats::servers(&settings.url) {
            Err(error) => {
                self.fault(error.to_string());
                false
            }
            Ok(servers) => {
                let is_clear = |server: &ServerAddr| {
                    !matches!(server.scheme(), "tls" | "wss") && !is_loopback(server.host())
                };
                if settings.ca_file.as_os_str().is_empty() && servers.iter().any(is_clear) {
                    self.plain(
                        PlainConnection::Nats,
                        "nats.url goes to another machine without requiring TLS: use tls://, or set nats.ca_file",
                    );
                }
                servers.iter().all(ServerAddr::has_user_pass)
            }
        };
        if let Err(error) = nats::check_ca_file(settings) {
            self.fault(error.to_string());
        }
        let file = &settings.credentials_file;
        if file.as_os_str().is_empty() {
            if !has_user {
                self.insecure("nats.credentials_file is not set: NATS would not know who connects");
            }
        } else {
            self.credentials("nats.credentials_file", file);
        }
        self.private("nats.url_file", &settings.url_file);
    }

    /// A file with the credentials of a NATS user.
    pub fn credentials(&mut self, setting: &str, file: &Path) {
        self.holds(setting, file, CREDENTIALS_HEAD, "credentials of a NATS user");
        self.private(setting, file);
    }

    /// The address of the views, as the driver has parsed `mongodb.url`.
    pub fn mongodb(&mut self, settings: &config::MongoDb, target: &DatabaseTarget) {
        let is_far = target.hosts.iter().any(|host| !is_loopback(host));
        if is_far && !target.has_tls {
            self.plain(
                PlainConnection::MongoDb,
                "mongodb.url goes to another machine without TLS: add tls=true",
            );
        }
        if is_far && target.believes_anybody {
            self.insecure(
                "mongodb.url turns the check of the server's certificate off: take tlsInsecure, tlsAllowInvalidCertificates \
                 and tlsAllowInvalidHostnames out, and name the authority with tlsCAFile",
            );
        }
        if is_far && !target.has_user {
            self.insecure("mongodb.url names no user: MongoDB would let anybody in");
        }
        for file in &target.files {
            if let Err(error) = fs::metadata(file) {
                self.fault(format!("mongodb.url: cannot read {}: {error}", file.display()));
            }
        }
        self.private("mongodb.url_file", &settings.url_file);
    }

    /// The public URL: `tokens.issuer`.
    pub fn issuer(&mut self, issuer: &str) {
        self.public_url("tokens.issuer", issuer, PlainConnection::Issuer);
    }

    /// A URL that is shown to users.
    pub fn public_url(&mut self, setting: &str, text: &str, connection: PlainConnection) {
        let Ok(url) = Url::parse(text) else {
            self.insecure(format!("{setting} is not a URL"));
            return;
        };
        if url.scheme() != "https" && !url.host_str().is_some_and(is_loopback) {
            self.plain(connection, &format!("{setting} is not an https URL"));
        }
    }

    /// A key file: content and permissions.
    pub fn key(&mut self, file: &Path) {
        let read = SecretKey::read(file);
        if self.tried("secrets.dir", read).is_some() {
            self.private("secrets.dir", file);
        }
    }

    /// The file of a key that can be rotated: content and permissions.
    pub fn key_ring(&mut self, file: &Path) {
        if self.tried("secrets.dir", Ring::read(file)).is_some() {
            self.private("secrets.dir", file);
        }
    }

    /// The keys of access tokens; `signs` if the private keys are needed, too.
    pub fn signing_keys(&mut self, dir: &Path, signs: bool) {
        let Some(kids) = self.tried("secrets.dir", KeyRing::check(dir, signs)) else { return };
        for kid in kids.into_iter().filter(|_| signs) {
            self.private("secrets.dir", &dir.join(private_key_file(&kid)));
        }
    }

    /// The folder with the keys.
    pub fn secrets_dir(&mut self, dir: &Path) -> bool {
        let is_set = !dir.as_os_str().is_empty();
        if !is_set {
            self.fault("secrets.dir is not set: `roster init` makes the folder with the keys");
        }
        is_set
    }

    /// A file with a secret, which only its owner may read; an empty path means no file.
    pub fn private(&mut self, setting: &str, file: &Path) {
        #[cfg(unix)]
        if let Ok(metadata) = fs::metadata(file) {
            let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
            let forbidden = if self.allow_group_read { OTHERS_THAN_READERS } else { OTHERS };
            if mode & forbidden != 0 {
                let (mode, file) = (mode & 0o777, file.display());
                self.insecure(format!(
                    "{setting}: {file} has mode {mode:04o}, so others can use the secret in it: chmod 0600 it \
                     (secrets.allow_group_read = true lets its group read)"
                ));
            }
        }
    }

    /// A file that must exist and start with a known text.
    fn holds(&mut self, setting: &str, file: &Path, head: &str, what: &str) {
        match fs::read_to_string(file) {
            Ok(text) if text.contains(head) => {}
            Ok(_) => self.fault(format!("{setting}: {} does not hold {what}", file.display())),
            Err(error) => {
                self.fault(format!("{setting}: cannot read {}: {error}", file.display()));
            }
        }
    }

    /// Returns the warnings if there are no faults.
    ///
    /// # Errors
    /// Every fault.
    pub fn end(self) -> Result<Vec<String>, Vec<String>> {
        let Self { mut faults, warnings, has_refused, .. } = self;
        if faults.is_empty() {
            return Ok(warnings);
        }
        if has_refused {
            faults.push(PRODUCTION.to_owned());
        }
        Err(faults)
    }
}

/// The content of a MongoDB connection string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseTarget {
    /// The servers, or the name that they are looked up by.
    pub hosts: Vec<String>,
    /// Whether the connection uses TLS.
    pub has_tls: bool,
    /// Whether it has a user.
    pub has_user: bool,
    /// Whether TLS accepts any certificate, or one for another host.
    pub believes_anybody: bool,
    /// The files that it names.
    pub files: Vec<std::path::PathBuf>,
}

/// Whether a file contains certificates.
///
/// # Errors
/// The system's, or that there is no certificate in it.
pub(crate) fn certificates(file: &Path) -> std::io::Result<()> {
    let text = fs::read_to_string(file)?;
    let none = || std::io::Error::other("there is no certificate in it");
    text.contains(CERTIFICATE_HEAD).then_some(()).ok_or_else(none)
}

/// Whether a host is this machine.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a URL leads to this machine.
#[must_use]
pub fn is_loopback_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.host_str().is_some_and(is_loopback))
}

/// Whether an `@` comes after the part for user and password: a character in them was not percent-encoded, and a part
/// of the password would be taken for a host.
#[must_use]
pub fn is_badly_encoded(url: &str) -> bool {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest.get(authority..).is_some_and(|rest| rest.contains('@'))
        || rest.get(..authority).is_some_and(|authority| authority.matches('@').count() > 1)
}

fn described(setting: &str, error: &dyn std::error::Error) -> String {
    let mut text = format!("{setting}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
