//! The secrets on this host: whether anybody else may read them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use service_kit::config::Settings;

use super::report::{Level, Report};
use crate::trust;

/// What group and others may do with a file.
const OTHERS: u32 = 0o077;
/// The same when the group may read.
const OTHERS_THAN_READERS: u32 = 0o037;
/// Folders within folders that are looked into.
const DEPTH_MAX: u32 = 4;

/// Looks at every file with a secret that the settings name.
pub fn look(settings: &Settings, report: &mut Report) {
    let (secrets, trust) = (&settings.secrets.dir, trust::dir(settings));
    let others = if settings.secrets.allow_group_read { OTHERS_THAN_READERS } else { OTHERS };
    let mut loose = Vec::new();
    let mut looked_at = 0;
    let places = [secrets.as_path(), trust.as_path(), settings.nats.credentials_file.as_path()];
    for place in places.into_iter().filter(|place| !place.as_os_str().is_empty()) {
        match visit(place, others, DEPTH_MAX, &mut loose) {
            Ok(files) => looked_at += files,
            // Only the operator has the keys of NATS.
            Err(error) if place == trust && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.unknown(
                "secrets",
                format!("{}: {error}", place.display()),
                "check secrets.dir, secrets.trust_dir and nats.credentials_file, and run this as their owner",
            ),
        }
    }
    loose.sort_unstable();
    loose.dedup();
    if loose.is_empty() {
        report.ok("secrets", format!("none of {looked_at} files is open to others"));
    }
    for (path, mode) in loose {
        let finding = format!("{path} has mode {mode:04o}: others on this host may use it");
        report.point("secrets", Level::Fault, finding, format!("chmod 600 {path}"));
    }
}

/// Looks at a file, or at every file of a folder; how many there are.
fn visit(path: &Path, others: u32, depth: u32, loose: &mut Vec<(String, u32)>) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        let mut files = 0;
        if depth > 0 {
            for entry in fs::read_dir(path)? {
                files += visit(&entry?.path(), others, depth - 1, loose)?;
            }
        }
        return Ok(files);
    }
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & others != 0 && is_secret(path) {
        loose.push((path.display().to_string(), mode));
    }
    Ok(1)
}

/// What the servers of NATS are given, certificates and public keys are not secret.
fn is_secret(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    !matches!(extension, Some("conf" | "crt" | "pub" | "jwt" | "toml"))
}
