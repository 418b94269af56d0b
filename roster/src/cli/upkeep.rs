//! The arguments of what is done to a system as a whole: backup, restore, rebuild.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::ConfigArgs;

/// Arguments of `roster backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The folder of the backup
    pub dir: PathBuf,
    /// Only bring up to date what ended since the backup: quick, to be run every few minutes
    #[arg(long, conflicts_with = "check")]
    pub ends: bool,
    /// Only compare the files of the backup with their checksums; needs no system
    #[arg(long)]
    pub check: bool,
    /// Encrypt it to the recipient in this file, which `roster keys backup` makes, and sign it
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub recipient: Option<PathBuf>,
    /// Do not encrypt it, also in production
    #[arg(long, conflicts_with = "recipient")]
    pub plain: bool,
    /// With --check: make sure that it was made by the recipient that belongs to the identity in this file
    #[arg(long, value_name = "FILE", requires = "check")]
    pub identity: Option<PathBuf>,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Arguments of `roster prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// What to take out
    #[arg(value_enum)]
    pub what: PruneWhat,
    /// Only say how many there are
    #[arg(long)]
    pub dry_run: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// What `roster prune` takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PruneWhat {
    /// Consumers of the log that Roster did not make and that stay
    Consumers,
    /// Messages that no service of Roster's wrote
    Messages,
}

/// Arguments of `roster rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Which views
    #[arg(value_enum)]
    pub what: RebuildWhat,
    /// Change nothing, and show which generations there are
    #[arg(long, conflicts_with_all = ["rollback", "discard"])]
    pub status: bool,
    /// Switch back to the generation that was live before
    #[arg(long, conflicts_with = "discard")]
    pub rollback: bool,
    /// Give up what stands beside the live generation, whether it is new or old
    #[arg(long)]
    pub discard: bool,
    /// Before the switch compare every N-th user alone with the log: takes an N-th of the memory
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample: u64,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Arguments of `roster restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The folder of the backup
    pub dir: PathBuf,
    /// Only write the keys of the backup into this folder, which must not exist yet, as `roster init` would
    #[arg(long, value_name = "FOLDER")]
    pub keys: Option<PathBuf>,
    /// Decrypt it with the identity in this file, and make sure that its own recipient made it
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Take a backup that is not encrypted, also in production
    #[arg(long, conflicts_with = "identity")]
    pub plain: bool,
    /// Let sessions live on that were alive in the backup, but for those that are known to have ended since
    #[arg(long)]
    pub keep_sessions: bool,
    /// Answer in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// Which views `roster rebuild` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RebuildWhat {
    /// Users and what happened to them
    Users,
    /// Sessions
    Sessions,
    /// Both
    All,
}
