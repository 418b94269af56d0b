//! The arguments of what makes a system: on this machine, or the keys of one elsewhere.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use events::ServiceNames;

use crate::beside;

/// What `roster dev --help` ends with.
pub(super) const DEV_HELP: &str = "\
Standard output has a line NAME=http://ADDRESS private=http://ADDRESS for each further service, and then one that begins
with ready.

Examples:
  roster dev
  roster dev --listen 127.0.0.1:0 --data-dir /tmp/roster --with examples/product-service";

/// Arguments of `roster dev`.
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where clients connect; port 0 takes a free one. By default http.listen, which is 127.0.0.1:8080
    #[arg(long)]
    pub listen: Option<SocketAddr>,
    /// Folder with everything that is kept from one start to the next
    #[arg(long, default_value = ".roster")]
    pub data_dir: PathBuf,
    /// Use this NATS instead of starting one
    #[arg(long)]
    pub nats_url: Option<String>,
    /// Use this MongoDB instead of starting one
    #[arg(long)]
    pub mongodb_url: Option<String>,
    /// Run a further service too: a folder with a service.toml, as in examples/product-service; may be repeated
    #[arg(long = "with", value_name = "DIR")]
    pub with: Vec<PathBuf>,
    /// Switch rate limits off, for load tests
    #[arg(long)]
    pub no_throttle: bool,
    /// Settings in TOML; over the defaults and below the environment
    #[arg(long, env = "ROSTER_CONFIG")]
    pub config: Option<PathBuf>,
}

/// Arguments of `roster init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to write to
    #[arg(long)]
    pub(super) dir: PathBuf,
    /// Credentials and a key for a further service too, by its singular and plural as in product:products; may be
    /// repeated
    #[arg(long = "service", value_name = "NAME[:NAMES]", value_parser = beside::parse_names)]
    pub(super) services: Vec<ServiceNames>,
}
