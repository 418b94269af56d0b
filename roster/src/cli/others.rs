//! The arguments of the commands about other services: those that read the feed, and those beside Roster's own.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use nats_access::SubscriberName;

use super::ConfigArgs;
use crate::{beside, subscribers};

/// Arguments of `roster subscribers`.
#[derive(Debug, Args)]
pub struct SubscribersArgs {
    #[command(subcommand)]
    pub action: SubscribersAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
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
        #[arg(value_parser = subscribers::name)]
        name: SubscriberName,
        /// What it is given: users, sessions, or a subject as in users.v1.registered.*; by default users
        #[arg(long = "filter", value_parser = subscribers::filter)]
        filters: Vec<String>,
        /// Where it begins: start (the whole history), snapshot (the state of every user, then what happens from
        /// now on), now, with what happened at a Roster-Position (17 or position:17), or with what was told at a time
        /// (2026-01-31T12:00:00Z, also behind time:)
        #[arg(long, default_value = "start")]
        from: subscribers::From,
        /// Messages it may have at once without having acknowledged them. With 1 the order holds whatever
        /// happens; more is faster, and then the state with the highest revision counts
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        in_flight: u32,
        /// Seconds after which a message comes again that it took and did not acknowledge: so long it waits for
        /// its next message when it was killed. It says that it still works before a third of them is over
        #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
        ack_wait_s: u64,
        /// Where the credentials go; by default NAME.creds
        #[arg(long)]
        creds: Option<PathBuf>,
    },
    /// Make new credentials for a subscriber; those from before are revoked
    #[command(after_help = "Example: roster subscribers creds billing --creds billing-2.creds")]
    Creds {
        /// As `list` shows it
        #[arg(value_parser = subscribers::name)]
        name: SubscriberName,
        /// Where the credentials go; by default NAME.creds
        #[arg(long)]
        creds: Option<PathBuf>,
    },
    /// Show them all
    #[command(after_help = "Example: roster subscribers list --json")]
    List,
    /// Show how far they are
    #[command(
        after_help = "Examples:\n  roster subscribers lag\n  roster subscribers lag billing --json"
    )]
    Lag {
        /// As `list` shows it; all when it is not given
        name: Option<String>,
    },
    /// Remove one, and revoke its credentials
    #[command(after_help = "Example: roster subscribers remove billing")]
    Remove {
        /// As `list` shows it
        #[arg(value_parser = subscribers::name)]
        name: SubscriberName,
    },
}

/// Arguments of `roster services`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    #[command(subcommand)]
    pub action: ServicesAction,
    /// Answer in JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub(super) config: ConfigArgs,
}

/// What to do about further services.
#[derive(Debug, Subcommand)]
pub enum ServicesAction {
    /// Make NATS credentials for a service, with the rights that its names give it: its own log, its own feed, its one
    /// consumer on the feed of users, and what ends access. Again it keeps the user in the file and brings the rights to
    /// what this version gives; a file with anything else in it is left alone
    #[command(
        after_help = "Examples:\n  roster services creds product --out product-service.creds\n  \
                      roster services creds city --plural cities --out city-service.creds\n  \
                      roster services creds shop --verifier --out shop-verifier.creds"
    )]
    Creds {
        /// Its singular: 2 to 24 letters in lower case and digits; a letter first
        #[arg(value_parser = beside::parse_word)]
        name: String,
        /// Its plural; by default the singular with an s
        #[arg(long, value_name = "NAMES", value_parser = beside::parse_word)]
        plural: Option<String>,
        /// For a service that checks access tokens and does nothing else on NATS: it hears what ends access
        #[arg(long)]
        verifier: bool,
        /// Where the credentials go
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Take the access of one user of NATS away for good, by its public key: that of a service, a verifier, a subscriber or
    /// one of Roster's own. The servers know it after `roster init` has written their auth.conf anew and they have read it
    #[command(
        after_help = "Example: roster services revoke UBKJ2V3ZGFJQXQ3T6PZ7M6V5D2N4R7XW3C5H2Y6L4Q7K3J5B2A4F6G8H"
    )]
    Revoke {
        /// As `services creds` has said it; `roster audit list --command services-creds` shows it again
        #[arg(value_name = "USER", value_parser = nats_access::user_key)]
        user: String,
    },
}
