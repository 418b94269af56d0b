//! The keys in a backup: the application's and those of records, without which no credential and no claim can be read,
//! and those that the users of NATS are signed with, without which no credentials file of a subscriber is good any more.
//!
//! The keys of access tokens are not in it. They are made anew at a restore: a token says which revocation it knows
//! of by a position, and behind a restore positions are given a second time. So no token of before may live.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nats_access::{ISSUED_FILE, REVOKED_FILE};
use service_kit::config::Settings;
use service_kit::key_ring::Ring;
use service_kit::keys::{APPLICATION_KEY_FILE, LOOKUP_KEYS_FILE, write_private};

use super::folder::{Backup, FileCopy, Unfinished, key_check, private_dir, within};
use crate::{init, keys, trust};

const KEYS: &str = "keys";
const OPERATOR: &str = "operator";

/// Copies the keys of the operator's folder.
pub fn copy(settings: &Settings, into: &Unfinished) -> anyhow::Result<Vec<FileCopy>> {
    let secrets = &settings.secrets.dir;
    let copy = |name: &str| copy_file(&secrets.join(name), &format!("{KEYS}/{name}"), into);
    let mut copies = vec![copy(APPLICATION_KEY_FILE)?];
    // A system of an older version, whose key was never rotated, has none: a restore makes it of the application key.
    if secrets.join(LOOKUP_KEYS_FILE).exists() {
        copies.push(copy(LOOKUP_KEYS_FILE)?);
    }
    let trust = trust::dir(settings);
    // A system whose NATS is somebody else's has none.
    let Ok(seeds) = fs::read_dir(trust.join("seeds")) else { return Ok(copies) };
    for seed in seeds {
        let seed = seed?;
        let name = seed.file_name().to_string_lossy().into_owned();
        copies.push(copy_file(&seed.path(), &format!("{KEYS}/nats/seeds/{name}"), into)?);
    }
    // Without them a restore would let those in again whose credentials were revoked, and nobody would know later whose
    // they are.
    for name in [REVOKED_FILE, ISSUED_FILE] {
        let list = trust.join(name);
        if list.exists() {
            copies.push(copy_file(&list, &format!("{KEYS}/nats/{name}"), into)?);
        }
    }
    Ok(copies)
}

fn copy_file(from: &Path, to: &str, into: &Unfinished) -> anyhow::Result<FileCopy> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut file = into.file(to)?;
    file.add(&content)?;
    file.end()
}

/// Writes the keys of a backup into a folder that is empty, and makes what hangs from them as `roster init` does.
pub fn restore(backup: &Backup, root: &Path) -> anyhow::Result<()> {
    if fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: name a folder that does not exist yet", root.display());
    }
    // Whole or not at all: half of it would be completed with other keys.
    let mut name = root.as_os_str().to_owned();
    name.push(".partial");
    let partial = PathBuf::from(name);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    for file in &backup.manifest.files {
        let Ok(path) = within(&file.path)?.strip_prefix(KEYS) else { continue };
        let to = partial.join(OPERATOR).join(path);
        private_dir(to.parent().unwrap_or(&partial))?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut backup.reader(file)?, &mut content)?;
        write_private(&to, &content)?;
    }
    init::all(&partial, &[])?;
    fs::rename(&partial, root).with_context(|| format!("cannot make {}", root.display()))
}

/// The folder of `roster init` that the settings lie in; its keys must be those of the backup.
pub fn root(settings: &Settings, backup: &Backup) -> anyhow::Result<PathBuf> {
    let dir = &settings.secrets.dir;
    let ring = Ring::read(&dir.join(APPLICATION_KEY_FILE)).with_context(|| {
        "the keys of the backup must be in place: write them with `roster restore DIR --keys FOLDER` and set \
         secrets.dir to its folder operator"
    })?;
    if key_check(ring.oldest(), backup.manifest.id) != backup.manifest.key_check {
        bail!(
            "the key in {} is not the one of the backup: write its keys with `roster restore DIR --keys FOLDER` and \
             set secrets.dir to the folder operator in it",
            dir.display()
        );
    }
    let root = dir.parent().filter(|root| root.join("command-api").is_dir());
    match root {
        Some(root) if dir.ends_with(OPERATOR) => Ok(root.to_owned()),
        _ => bail!(
            "{} is not the folder operator of what `roster init` made: the keys of access tokens are made anew, and \
             have to reach the services",
            dir.display()
        ),
    }
}

/// Makes the keys of access tokens anew, so that no token of before is good any more.
pub fn renew(root: &Path) -> anyhow::Result<()> {
    keys::renew(root)
}
