//! The command line. Exit codes: 0 all is well, 1 something was found or failed, 2 wrong use, 3 `dev`
//! gave up on a server that keeps dying.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use events::UserId;
use service_kit::config::Settings;
use service_kit::signing_keys::LEAD_DEFAULT_S;
use service_kit::telemetry;

use crate::{
    asyncapi, dev, erase, health, init, keys, lag, openapi, parked, provision, services,
    subscribers, users, verify,
};

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
    #[command(subcommand)]
    Users(UsersCommand),
    /// Who reads the feed of user events: add, list, look how far they are, remove. Needs the operator's
    /// credentials
    Subscribers(SubscribersArgs),
    /// Mails that could not be sent: look, put back, give up. Needs the operator's credentials
    Parked(ParkedArgs),
    /// Show whether anything is left of a deleted user, in the streams and in the views. Needs the operator's
    /// credentials. Exit code 0 when nothing is left but the tombstones
    #[command(after_help = ERASE_HELP)]
    Erase(EraseArgs),
    /// Compare log, views, feed and claims, and name every difference; changes nothing and may be interrupted.
    /// Needs the operator's credentials. Exit code 1 when there is a difference
    #[command(after_help = "Example: roster verify --sample 100 --json")]
    Verify(VerifyArgs),
    /// Check a configuration and say everything that is wrong with it
    CheckConfig(ConfigArgs),
    /// How far views, feed, reactor and subscribers are behind the log. Needs the operator's credentials. Exit code
    /// 1 when one is later than the limit
    #[command(after_help = "Example: roster lag --max-s 10")]
    Lag(LagArgs),
    /// Make the keys and NATS credentials of a new system. Run again with a newer version it leaves the keys and
    /// brings credentials and the servers' configuration to what that version needs
    Init(InitArgs),
    /// Print the OpenAPI document of the public API
    Openapi,
    /// Write the contract of the feed: an AsyncAPI document and the JSON Schema of each event type
    Asyncapi {
        /// Folder to write to
        dir: PathBuf,
    },
    /// See to the keys of access tokens
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

/// What `roster erase --help` ends with.
const ERASE_HELP: &str = "\
A user is erased by being deleted, with DELETE /api/v1/users/{id}: the reactor sees to it within minutes.

Example: roster erase --verify 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

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

/// Arguments of `roster dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where clients connect; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Folder with everything that is kept from one start to the next
    #[arg(long, default_value = ".roster")]
    pub data_dir: PathBuf,
    /// Use this NATS instead of starting one
    #[arg(long)]
    pub nats_url: Option<String>,
    /// Use this MongoDB instead of starting one
    #[arg(long)]
    pub mongodb_url: Option<String>,
    /// Switch rate limits off, for load tests
    #[arg(long)]
    pub no_throttle: bool,
    /// Settings in TOML; over the defaults and below the environment
    #[arg(long, env = "ROSTER_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum UsersCommand {
    /// Make users of a file with one JSON object per line; start it again to go on where it was
    #[command(after_help = "Example: roster users import users.ndjson")]
    Import(ImportArgs),
}

/// Arguments of `roster users import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Lines as `POST /api/v1/users/import` takes them, as many as there are
    pub file: PathBuf,
    /// Where the answer to each line goes; by default a file beside the input
    #[arg(long)]
    pub results: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `roster subscribers`.
#[derive(Debug, Args)]
pub struct SubscribersArgs {
    #[command(subcommand)]
    pub action: SubscribersAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What to do about subscribers of the feed.
#[derive(Debug, Subcommand)]
pub enum SubscribersAction {
    /// Let somebody read the feed: makes a durable consumer, and credentials that are good for it alone
    #[command(
        after_help = "Examples:\n  roster subscribers add billing\n  roster subscribers add search --from snapshot\n  \
                      roster subscribers add alarm --filter sessions.v1.theft_detected.* --from now"
    )]
    Add {
        /// 2 to 32 letters in lower case, digits and dashes; a letter first
        name: String,
        /// What it is given: users, sessions, or a subject as in users.v1.registered.*; by default users
        #[arg(long = "filter")]
        filters: Vec<String>,
        /// Where it begins: start (the whole history), snapshot (the state of every user, then what happens from
        /// now on), now, a Roster-Position, or a time as in 2026-01-31T12:00:00Z
        #[arg(long, default_value = "start")]
        from: String,
        /// Messages it may have at once without having acknowledged them. With 1 the order holds whatever
        /// happens; more is faster, and then the state with the highest revision counts
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        in_flight: u32,
        /// Where the credentials go; by default NAME.creds
        #[arg(long)]
        creds: Option<PathBuf>,
    },
    /// Make further credentials for a subscriber; those from before stay good
    Creds {
        /// As `list` shows it
        name: String,
        /// Where the credentials go; by default NAME.creds
        #[arg(long)]
        creds: Option<PathBuf>,
    },
    /// Show them all
    List,
    /// Show how far they are
    Lag {
        /// As `list` shows it; all when it is not given
        name: Option<String>,
    },
    /// Remove one: its credentials are good for nothing then. They would be good again for another of the same
    /// name
    Remove {
        /// As `list` shows it
        name: String,
    },
}

/// Arguments of `roster parked`.
#[derive(Debug, Args)]
pub struct ParkedArgs {
    #[command(subcommand)]
    pub action: ParkedAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What to do about parked mails.
#[derive(Debug, Subcommand)]
pub enum ParkedAction {
    /// Show them, oldest first; exit code 1 when there are any
    List,
    /// Put one back to be sent, or all of them
    Retry {
        /// As `list` shows it; all when it is not given
        id: Option<uuid::Uuid>,
    },
    /// Give one up for good
    Drop {
        /// As `list` shows it
        id: uuid::Uuid,
    },
}

/// Arguments of `roster provision`.
#[derive(Debug, Args)]
pub struct ProvisionArgs {
    /// Change nothing, and name everything that would be changed; exit code 1 when there is something
    #[arg(long)]
    pub check: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `roster lag`.
#[derive(Debug, Args)]
pub struct LagArgs {
    /// Age in seconds of the oldest event that one lacks, from which on it is late
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub max_s: u64,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Arguments of `roster verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Check every N-th user alone: takes an N-th of the memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: u64,
    /// Differences to show; further ones are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max: usize,
    /// Seconds to wait for views and feed to reach the end of the log
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub wait_s: u64,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Folder to write to
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Make a new key while everything runs: it is published at once, signs after the lead, and no token
    /// that was signed before is refused
    #[command(after_help = "Example: roster keys rotate --dir .roster/secrets")]
    Rotate(RotateArgs),
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
struct HealthArgs {
    /// Address of the private listener's /readyz
    #[arg(long, default_value = "http://127.0.0.1:9090/readyz")]
    url: String,
}

/// Runs a command to its end.
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Dev(args) => {
            with_settings(args.config.clone(), |settings| dev::run(settings, args))
        }
        Command::CommandApi(args) => with_settings(args.config, services::command_api),
        Command::QueryApi(args) => with_settings(args.config, services::query_api),
        Command::Projector(args) => with_settings(args.config, services::projector),
        Command::Reactor(args) => with_settings(args.config, services::reactor),
        Command::Parked(args) => {
            with_settings(args.config.config.clone(), |settings| parked::run(settings, args))
        }
        Command::Verify(args) => {
            with_settings(args.config.config.clone(), |settings| verify::run(settings, args))
        }
        Command::Subscribers(args) => {
            with_settings(args.config.config.clone(), |settings| subscribers::run(settings, args))
        }
        Command::Users(UsersCommand::Import(args)) => {
            with_settings(args.config.config.clone(), |settings| users::import(settings, args))
        }
        Command::Erase(args) => {
            with_settings(args.config.config.clone(), |settings| erase::run(settings, args))
        }
        Command::Lag(args) => {
            with_settings(args.config.config.clone(), |settings| lag::run(settings, args))
        }
        Command::Provision(args) => {
            with_settings(args.config.config.clone(), |settings| provision::run(settings, args))
        }
        Command::CheckConfig(args) => match Settings::load(args.config.as_deref()) {
            Ok(_) => {
                say("the configuration is valid");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error.to_string()),
        },
        Command::Init(args) => report(init::all(&args.dir)),
        Command::Openapi => report(openapi::document().map(|text| say(text.trim_end()))),
        Command::Asyncapi { dir } => report(asyncapi::write(&dir)),
        Command::Keys(KeysCommand::Rotate(args)) => report(keys::run(&args.dir, args.lead_s)),
        Command::Health(args) => match runtime() {
            Ok(runtime) => report(runtime.block_on(health::check(&args.url))),
            Err(error) => failed(&error.to_string()),
        },
    }
}

fn with_settings<F, Fut>(config: Option<PathBuf>, command: F) -> ExitCode
where
    F: FnOnce(Settings) -> Fut,
    Fut: Future<Output = anyhow::Result<ExitCode>>,
{
    let settings = match Settings::load(config.as_deref()) {
        Ok(settings) => settings,
        Err(error) => return failed(&error.to_string()),
    };
    if let Err(error) = telemetry::start(&settings.telemetry) {
        return failed(&error);
    }
    match runtime() {
        Ok(runtime) => match runtime.block_on(command(settings)) {
            Ok(code) => code,
            Err(error) => failed(&format!("{error:#}")),
        },
        Err(error) => failed(&error.to_string()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&format!("{error:#}")),
    }
}

/// What went wrong, on standard error.
#[expect(clippy::print_stderr, reason = "the command line speaks to its caller")]
pub fn failed(text: &str) -> ExitCode {
    eprintln!("roster: {text}");
    ExitCode::FAILURE
}

/// A line of the answer, on standard output.
#[expect(clippy::print_stdout, reason = "the command line speaks to its caller")]
pub fn say(text: &str) {
    println!("{text}");
}

/// A line about progress, on standard error.
#[expect(clippy::print_stderr, reason = "the command line speaks to its caller")]
pub fn progress(text: &str) {
    eprintln!("roster: {text}");
}
