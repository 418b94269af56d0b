//! `roster keys rotate` and `revoke`: another key for access tokens, while everything runs.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use service_kit::ambient;
use service_kit::keys::{replace_private, write_private};
use service_kit::signing_keys::{
    JWKS_MAX_AGE_S, KEYS_FILE, KeySchedule, LEAD_MIN_S, ScheduledKey, SigningKey, private_key_file,
};

use crate::cli::say;

/// Makes a key that signs after `lead_s` and says what becomes of the others.
pub fn run(dir: &Path, lead_s: u64) -> anyhow::Result<()> {
    if lead_s < LEAD_MIN_S {
        bail!("a lead of less than {LEAD_MIN_S} s: a service might meet a token before its key");
    }
    if !dir.join("operator").join(KEYS_FILE).exists() {
        bail!("{} holds no keys; `roster init` makes them", dir.display());
    }
    let schedule = rotate(dir, lead_s)?;
    hand_out(dir)?;
    for ScheduledKey { key, sign_from, retire_at } in &schedule.keys {
        let until = retire_at.map_or_else(String::new, |at| format!(", taken until {at}"));
        say(&format!("{} signs from {sign_from}{until}", key.kid));
    }
    Ok(())
}

/// Takes a key away at once. Who holds a token that it has signed is asked for a refresh; who stole it has nothing.
pub fn revoke(dir: &Path, kid: &str) -> anyhow::Result<()> {
    let path = dir.join("operator").join(KEYS_FILE);
    let mut schedule = KeySchedule::read(&path)?;
    match schedule.revoke(kid, ambient::now()) {
        None => {
            let kids: Vec<&str> = schedule.keys.iter().map(|key| key.key.kid.as_str()).collect();
            bail!("there is no key {kid}; there are {}", kids.join(", "));
        }
        Some(true) => replace_private(&path, &serde_json::to_vec_pretty(&schedule)?)?,
        // The new one is in the file before the revoked one is out of it, as it replaces the file once.
        Some(false) => schedule = add(dir, schedule, 0)?,
    }
    hand_out(dir)?;
    let signing = schedule.signing(ambient::now()).context("no key signs")?;
    say(&format!(
        "{kid} is revoked, and {} signs. Bring {dir}/command-api and {dir}/query-api to their services now: each takes them \
         within seconds. Other services refuse the key when they fetch the set again, at the first token of another key and \
         after {JWKS_MAX_AGE_S} s at the latest",
        signing.key.kid,
        dir = dir.display()
    ));
    Ok(())
}

/// Adds a key to the operator's folder.
pub fn rotate(dir: &Path, lead_s: u64) -> anyhow::Result<KeySchedule> {
    let path = dir.join("operator").join(KEYS_FILE);
    let schedule = if path.exists() { KeySchedule::read(&path)? } else { KeySchedule::default() };
    add(dir, schedule, lead_s)
}

/// Puts one new key in the place of all others: no token that was signed before is good any more.
pub fn renew(dir: &Path) -> anyhow::Result<()> {
    add(dir, KeySchedule::default(), 0)?;
    hand_out(dir)
}

/// Adds a new key to a schedule, and puts that into the operator's folder.
fn add(dir: &Path, mut schedule: KeySchedule, lead_s: u64) -> anyhow::Result<KeySchedule> {
    let operator = dir.join("operator");
    let path = operator.join(KEYS_FILE);
    let pem = SigningKey::generate_pem()?;
    let new = SigningKey::parse(&pem, &operator.join("a new key"))?;
    write_private(&operator.join(private_key_file(&new.id)), pem.as_bytes())?;
    schedule.rotate(new.public(), ambient::now(), lead_s);
    replace_private(&path, &serde_json::to_vec_pretty(&schedule)?)?;
    Ok(schedule)
}

/// Brings every service what it needs of the operator's folder: private keys before the schedule that
/// names them, and away with those it does not name any more.
pub fn hand_out(dir: &Path) -> anyhow::Result<()> {
    let operator = dir.join("operator");
    let schedule = KeySchedule::read(&operator.join(KEYS_FILE))?;
    let named: Vec<String> =
        schedule.keys.iter().map(|scheduled| private_key_file(&scheduled.key.kid)).collect();
    let command = dir.join("command-api");
    for file in &named {
        let pem = fs::read(operator.join(file)).with_context(|| format!("cannot read {file}"))?;
        write_private(&command.join(file), &pem)?;
    }
    let text = serde_json::to_vec_pretty(&schedule)?;
    for folder in ["command-api", "query-api"] {
        replace_private(&dir.join(folder).join(KEYS_FILE), &text)?;
    }
    for folder in [&operator, &command] {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("signing-") && name.ends_with(".pem") && !named.contains(&name) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}
