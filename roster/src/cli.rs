//! The command line. Exit codes: 0 all is well, 1 something was found or failed, 2 wrong use, 3 `dev`
//! gave up on a server that keeps dying.

mod operator;
mod others;
mod setup;
mod upkeep;

use std::fmt;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use events::UserId;
use service_kit::config::Settings;
use service_kit::logging;
use service_kit::nats::{self, ConnectError};
use service_kit::signing_keys::LEAD_DEFAULT_S;

use crate::{
    admin, application_key, asyncapi, audit, backup, beside, dev, doctor, erase, health, init,
    keys, lag, log, openapi, parked, preflight, provision, prune, rebuild, replay, restore,
    security, services, subscribers, unverified, user, users, verify,
};

use crate::error_text::error_text;
use crate::preflight::Process;

pub use operator::{
    AdminAction, AdminArgs, AuditAction, AuditArgs, DoctorArgs, EventsAction, EventsArgs,
    ImportArgs, LagArgs, ParkedAction, ParkedArgs, ProvisionArgs, RemoveUnverifiedArgs, ReplayArgs,
    SecurityAction, SecurityArgs, UserShowArgs, UsersCommand, VerifyArgs,
};
pub use others::{ServicesAction, ServicesArgs, SubscribersAction, SubscribersArgs};
use setup::DEV_HELP;
pub use setup::{DevArgs, InitArgs};
pub use upkeep::{BackupArgs, PruneArgs, PruneWhat, RebuildArgs, RebuildWhat, RestoreArgs};

/// Event-driven user and authentication service.
#[derive(Debug, Parser)]
#[command(name = "roster", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[expect(
    clippy::enum_variant_names,
    reason = "one is named after its service, not after this enum"
)]
enum Command {
    /// Run everything on this machine: nats-server, mongod and all services in one process
    #[command(after_help = DEV_HELP)]
    Dev(DevArgs),
    /// Run the command side
    CommandApi(ConfigArgs),
    /// Run the query side
    QueryApi(ConfigArgs),
    /// Run the projector of the user views
    Projector(ConfigArgs),
    /// Run the reactor, which sends the mails
    Reactor(ConfigArgs),
    /// Create the event log, or bring it to what it must be; with ROSTER_ADMIN_EMAIL and
    /// ROSTER_ADMIN_PASSWORD also the first administrator
    #[command(after_help = "Example: roster provision --check")]
    Provision(ProvisionArgs),
    /// See to users. Needs the operator's credentials
    #[command(subcommand, visible_alias = "user")]
    Users(UsersCommand),
    /// Who reads the feed of user events: add, list, look how far they are, remove. Needs the operator's
    /// credentials
    Subscribers(SubscribersArgs),
    /// Further services beside Roster's own: their NATS credentials. Needs the operator's credentials and keys
    Services(ServicesArgs),
    /// See to administrators. Needs the operator's credentials and keys
    Admin(AdminArgs),
    /// Events of the feed once more: any range of it, for one subscriber, into a file or to standard output. Needs
    /// the operator's credentials
    Replay(ReplayArgs),
    /// What operators changed: who, when and how it ended. Needs the operator's credentials
    Audit(AuditArgs),
    /// Who tried to get in: logins, limits, changes of passwords and roles, calls of administrators. Needs the
    /// operator's credentials
    Security(SecurityArgs),
    /// Mails that could not be sent and events that cannot be read: look, try again, give up. Needs the operator's
    /// credentials
    Parked(ParkedArgs),
    /// Take out of the streams what is not Roster's: messages that no service wrote, and consumers of the log that stay
    /// when nobody reads from them. `roster doctor` says whether there are any. Needs the operator's credentials
    #[command(
        after_help = "Examples:\n  roster prune consumers --dry-run\n  roster prune messages"
    )]
    Prune(PruneArgs),
    /// Show whether anything is left of a deleted user, in the streams and in the views. Needs the operator's
    /// credentials. Exit code 0 when nothing is left but the tombstones
    #[command(after_help = ERASE_HELP)]
    Erase(EraseArgs),
    /// Compare log, views, feed and claims, and name every difference; changes nothing and may be interrupted.
    /// Needs the operator's credentials. Exit code 1 when there is a difference
    #[command(after_help = "Example: roster verify --sample 100 --json")]
    Verify(VerifyArgs),
    /// Copy log, feed and keys into a folder while everything runs; again it begins anew. Needs the operator's
    /// credentials and keys
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupArgs),
    /// Bring a backup into an empty system, and end again what ended since; a restore that broke off is run again.
    /// Needs the operator's credentials and keys
    #[command(after_help = RESTORE_HELP)]
    Restore(RestoreArgs),
    /// Build the views anew from the log beside those that are read, compare them with the log, and switch to them
    /// while everything runs. Killed, it goes on when it is repeated. Needs the operator's credentials
    #[command(after_help = REBUILD_HELP)]
    Rebuild(RebuildArgs),
    /// Check a configuration and report everything that is wrong with it, without connecting to anything
    #[command(
        after_help = "Example: roster check-config --service command-api --config command-api.toml"
    )]
    CheckConfig(CheckConfigArgs),
    /// Look whether servers, clocks, disks, secrets, streams and indexes are as they must be, and say what to do about
    /// each that is not. Changes nothing. Needs the operator's credentials and the database. Exit code 1 when
    /// something is wrong or could not be looked at; warnings leave it at 0
    #[command(after_help = "Example: roster doctor --json")]
    Doctor(DoctorArgs),
    /// Look at the log: follow it, show one event, count. Needs the operator's credentials
    Events(EventsArgs),
    /// How far views, feed, reactor and subscribers are behind the log. Needs the operator's credentials. Exit code
    /// 1 when one is later than the limit
    #[command(after_help = "Example: roster lag --max-s 10")]
    Lag(LagArgs),
    /// Make the keys and NATS credentials of a new system. Run again with a newer version it leaves the keys and
    /// brings credentials and the servers' configuration to what that version needs
    #[command(after_help = "Example: roster init --dir secrets --service product:products")]
    Init(InitArgs),
    /// Print the OpenAPI document of the public API
    Openapi,
    /// Write the contract of the feed: an AsyncAPI document and the JSON Schema of each event type
    Asyncapi {
        /// Folder to write to
        dir: PathBuf,
    },
    /// Manage the keys of access tokens and of backups
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Ask a running service whether it is ready; for health checks
    Health(HealthArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Settings in TOML; over the defaults and below the environment
    #[arg(long, env = "ROSTER_CONFIG", global = true)]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckConfigArgs {
    /// The process that the configuration is for: what only others use is not looked at, and its keys are. By default all
    /// services, and whichever keys are in secrets.dir
    #[arg(long, value_enum, value_name = "NAME")]
    service: Option<Process>,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What `roster erase --help` ends with.
const ERASE_HELP: &str = "\
A user is erased by being deleted, with DELETE /api/v1/users/{id}: the reactor sees to it within minutes.

Example: roster erase --verify 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

/// What `roster backup --help` ends with.
const BACKUP_HELP: &str = "\
The folder holds keys and personal data: production makes it for a --recipient alone. docs/backup.md says how to live with
backups.

Examples:
  roster backup /backups/2026-01-31 --recipient backup.recipient
  roster backup /backups/2026-01-31 --recipient backup.recipient --ends
  roster backup /backups/2026-01-31 --check";

/// What `roster restore --help` ends with.
const RESTORE_HELP: &str = "\
The views are not in a backup: start the projector with an empty database afterwards, and then run roster verify.

Examples:
  roster restore /backups/2026-01-31 --identity backup.identity --keys /etc/roster/secrets
  roster restore /backups/2026-01-31 --identity backup.identity --config operator.toml";
/// What `roster rebuild --help` ends with.
const REBUILD_HELP: &str = "\
The projector must be running: it does the work. What was live is kept up to date for --rollback until --discard or
the next rebuild.

Examples:
  roster rebuild all
  roster rebuild users --rollback
  roster rebuild all --status --json";

/// Arguments of `roster erase`.
#[derive(Debug, Args)]
pub struct EraseArgs {
    /// Only look; there is nothing else that this command does
    #[arg(long, required = true)]
    pub verify: bool,
    /// The id of the user
    pub user: UserId,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make the two files that backups are encrypted with: the recipient, for the host that makes them, and the identity,
    /// without which none can be read; keep that one elsewhere
    #[command(
        after_help = "Example: roster keys backup --recipient backup.recipient --identity backup.identity"
    )]
    Backup(BackupKeysArgs),
    /// Make a new key while everything runs: it is published at once, signs after the lead, and no token
    /// that was signed before is refused
    #[command(after_help = "Example: roster keys rotate --dir .roster/secrets")]
    Rotate(RotateArgs),
    /// Take a key away that somebody else may have: no token that it has signed is good any more, and another key signs
    #[command(
        after_help = "Example: roster keys revoke kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k --dir .roster/secrets"
    )]
    Revoke(RevokeArgs),
    /// Change the application key while everything runs: the new one opens at once and seals after the lead, and both are
    /// accepted until --finish takes the old one away. Needs the operator's credentials for --finish alone
    #[command(
        after_help = "Examples:\n  roster keys rotate-application --dir .roster/secrets\n  roster keys rotate-application --dir .roster/secrets --finish --config .roster/operator.toml"
    )]
    RotateApplication(RotateApplicationArgs),
}

#[derive(Debug, Args)]
struct RotateApplicationArgs {
    /// The folder of `roster init`; bring the changed files of its folders to their services within the
    /// lead
    #[arg(long)]
    dir: PathBuf,
    /// Seconds until the new key seals
    #[arg(long, default_value_t = LEAD_DEFAULT_S, conflicts_with = "finish")]
    lead_s: u64,
    /// Seal every credential with the new key and take the old one away. Refused while anything else needs the old one.
    /// Interrupted, it goes on when it is repeated
    #[arg(long)]
    finish: bool,
    /// Do not wait until sessions and links that need the old key are over: those users log in again, or ask for another
    /// link
    #[arg(long, requires = "finish")]
    now: bool,
    /// Every command-api has the new key by now, although one of them sealed something with the old one when it should not
    #[arg(long, requires = "finish")]
    brought: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct RevokeArgs {
    /// The key: `kid` in the header of its tokens, in /.well-known/jwks.json and in keys.json
    #[arg(allow_hyphen_values = true)]
    kid: String,
    /// The folder of `roster init`; bring the changed files of its folders to their services
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct RotateArgs {
    /// The folder of `roster init`; bring the changed files of its folders to their services within the
    /// lead
    #[arg(long)]
    dir: PathBuf,
    /// Seconds until the new key signs
    #[arg(long, default_value_t = LEAD_DEFAULT_S)]
    lead_s: u64,
}

#[derive(Debug, Args)]
struct BackupKeysArgs {
    /// File to write the recipient to: what encrypts and signs
    #[arg(long, value_name = "FILE")]
    recipient: PathBuf,
    /// File to write the identity to: what decrypts and verifies
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
}

#[derive(Debug, Args)]
struct HealthArgs {
    /// Address of the private listener's /readyz
    #[arg(long, default_value = "http://127.0.0.1:9090/readyz")]
    url: String,
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Dev(args) => match Settings::examine(args.config.as_deref()) {
            Ok(examined) => match dev::settings(examined, &args) {
                Ok(settings) => with(settings, Vec::new(), |settings| dev::run(settings, args)),
                Err(error) => failed(&error.to_string()),
            },
            Err(error) => failed(&error.to_string()),
        },
        Command::CommandApi(args) => {
            with_checked(Some(Process::CommandApi), args.config, services::command_api)
        }
        Command::QueryApi(args) => {
            with_checked(Some(Process::QueryApi), args.config, services::query_api)
        }
        Command::Projector(args) => {
            with_checked(Some(Process::Projector), args.config, services::projector)
        }
        Command::Reactor(args) => {
            with_checked(Some(Process::Reactor), args.config, services::reactor)
        }
        Command::Parked(args) => {
            with_settings(args.config.config.clone(), |settings| parked::run(settings, args))
        }
        Command::Prune(args) => {
            with_settings(args.config.config.clone(), |settings| prune::run(settings, args))
        }
        Command::Admin(args) => {
            with_settings(args.config.config.clone(), |settings| admin::run(settings, args))
        }
        Command::Replay(args) => {
            with_settings(args.config.config.clone(), |settings| replay::run(settings, args))
        }
        Command::Audit(args) => {
            with_settings(args.config.config.clone(), |settings| audit::run(settings, args))
        }
        Command::Security(args) => {
            with_settings(args.config.config.clone(), |settings| security::run(settings, args))
        }
        Command::Verify(args) => {
            with_settings(args.config.config.clone(), |settings| verify::run(settings, args))
        }
        Command::Backup(args) => {
            let (config, process) = (args.config.config.clone(), Process::Operator);
            let process = (!args.check).then_some(process);
            with_checked(process, config, |settings| backup::run(settings, args))
        }
        Command::Restore(args) => {
            let (config, process) = (args.config.config.clone(), Process::Provision);
            let process = args.keys.is_none().then_some(process);
            with_checked(process, config, |settings| restore::run(settings, args))
        }
        Command::Rebuild(args) => {
            with_settings(args.config.config.clone(), |settings| rebuild::run(settings, args))
        }
        Command::Subscribers(args) => {
            with_settings(args.config.config.clone(), |settings| subscribers::run(settings, args))
        }
        Command::Services(args) => {
            with_settings(args.config.config.clone(), |settings| beside::run(settings, args))
        }
        Command::Users(UsersCommand::Import(args)) => {
            with_settings(args.config.config.clone(), |settings| users::import(settings, args))
        }
        Command::Users(UsersCommand::RemoveUnverified(args)) => {
            with_settings(args.config.config.clone(), |settings| unverified::run(settings, args))
        }
        Command::Erase(args) => {
            with_settings(args.config.config.clone(), |settings| erase::run(settings, args))
        }
        Command::Users(UsersCommand::Show(args)) => {
            with_settings(args.config.config.clone(), |settings| user::show(settings, args))
        }
        Command::Events(args) => {
            with_settings(args.config.config.clone(), |settings| log::run(settings, args))
        }
        // What another command would refuse to start with is what this one is asked for.
        Command::Doctor(args) => {
            with_checked(None, args.config.config.clone(), |settings| doctor::run(settings, args))
        }
        Command::Lag(args) => {
            with_settings(args.config.config.clone(), |settings| lag::run(settings, args))
        }
        Command::Provision(args) => {
            let config = args.config.config.clone();
            with_checked(Some(Process::Provision), config, |settings| {
                provision::run(settings, args)
            })
        }
        Command::CheckConfig(args) => check_config(&args),
        Command::Init(args) => report(init::all(&args.dir, &args.services).map(|made| {
            made.iter().for_each(|line| say(line));
        })),
        Command::Openapi => report(openapi::document().map(|text| say(text.trim_end()))),
        Command::Asyncapi { dir } => report(asyncapi::write(&dir)),
        Command::Keys(KeysCommand::Backup(args)) => {
            report(backup::crypt::generate(&args.recipient, &args.identity).map(|()| {
                say(&format!(
                    "{} is for the host that makes backups. {} reads every backup that it makes: keep the identity offline, \
                     in two places, and bring it only where you restore",
                    args.recipient.display(),
                    args.identity.display()
                ));
            }))
        }
        Command::Keys(KeysCommand::Rotate(args)) => report(keys::run(&args.dir, args.lead_s)),
        Command::Keys(KeysCommand::Revoke(args)) => report(keys::revoke(&args.dir, &args.kid)),
        Command::Keys(KeysCommand::RotateApplication(args)) if args.finish => {
            with_settings(args.config.config.clone(), |settings| async move {
                application_key::finish(settings, &args.dir, args.now, args.brought).await
            })
        }
        Command::Keys(KeysCommand::RotateApplication(args)) => {
            report(application_key::rotate(&args.dir, args.lead_s))
        }
        Command::Health(args) => match runtime() {
            Ok(runtime) => report(runtime.block_on(health::check(&args.url))),
            Err(error) => failed(&error.to_string()),
        },
    }
}

/// A command of the operator.
fn with_settings<F, Fut>(config: Option<PathBuf>, command: F) -> ExitCode
where
    F: FnOnce(Settings) -> Fut,
    Fut: Future<Output = anyhow::Result<ExitCode>>,
{
    with_checked(Some(Process::Operator), config, command)
}

/// Runs a command with settings that are good for that process; for `None` it needs no server, and no more than valid ones.
fn with_checked<F, Fut>(process: Option<Process>, config: Option<PathBuf>, command: F) -> ExitCode
where
    F: FnOnce(Settings) -> Fut,
    Fut: Future<Output = anyhow::Result<ExitCode>>,
{
    let examined = match Settings::examine(config.as_deref()) {
        Ok(examined) => examined,
        Err(error) => return failed(&error.to_string()),
    };
    let checked = match process {
        Some(process) => preflight::of(process, examined, config.as_deref()),
        None => examined.valid().map(|settings| (settings, Vec::new())),
    };
    match checked {
        Ok((settings, warnings)) => with(settings, warnings, command),
        Err(error) => failed(&error.to_string()),
    }
}

fn check_config(args: &CheckConfigArgs) -> ExitCode {
    let file = args.config.config.as_deref();
    let examined = match Settings::examine(file) {
        Ok(examined) => examined,
        Err(error) => return failed(&error.to_string()),
    };
    let checked = match args.service {
        Some(process) => preflight::of(process, examined, file).map(|(_, warnings)| warnings),
        None => preflight::of_all(examined, file),
    };
    match checked {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| progress(&format!("insecure: {warning}")));
            say("the configuration is valid");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn with<F, Fut>(settings: Settings, warnings: Vec<String>, command: F) -> ExitCode
where
    F: FnOnce(Settings) -> Fut,
    Fut: Future<Output = anyhow::Result<ExitCode>>,
{
    if let Err(error) = logging::start(&settings.telemetry) {
        return failed(&error);
    }
    logging::warn_insecure(&warnings);
    let nats_url = nats::shown(&settings.nats.url);
    match runtime() {
        Ok(runtime) => match runtime.block_on(command(settings)) {
            Ok(code) => code,
            Err(error) => ended(&error, hint_for(&error, &nats_url)),
        },
        Err(error) => failed(&error.to_string()),
    }
}

/// Where NATS was not reached: where that was, and where settings come from.
fn hint_for(error: &anyhow::Error, nats_url: &str) -> Option<String> {
    let is_connection = error.chain().any(|cause| cause.is::<ConnectError>());
    is_connection.then(|| {
        format!("nats.url is {nats_url}; settings come from --config FILE or ROSTER_CONFIG")
    })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ended(&error, None),
    }
}

/// Arguments that do not fit together or name what there cannot be, found where clap cannot: exit code 2.
#[derive(Debug)]
pub struct WrongUse(pub String);

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

fn ended(error: &anyhow::Error, hint: Option<String>) -> ExitCode {
    let code = failed(&error_text(error));
    if let Some(hint) = hint {
        progress(&hint);
    }
    if error.is::<WrongUse>() { ExitCode::from(2) } else { code }
}

// Nobody may read any more, as behind `head`: a command goes on to its end without a word, since what it changes must
// not be left half-way.

/// What went wrong, on standard error.
pub fn failed(text: &str) -> ExitCode {
    progress(text);
    ExitCode::FAILURE
}

/// A line of the answer, on standard output.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// A line about progress, on standard error.
pub fn progress(text: &str) {
    let _ = writeln!(io::stderr().lock(), "roster: {text}");
}
