//! Keys and credentials of a new system: one folder per owner, so that each service is given its own
//! and no other.
//!
//! ```text
//! operator/     operator.creds, application.key, lookup.key, keys.json, signing-*.pem, nats/ (seeds)
//! command-api/  nats.creds, application.key, lookup.key, keys.json, signing-*.pem
//! query-api/    nats.creds, cursor.key, keys.json
//! projector/    nats.creds
//! reactor/      nats.creds of the mailer, eraser.creds, link.key, mail.key, gate.key
//! NAME-service/ nats.creds, service.key: of a further service, when it is asked for
//! nats/         auth.conf: what the servers include
//! ```

use std::fs;
use std::path::Path;

use anyhow::Context;
use events::ServiceNames;
use nats_access::{Role, Trust};
use reactor::ERASER_CREDS_FILE;
use service_kit::keys::{APPLICATION_KEY_FILE, CURSOR_KEY_FILE, SecretKey, replace_private};
use service_kit::signing_keys::{KEYS_FILE, LEAD_MIN_S};

use crate::{application_key, beside, keys};

/// NATS credentials in a service's folder.
const CREDS_FILE: &str = "nats.creds";

/// Everything for a system whose servers run elsewhere. Again, it leaves keys as they are and brings what is made
/// of them to what this version needs. Says, line by line, what each folder is for.
pub fn all(dir: &Path, services: &[ServiceNames]) -> anyhow::Result<Vec<String>> {
    let is_new = !dir.join("operator").join(APPLICATION_KEY_FILE).exists();
    keys(dir)?;
    let trust = Trust::load_or_create(&dir.join("operator").join("nats"))?;
    for (role, folder, file) in [
        (Role::Operator, "operator", CREDS_FILE),
        (Role::CommandApi, "command-api", CREDS_FILE),
        (Role::QueryApi, "query-api", CREDS_FILE),
        (Role::Projector, "projector", CREDS_FILE),
        (Role::Mailer, "reactor", CREDS_FILE),
        (Role::Eraser, "reactor", ERASER_CREDS_FILE),
    ] {
        let folder = dir.join(folder);
        private_dir(&folder)?;
        // Those of an older version are brought to what the service may do now.
        trust.write_creds_file(&folder.join(file), role)?;
    }
    for names in services {
        let folder = dir.join(names.service());
        beside::make(&folder)?;
        beside::make_creds(&trust, names, &folder.join(CREDS_FILE))?;
    }
    let servers = dir.join("nats");
    private_dir(&servers)?;
    replace_private(&servers.join("auth.conf"), trust.server_config()?.as_bytes())?;
    Ok(told(dir, services, is_new))
}

/// What there is now, and whom it is for.
fn told(dir: &Path, services: &[ServiceNames], is_new: bool) -> Vec<String> {
    let folder = |name: &str, what: &str| format!("{}  {what}", dir.join(name).display());
    let mut lines = vec![
        match is_new {
            true => {
                "made new keys; back the folder up: without it nobody can log in again".to_owned()
            }
            false => "the keys stay; credentials are what this version needs".to_owned(),
        },
        folder("operator", "for the operator's commands alone: all keys, and those of NATS"),
    ];
    for service in ["command-api", "query-api", "projector", "reactor"] {
        lines.push(folder(service, &format!("for {service}: set secrets.dir to it")));
    }
    for names in services {
        lines.push(folder(&names.service(), "for this service"));
    }
    lines.push(folder("nats/auth.conf", "for nats-server, which includes it"));
    lines
}

/// The application's keys; those that are there stay.
pub fn keys(dir: &Path) -> anyhow::Result<()> {
    let [operator, command, query, reactor] =
        ["operator", "command-api", "query-api", "reactor"].map(|name| dir.join(name));
    for folder in [&operator, &command, &query, &reactor] {
        private_dir(folder)?;
    }
    let application = application_key::make(dir)?;
    SecretKey::generate()?.write_new(&query.join(CURSOR_KEY_FILE))?;

    if !operator.join(KEYS_FILE).exists() {
        keys::rotate(dir, LEAD_MIN_S)?;
    }
    // The reactor gets the keys it works with, and not the one they come from.
    application_key::hand_out(dir, &application)?;
    keys::hand_out(dir)
}

/// Makes a folder that only its owner may use, unless there is one.
pub fn private_dir(dir: &Path) -> anyhow::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).with_context(|| format!("cannot make the folder {}", dir.display()))
}
