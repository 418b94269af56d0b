//! The keys of NATS, as the operator's commands find them.

use std::path::PathBuf;

use anyhow::{Context, bail};
use nats_access::Trust;
use service_kit::config::Settings;

/// The folder that they lie in: `secrets.trust_dir`, or where `roster init` puts them.
pub fn dir(settings: &Settings) -> PathBuf {
    let secrets = &settings.secrets;
    match secrets.trust_dir.as_os_str().is_empty() {
        true => secrets.dir.join("nats"),
        false => secrets.trust_dir.clone(),
    }
}

/// Loads them. They are never made here: credentials that no server knows would be of no use.
pub fn open(settings: &Settings) -> anyhow::Result<Trust> {
    let dir = dir(settings);
    if !dir.join("seeds").is_dir() {
        bail!("{} does not hold the keys of NATS: set secrets.trust_dir", dir.display());
    }
    Trust::load_or_create(&dir).context("cannot use the keys of NATS")
}
