//! `roster keys rotate-application`: another application key, while everything runs (ADR 30).
//!
//! The new key opens at once and seals after the lead, as a new key of access tokens signs after it: by then every service
//! has it. `--finish` takes the old one away, when nothing needs it any more. The operator's file is the last to change, so
//! that whatever is interrupted can be done again with both keys.

use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use command_api::Resealer;
use events::{Position, Timestamp, UserId, subjects};
use serde_json::json;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::key_ring::{RELOAD_EVERY, Ring};
use service_kit::keys::{
    APPLICATION_KEY_FILE, GATE_KEY_FILE, KeyError, LINK_KEY_FILE, MAIL_KEY_FILE, SecretKey,
};
use service_kit::links::LINK_KEY_PURPOSE;
use service_kit::lookup_keys::LookupKeys;
use service_kit::mail_jobs::MAIL_KEY_PURPOSE;
use service_kit::nats;
use service_kit::signing_keys::LEAD_MIN_S;
use tokio::time::{Instant, sleep};

use crate::audit::{self, Ended, Operation};
use crate::cli::{failed, progress, say};
use crate::reading::Reading;

mod dependents;

/// How much longer than until its lead the old key may have sealed something: clocks that differ, and a write under way.
const SETTLED_AFTER_S: u64 = 5;
/// How long the eraser may take to delete the credentials that were replaced.
const ERASURE_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks whether it has.
const ERASURE_PAUSE: Duration = Duration::from_millis(500);

/// The files that are made of the application key, each with what is in it.
fn files(ring: &Ring) -> [(&'static str, &'static str, Ring); 3] {
    [
        ("command-api", APPLICATION_KEY_FILE, ring.clone()),
        ("reactor", LINK_KEY_FILE, ring.derive(LINK_KEY_PURPOSE)),
        ("reactor", MAIL_KEY_FILE, ring.derive(MAIL_KEY_PURPOSE)),
    ]
}

/// Brings every service what it needs of the application key. The keys that name records come first: they are made of the
/// first application key, and never change.
pub fn hand_out(dir: &Path, ring: &Ring) -> anyhow::Result<()> {
    let operator = dir.join("operator");
    let lookup = LookupKeys::read(&operator)?;
    lookup.write_new(&operator)?;
    lookup.write_new(&dir.join("command-api"))?;
    lookup.mail_gate.write_new(&dir.join("reactor").join(GATE_KEY_FILE))?;
    for (folder, file, ring) in files(ring) {
        ring.write(&dir.join(folder).join(file))?;
    }
    Ok(())
}

/// Whether every service's file is as it must be.
pub fn is_handed_out(dir: &Path, ring: &Ring) -> bool {
    files(ring).iter().all(|(folder, file, ring)| {
        Ring::read(&dir.join(folder).join(file)).is_ok_and(|read| *read.text() == *ring.text())
    })
}

/// Adds a key that opens at once and seals after `lead_s`.
pub fn rotate(dir: &Path, lead_s: u64) -> anyhow::Result<()> {
    if lead_s < LEAD_MIN_S {
        bail!(
            "a lead of less than {LEAD_MIN_S} s: a service might meet what a key sealed that it does not have"
        );
    }
    let path = dir.join("operator").join(APPLICATION_KEY_FILE);
    let ring = Ring::read(&path)?;
    let seals_from = ambient::now().plus_seconds(lead_s);
    let is_under_way = ring.is_rotating();
    let ring = match (is_under_way, is_handed_out(dir, &ring)) {
        (true, true) => ring,
        // Interrupted: a service does not have the key yet, so it seals later than was said.
        (true, false) => ring.sealing_from(seals_from),
        (false, _) => {
            // Before anything changes: afterwards they could not be made any more.
            LookupKeys::read(&dir.join("operator"))?.write_new(&dir.join("operator"))?;
            ring.with(SecretKey::generate()?, seals_from)
        }
    };
    ring.write(&path)?;
    hand_out(dir, &ring)?;
    let from = shown(&ring);
    if is_under_way {
        say(&format!(
            "a rotation is under way already: its new key seals from {from}. End it with --finish"
        ));
        return Ok(());
    }
    say(&format!(
        "the new key seals from {from}, and opens as soon as a service has it. Bring {dir}/command-api and {dir}/reactor to \
         their services before that: each takes them within seconds. Make a new backup, and later take the old key away: \
         roster keys rotate-application --dir {dir} --finish --config FILE",
        dir = dir.display()
    ));
    Ok(())
}

/// Takes the old key away, when nothing needs it; with `now`, although sessions and links need it.
///
/// `brought` says that every service has the new key, whatever the log looks like.
pub async fn finish(
    settings: Settings,
    dir: &Path,
    now: bool,
    brought: bool,
) -> anyhow::Result<ExitCode> {
    let path = dir.join("operator").join(APPLICATION_KEY_FILE);
    let ring = Ring::read(&path)?;
    let (true, Some(seals_from)) = (ring.is_rotating(), ring.seals_from()) else {
        hand_out(dir, &ring)?;
        say("no rotation of the application key is under way");
        return Ok(ExitCode::SUCCESS);
    };
    let settled = seals_from.plus_seconds(SETTLED_AFTER_S);
    if ambient::now() < settled {
        return Ok(failed(&format!("the new key seals from {seals_from}: finish after {settled}")));
    }
    let client = nats::connect(&settings.nats, "operator").await?;
    let finishing = async {
        let log = |stream| EventLog::new(client.clone(), stream, Limits::of(&settings));
        let finishing = Finishing { settings: &settings, log: &log, ring: &ring, settled };
        finishing.run(dir, now, brought).await
    };
    let arguments = json!({ "now": now, "brought": brought });
    audit::over(&settings, &client, Operation::KeysFinish, arguments, finishing).await
}

struct Finishing<'a, F> {
    settings: &'a Settings,
    log: &'a F,
    /// Both keys.
    ring: &'a Ring,
    /// What was sealed from then on was sealed with the new key.
    settled: Timestamp,
}

impl<F: Fn(&'static str) -> EventLog> Finishing<'_, F> {
    async fn run(&self, dir: &Path, now: bool, brought: bool) -> anyhow::Result<Ended> {
        // Before anything is changed: a service without the new key opens nothing that is sealed with it.
        let late = if brought { 0 } else { self.late().await? };
        if late > 0 {
            let why = format!(
                "the old key stays: it has sealed {late} credentials since {}, so a command-api does not have the new one. \
                 Bring {}/command-api to every one, and run it again with --brought",
                self.settled,
                dir.display()
            );
            return Ok(Ended {
                code: failed(&why),
                result: json!({ "finished": false, "late": late }),
            });
        }
        let dependents = dependents::find(self).await?;
        dependents.lines().iter().for_each(|line| progress(line));
        if dependents.blocks(now) {
            let result = json!({ "finished": false, "dependents": dependents });
            return Ok(Ended { code: failed(dependents.refusal(now)), result });
        }
        let resealed = self.reseal().await?;
        progress(&format!("{resealed} credentials were sealed with the new key"));
        // A service that was brought the new key late has it with this, and what it sealed meanwhile is found.
        let finished = self.ring.clone().finished();
        hand_out(dir, &finished)?;
        sleep(RELOAD_EVERY * 2).await;
        self.reseal().await?;
        finished.write(&dir.join("operator").join(APPLICATION_KEY_FILE))?;
        say(&format!(
            "the old key is gone, and opens nothing that is stored. Bring {dir}/command-api and {dir}/reactor to their \
             services, and make a new backup: those from before hold the old key with what it opens",
            dir = dir.display()
        ));
        let result = json!({ "finished": true, "resealed": resealed, "dependents": dependents });
        Ok(Ended { code: ExitCode::SUCCESS, result })
    }

    fn resealer(&self) -> anyhow::Result<(EventLog, Resealer)> {
        let users = (self.log)(subjects::USERS_STREAM);
        let ring = self.ring.clone().sealing_from(ambient::now());
        let resealer = Resealer::new(users.clone(), &ring.into()).map_err(anyhow::Error::msg)?;
        Ok((users, resealer))
    }

    /// How many passwords were sealed with the old key when the new one was to seal.
    async fn late(&self) -> anyhow::Result<usize> {
        let (users, resealer) = self.resealer()?;
        let former = former(&users, &resealer).await?;
        // One that is not the last any more was replaced by a service that has the new key.
        let late = former.values().filter(|it| it.is_last && it.stored_at >= self.settled);
        Ok(late.count())
    }

    /// Seals every credential with the new key, and waits until those that were replaced are erased.
    async fn reseal(&self) -> anyhow::Result<u64> {
        let (users, resealer) = self.resealer()?;
        let mut resealed = 0;
        let deadline = Instant::now() + ERASURE_MAX;
        loop {
            let former = former(&users, &resealer).await?;
            if former.is_empty() {
                return Ok(resealed);
            }
            let mut has_written = false;
            for user in former.keys() {
                let done = resealer.reseal(*user).await;
                let done =
                    done.map_err(|why| anyhow::anyhow!("the credential of {user}: {why}"))?;
                resealed += u64::from(done);
                has_written |= done;
            }
            if !has_written && Instant::now() >= deadline {
                bail!(
                    "of {} users replaced credentials that the old key opens are not erased yet: does a reactor run? Run it \
                     again",
                    former.len()
                );
            }
            sleep(ERASURE_PAUSE).await;
        }
    }
}

/// A credential that is sealed with the old key.
struct Former {
    stored_at: Timestamp,
    /// Whether it is the one of now.
    is_last: bool,
}

/// Whose credentials, replaced ones among them, are sealed with the old key: of each user the last.
async fn former(users: &EventLog, resealer: &Resealer) -> anyhow::Result<HashMap<UserId, Former>> {
    let mut former = HashMap::new();
    let end = users.end().await?;
    let mut reading = Reading::new(users, &[subjects::CREDENTIALS_FILTER], Position(0), end);
    while let Some(message) = reading.next().await? {
        let user = message.subject.rsplit('.').next().and_then(|user| user.parse().ok());
        let Some(user) = user.filter(|_| !message.is_foreign) else { continue };
        match resealer.is_former(user, &message.payload) {
            Ok(true) => {
                former.insert(user, Former { stored_at: message.stored_at, is_last: true });
            }
            Ok(false) => {
                if let Some(replaced) = former.get_mut(&user) {
                    replaced.is_last = false;
                }
            }
            Err(why) => progress(&format!(
                "the credential at position {} is passed over: {why}",
                message.position
            )),
        }
    }
    Ok(former)
}

/// From when on the newest key seals.
pub fn shown(ring: &Ring) -> String {
    ring.seals_from().map_or_else(|| "the beginning".to_owned(), |from| from.to_string())
}

/// The keys of a new system, and what is made of those that are there.
pub fn make(dir: &Path) -> Result<Ring, KeyError> {
    let path = dir.join("operator").join(APPLICATION_KEY_FILE);
    SecretKey::generate()?.write_new(&path)?;
    Ring::read(&path)
}

#[cfg(test)]
mod tests;
