//! What each process would find wrong at its start, found without connecting: by `roster check-config`, and by the
//! processes themselves before anything else, so that all of it is reported together.

use std::collections::BTreeSet;
use std::path::Path;

use clap::ValueEnum;
use service_kit::config::{ConfigError, Examined, MailTransport, PlainConnection, Settings};
use service_kit::keys::{
    APPLICATION_KEY_FILE, CURSOR_KEY_FILE, GATE_KEY_FILE, LINK_KEY_FILE, LOOKUP_KEYS_FILE,
    MAIL_KEY_FILE,
};
use service_kit::lookup_keys::LookupKeys;
use service_kit::preflight::{Preflight, is_loopback_url};
use view_kit::database_target;

use crate::cli::progress;
use crate::provision;

/// A process that settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Process {
    /// `roster command-api`
    CommandApi,
    /// `roster query-api`
    QueryApi,
    /// `roster projector`
    Projector,
    /// `roster reactor`
    Reactor,
    /// `roster provision`, and what else makes streams
    Provision,
    /// The other commands of the operator
    Operator,
}

impl Process {
    const SERVICES: [Self; 4] = [Self::CommandApi, Self::QueryApi, Self::Projector, Self::Reactor];

    const fn has_views(self) -> bool {
        matches!(self, Self::QueryApi | Self::Projector)
    }

    const fn has_public_url(self) -> bool {
        matches!(self, Self::CommandApi | Self::QueryApi)
    }
}

/// The settings of one process, and what to warn of.
///
/// # Errors
/// [`ConfigError`] with everything that is wrong.
pub fn of(
    process: Process,
    examined: Examined<Settings>,
    file: Option<&Path>,
) -> Result<(Settings, Vec<String>), ConfigError> {
    let Examined { settings, faults, given, in_file } = examined;
    let mut preflight = begin(&settings, faults);
    config_file(&mut preflight, &settings, &in_file, file);
    common(&mut preflight, &settings);
    match process {
        Process::Operator | Process::Provision => operator(&mut preflight, &settings),
        Process::CommandApi | Process::QueryApi | Process::Projector | Process::Reactor => {
            service(&mut preflight, &settings, process);
            keys(&mut preflight, &settings, process);
        }
    }
    // A restore makes streams too; what it needs is what `provision` needs.
    if process == Process::Provision {
        if let Some(file) = provision::password_file() {
            preflight.private(provision::PASSWORD_FILE, &file);
        }
        replicas(&mut preflight, &settings, given.contains("log.replicas"));
    }
    Ok((settings, preflight.end()?))
}

/// The settings of all services at once, as far as one file can be for all of them.
///
/// # Errors
/// [`ConfigError`] with everything that is wrong.
pub fn of_all(
    examined: Examined<Settings>,
    file: Option<&Path>,
) -> Result<Vec<String>, ConfigError> {
    let Examined { settings, faults, in_file, .. } = examined;
    let mut preflight = begin(&settings, faults);
    config_file(&mut preflight, &settings, &in_file, file);
    common(&mut preflight, &settings);
    database(&mut preflight, &settings);
    for process in Process::SERVICES {
        service(&mut preflight, &settings, process);
    }
    // Each service has its own folder of keys: whichever keys are in this one are looked at.
    let dir = &settings.secrets.dir;
    if preflight.secrets_dir(dir) {
        let own = Process::SERVICES.into_iter().filter(|process| {
            key_files(*process).first().is_some_and(|file| dir.join(file).exists())
        });
        let own: Vec<Process> = own.collect();
        if own.is_empty() {
            preflight.fault(format!(
                "secrets.dir: {} holds the keys of no service; `roster init` makes a folder for each",
                dir.display()
            ));
        }
        own.into_iter().for_each(|process| keys(&mut preflight, &settings, process));
    }
    Ok(preflight.end()?)
}

/// Refuses in production a file with a secret that others than its owner can read, which an option names.
///
/// # Errors
/// [`ConfigError`] with what is wrong.
pub fn private_file(settings: &Settings, option: &str, file: &Path) -> Result<(), ConfigError> {
    let mut preflight = begin(settings, Vec::new());
    preflight.private(option, file);
    preflight.end()?.iter().for_each(|warning| progress(&format!("warning: {warning}")));
    Ok(())
}

fn begin(settings: &Settings, faults: Vec<String>) -> Preflight {
    Preflight::new(settings.deployment, &settings.allow_plain, faults)
        .allow_group_read(settings.secrets.allow_group_read)
}

/// A file with settings is a secret when an address in it has a password.
fn config_file(
    preflight: &mut Preflight,
    settings: &Settings,
    in_file: &BTreeSet<String>,
    file: Option<&Path>,
) {
    let (nats, mongodb, mail) =
        (&settings.nats.url, &settings.mongodb.url, &settings.mail.smtp_url);
    let has_secret = [("nats.url", nats), ("mongodb.url", mongodb), ("mail.smtp_url", mail)]
        .into_iter()
        .any(|(key, url)| in_file.contains(key) && url.contains('@'));
    if let Some(file) = file.filter(|_| has_secret) {
        preflight.private("--config", file);
    }
}

/// What every process has.
fn common(preflight: &mut Preflight, settings: &Settings) {
    preflight.telemetry(&settings.telemetry);
    preflight.nats(&settings.nats);
    // Read by every process that is given them, whether it uses what is in them or not.
    preflight.private("mongodb.url_file", &settings.mongodb.url_file);
    preflight.private("mail.smtp_url_file", &settings.mail.smtp_url_file);
}

/// What is of one service alone, without its keys.
fn service(preflight: &mut Preflight, settings: &Settings, process: Process) {
    if process.has_views() {
        database(preflight, settings);
    }
    // The feed of the projector says where its schemas are served.
    if process.has_public_url() || process == Process::Projector {
        preflight.issuer(&settings.tokens.issuer);
    }
    match process {
        Process::CommandApi if !settings.throttle.enabled => {
            preflight
                .insecure("throttle.enabled is false: passwords could be guessed without limit");
        }
        Process::Reactor => {
            mail(preflight, settings);
            let eraser = &settings.erasure.credentials_file;
            if !eraser.as_os_str().is_empty() {
                preflight.credentials("erasure.credentials_file", eraser);
            }
        }
        Process::CommandApi
        | Process::QueryApi
        | Process::Projector
        | Process::Provision
        | Process::Operator => {}
    }
}

/// The files with the keys of a service that must be there, the one that only it has first.
const fn key_files(process: Process) -> &'static [&'static str] {
    match process {
        Process::CommandApi => &[APPLICATION_KEY_FILE],
        Process::QueryApi => &[CURSOR_KEY_FILE],
        Process::Reactor => &[LINK_KEY_FILE, MAIL_KEY_FILE],
        Process::Projector | Process::Provision | Process::Operator => &[],
    }
}

fn keys(preflight: &mut Preflight, settings: &Settings, process: Process) {
    let (dir, files) = (&settings.secrets.dir, key_files(process));
    if files.is_empty() || !preflight.secrets_dir(dir) {
        return;
    }
    for file in files {
        match *file {
            CURSOR_KEY_FILE => preflight.key(&dir.join(file)),
            _ => preflight.key_ring(&dir.join(file)),
        }
    }
    // Where it is not set, it is beside those of the mailer.
    if process == Process::Reactor && settings.erasure.credentials_file.as_os_str().is_empty() {
        let eraser = reactor::eraser_credentials(settings);
        if !eraser.as_os_str().is_empty() {
            preflight.credentials("erasure.credentials_file", &eraser);
        }
    }
    // They are made of the others as long as those were never rotated. What is wrong with those is said already.
    let made = match process {
        Process::CommandApi => Some((LookupKeys::read(dir).map(drop), LOOKUP_KEYS_FILE)),
        Process::Reactor => Some((LookupKeys::read_mail_gate(dir).map(drop), GATE_KEY_FILE)),
        Process::QueryApi | Process::Projector | Process::Provision | Process::Operator => None,
    };
    if let Some((read, file)) = made
        && (dir.join(file).exists() || files.iter().all(|file| dir.join(file).exists()))
        && preflight.tried("secrets.dir", read).is_some()
    {
        preflight.private("secrets.dir", &dir.join(file));
    }
    if process.has_public_url() {
        preflight.signing_keys(dir, process == Process::CommandApi);
    }
}

fn operator(preflight: &mut Preflight, settings: &Settings) {
    database(preflight, settings);
    for file in [APPLICATION_KEY_FILE, LOOKUP_KEYS_FILE] {
        preflight.private("secrets.dir", &settings.secrets.dir.join(file));
    }
}

fn database(preflight: &mut Preflight, settings: &Settings) {
    match database_target(&settings.mongodb.url) {
        Ok(target) => preflight.mongodb(&settings.mongodb, &target),
        Err(error) => preflight.fault(error.to_string()),
    }
}

fn replicas(preflight: &mut Preflight, settings: &Settings, is_given: bool) {
    if settings.log.replicas == 1 && !settings.log.allow_single_replica {
        let is = if is_given { "is" } else { "is not set and would be" };
        preflight.insecure(format!(
            "log.replicas {is} 1: with one disk the log is lost. Set 3 in a cluster, or log.allow_single_replica = true on \
             one machine"
        ));
    }
}

fn mail(preflight: &mut Preflight, settings: &Settings) {
    for error in reactor::check_mail(&settings.mail) {
        preflight.fault(error.to_string());
    }
    preflight.private("mail.smtp_url_file", &settings.mail.smtp_url_file);
    let base = settings.link_base();
    let setting = match settings.mail.link_base.is_empty() {
        true => "tokens.issuer, which links in mails begin with,",
        false => "mail.link_base",
    };
    preflight.public_url(setting, &base, PlainConnection::Links);
    match settings.mail.transport {
        MailTransport::Folder => {
            preflight.insecure("mail.transport is folder: nobody would get a mail. Set smtp");
        }
        MailTransport::Smtp
            if is_loopback_url(&base) && !is_loopback_url(&settings.mail.smtp_url) =>
        {
            preflight.fault(format!(
                "links in mails would begin with {base}, which only this machine can open: set tokens.issuer to the public \
                 URL, or mail.link_base"
            ));
        }
        MailTransport::Smtp => {}
    }
}

#[cfg(test)]
mod tests;
