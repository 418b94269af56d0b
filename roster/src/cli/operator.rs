//! The arguments of the operator's commands, which work against a system that runs.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nats_access::SubscriberName;

use super::ConfigArgs;
use crate::parked::{ParkedId, parked_id};
use crate::{audit, log, replay, security, subscribers, user};

/// What to do about users.
#[derive(Debug, Subcommand)]
pub enum UsersCommand {
    /// Make users of a file with one JSON object per line; start it again to go on where it was
    #[command(after_help = "Example: roster users import users.ndjson")]
    Import(ImportArgs),
    /// Delete accounts that registered themselves, whose address was never verified and that nobody has used since; for
    /// cron. A verification that comes first keeps the account
    #[command(
        after_help = "Examples:\n  roster users remove-unverified --older-than-days 30 --dry-run\n  \
                      roster users remove-unverified"
    )]
    RemoveUnverified(RemoveUnverifiedArgs),
    /// Show what log, views, sessions, claim and feed have of one user, and where they disagree; exit code 1 when
    /// they do
    #[command(after_help = "Examples:\n  roster user show ada@example.com\n  \
                      roster user show 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b --json")]
    Show(UserShowArgs),
}

/// Arguments of `roster users remove-unverified`.
#[derive(Debug, Args)]
pub struct RemoveUnverifiedArgs {
    /// Days without a login, a refresh or a change, from which on an account is removed; by default
    /// registration.unverified_kept_days, and nothing is done when that is 0
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=365))]
    pub older_than_days: Option<u64>,
    /// Change nothing, and name those that would be removed
    #[arg(long)]
    pub dry_run: bool,
    /// Accounts to remove in a second, at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rate: u32,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Arguments of `roster user show`.
#[derive(Debug, Args)]
pub struct UserShowArgs {
    /// The user's id, or the address that the user has now
    #[arg(value_name = "EMAIL|ID")]
    pub who: user::Whom,
    /// Answer in JSON alone, in one line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Arguments of `roster events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(subcommand)]
    pub action: EventsAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// How to look at the log.
#[derive(Debug, Subcommand)]
pub enum EventsAction {
    /// Follow events as they happen, one line each, without anything personal; Ctrl-C ends it
    #[command(after_help = "Examples:\n  roster events tail --type user.deleted\n  \
                      roster events tail --user 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b --no-follow --json")]
    Tail {
        /// Which events
        #[arg(long, value_enum, default_value_t = log::Stream::Users)]
        stream: log::Stream,
        /// Of this user alone
        #[arg(long, value_name = "ID")]
        user: Option<events::UserId>,
        /// Of this type alone, with its version or without; as log or feed name it
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// Begin with what happened at this position (17 or position:17), included; by default with what happens from
        /// now on
        #[arg(long, value_name = "POSITION", value_parser = replay::position)]
        from: Option<events::Position>,
        /// End at the end of the log; then it begins with the first event unless --from says otherwise
        #[arg(long)]
        no_follow: bool,
    },
    /// Show what stands at one position, with its envelope, as JSON. It shows what the log has of the person.
    /// Credentials and the seeds of sessions are never shown
    #[command(after_help = "Example: roster events show 4711")]
    Show {
        /// As `tail`, `verify` and the header Roster-Position name it
        position: u64,
        /// Where it stands
        #[arg(long, value_enum, default_value_t = log::Stream::Users)]
        stream: log::Stream,
    },
    /// Count the events of each type by day or by hour (UTC)
    #[command(after_help = "Example: roster events stats --by hour --stream sessions")]
    Stats {
        /// Which events; users and sessions when it is not given
        #[arg(long, value_enum)]
        stream: Option<log::Stream>,
        /// By what
        #[arg(long, value_enum, default_value_t = log::By::Day)]
        by: log::By,
    },
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
    pub(super) config: ConfigArgs,
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
    pub(super) config: ConfigArgs,
}

/// What to do about what is parked.
#[derive(Debug, Subcommand)]
pub enum ParkedAction {
    /// Show mails and events, oldest first; exit code 1 when there are any
    #[command(after_help = "Example: roster parked list --json")]
    List,
    /// Show one as JSON; of an event, what waits behind it
    #[command(after_help = "Example: roster parked show users-17")]
    Show {
        /// As `list` shows it
        #[arg(value_parser = parked_id)]
        id: ParkedId,
    },
    /// Put a mail back to be sent, have an event read again and what waits behind it, or all there is
    #[command(after_help = "Examples:\n  roster parked retry\n  roster parked retry users-17")]
    Retry {
        /// As `list` shows it; all when it is not given
        #[arg(value_parser = parked_id)]
        id: Option<ParkedId>,
    },
    /// Give one up for good: a mail, or an event, which is removed from the log so that what waits behind it goes on
    #[command(after_help = "Example: roster parked drop users-17")]
    Drop {
        /// As `list` shows it
        #[arg(value_parser = parked_id)]
        id: ParkedId,
    },
}

/// Arguments of `roster admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(subcommand)]
    pub action: AdminAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// What to do about administrators.
#[derive(Debug, Subcommand)]
pub enum AdminAction {
    /// Make another administrator, by the rules of the API. Without a password a link to choose one is mailed
    #[command(
        after_help = "Examples:\n  roster admin create ada@example.com --name 'Ada Lovelace'\n  \
                      roster admin create ada@example.com --password-stdin < password.txt\n  \
                      roster admin create ada@example.com --promote"
    )]
    Create {
        /// Their address
        #[arg(value_parser = user::address)]
        email: String,
        /// Name to show
        #[arg(long, conflicts_with = "promote")]
        name: Option<String>,
        /// Take the password from the first line of standard input; the address counts as verified then
        #[arg(long, conflicts_with = "promote")]
        password_stdin: bool,
        /// Give the role to the user who has the address, beside those that the user has
        #[arg(long)]
        promote: bool,
    },
}

/// Arguments of `roster replay`.
#[derive(Debug, Args)]
#[command(after_help = REPLAY_HELP)]
pub struct ReplayArgs {
    /// Begin with what happened at this Roster-Position (17 or position:17) or was told at this time
    /// (2026-01-31T12:00:00Z, also behind time:); both included
    #[arg(long, value_name = "POSITION|TIME")]
    pub from: Option<replay::Point>,
    /// End with what happened at this Roster-Position or was told at this time, both included; by default with what is
    /// told now
    #[arg(long, value_name = "POSITION|TIME")]
    pub to: Option<replay::Point>,
    /// Of this user alone; may be repeated
    #[arg(long = "user", value_name = "ID")]
    pub users: Vec<events::UserId>,
    /// Of this type alone: users, sessions, or one as users.v1.registered; may be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = replay::known_kind)]
    pub kinds: Vec<String>,
    /// Put them where this subscriber alone can read them: into the work queue of its name in USER_SNAPSHOTS
    #[arg(long, value_name = "NAME", conflicts_with = "file", value_parser = subscribers::name)]
    pub to_subscriber: Option<SubscriberName>,
    /// Write them to this file, which gets its name when it is whole; by default to standard output
    #[arg(long, value_name = "PATH")]
    pub file: Option<PathBuf>,
    /// Events in a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Only count them by type; nothing is written anywhere
    #[arg(long)]
    pub dry_run: bool,
    /// Say in JSON how many there were; on standard error when the events go to standard output
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// What `roster replay --help` ends with.
const REPLAY_HELP: &str = "\
Examples:
  roster replay --from 2026-01-31T12:00:00Z --to-subscriber billing --rate 200
  roster replay --user 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b --file ada.ndjson
  roster replay --type users.v1.registered --dry-run";

/// Arguments of `roster audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    pub action: AuditAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// How to look at what operators did.
#[derive(Debug, Subcommand)]
pub enum AuditAction {
    /// Show it, oldest first: one event when a command began and one when it ended. A beginning without an end is of
    /// a command that still runs or was killed
    #[command(
        after_help = "Example: roster audit list --since 2026-01-31T12:00:00Z --command subscribers-add"
    )]
    List {
        /// From this time on
        #[arg(long, value_name = "TIME", value_parser = audit::time)]
        since: Option<events::Timestamp>,
        /// Of this command alone
        #[arg(long, value_name = "COMMAND", value_parser = audit::names())]
        command: Option<String>,
    },
}

/// Arguments of `roster security`.
#[derive(Debug, Args)]
pub struct SecurityArgs {
    #[command(subcommand)]
    pub action: SecurityAction,
    /// Answer in JSON; with --follow one object a line
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// How to look at the security record.
#[derive(Debug, Subcommand)]
pub enum SecurityAction {
    /// Show it, oldest first. Lines hold addresses of clients: they are personal data
    #[command(
        after_help = "Examples:\n  roster security list --kind login --since 2026-01-31T12:00:00Z\n  \
                      roster security list --user 0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b\n  \
                      roster security list --follow --json"
    )]
    List {
        /// About this user or by this user
        #[arg(long, value_name = "ID")]
        user: Option<events::UserId>,
        /// Of this kind alone
        #[arg(long, value_name = "KIND", value_parser = security::kinds())]
        kind: Option<String>,
        /// From this time on
        #[arg(long, value_name = "TIME", value_parser = audit::time)]
        since: Option<events::Timestamp>,
        /// Go on with what happens from now on; Ctrl-C ends it
        #[arg(long)]
        follow: bool,
    },
}

/// Arguments of `roster provision`.
#[derive(Debug, Args)]
pub struct ProvisionArgs {
    /// Change nothing, and name everything that would be changed; exit code 1 when there is something
    #[arg(long)]
    pub check: bool,
    /// End every session and access token, since the log went back while no command-api ran: files were put back, or a
    /// stream was restored without `roster restore`
    #[arg(long, conflicts_with = "check")]
    pub new_lineage: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Arguments of `roster doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
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
    pub(super) config: ConfigArgs,
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
    pub(super) config: ConfigArgs,
}
