//! What ended behind the backup ends again, through the same guarded writes as any command.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context;
use command_api::{Lost, NewAdministrator, RestoreReconciler};
use events::{
    LinkPurpose, LinkRecord, Position, SessionEvent, SessionId, Timestamp, UserId, subjects,
};
use indicatif::{ProgressBar, ProgressStyle};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::EventLog;

use crate::backup::revocation_delta::{RevocationDelta, UserRevocations};
use crate::provision::Administrator;
use crate::reading::Reading;

/// Sessions that end in one batch: two messages each.
const SESSIONS_AT_ONCE: usize = 400;
/// The records of links.
const LINKS_FILTER: &str = "lk.*.*";

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// Users who were deleted again.
    pub deleted: u64,
    /// Users from whom something else was taken.
    pub users: u64,
    /// Users whom the backup does not know.
    pub unknown: u64,
    /// Users whose address changed, which cannot be done again.
    pub addresses: Vec<UserId>,
    /// Sessions that were ended.
    pub sessions: u64,
    /// Links in mails that were voided.
    pub links: u64,
}

/// Applies all of it.
pub async fn all(
    settings: &Settings,
    restorer: &RestoreReconciler,
    log: &impl Fn(&str) -> EventLog,
    ends: &RevocationDelta,
    keep_sessions: bool,
) -> anyhow::Result<Applied> {
    if let Some(Administrator { email, password }) = Administrator::from_env()? {
        let new = NewAdministrator { email: &email, full_name: None, password: Some(&password) };
        let made = restorer.create_administrator(new).await.map_err(anyhow::Error::msg);
        made.context("cannot create the administrator")?;
    }
    let mut applied = Applied::default();
    users(restorer, ends, &mut applied).await?;
    let those = keep_sessions.then_some(&ends.sessions);
    applied.sessions = sessions(&log(subjects::SESSIONS_STREAM), restorer, those).await?;
    let mail = &settings.mail;
    let lives =
        [mail.reset_link_s, mail.set_password_link_s, mail.verify_link_s, mail.email_link_s];
    let since = ambient::now().minus_seconds(lives.into_iter().max().unwrap_or_default());
    applied.links = links(&log(subjects::USERS_STREAM), restorer, since).await?;
    Ok(applied)
}

async fn users(
    restorer: &RestoreReconciler,
    ends: &RevocationDelta,
    applied: &mut Applied,
) -> anyhow::Result<()> {
    let bar = bar(ends.users.len() as u64, "users whose access ended")?;
    for (&user, ended) in &ends.users {
        let UserRevocations { deleted, disabled, roles, access, password, credential, address } =
            ended;
        let lost = Lost {
            deleted: *deleted,
            disabled: *disabled,
            roles: roles.as_deref(),
            credential: credential.as_deref().filter(|_| *password).map(str::as_bytes),
            access: *access,
        };
        bar.inc(1);
        if !ended.takes() && !address {
            continue;
        }
        let is_known = restorer.take(user, lost).await.map_err(anyhow::Error::msg)?;
        match (is_known, *deleted) {
            (false, _) => applied.unknown += 1,
            (true, true) => applied.deleted += 1,
            (true, false) => applied.users += 1,
        }
        if is_known && *address {
            applied.addresses.push(user);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Ends sessions that are alive: all of them, or those. The log is read twice, so that what is in memory is a
/// position for each session and not the sessions.
async fn sessions(
    log: &EventLog,
    restorer: &RestoreReconciler,
    those: Option<&BTreeSet<SessionId>>,
) -> anyhow::Result<u64> {
    let (end, now) = (log.end().await?, ambient::now());
    let bar = bar(end.0 * 2, "sessions")?;
    let mut alive: HashMap<SessionId, Position> = HashMap::new();
    let read = || Reading::new(log, &[subjects::SESSION_EVENTS_FILTER], Position(0), end);
    let mut reading = read();
    while let Some(message) = reading.next().await? {
        bar.set_position(message.position.0);
        let session = SessionEvent::from_json(&message.payload)?.after;
        let lives = session.ended.is_none() && session.expires_at > now && session.ends_at > now;
        if lives && those.is_none_or(|those| those.contains(&session.id)) {
            alive.insert(session.id, message.position);
        } else {
            alive.remove(&session.id);
        }
    }
    let mut together = Vec::with_capacity(SESSIONS_AT_ONCE);
    let mut reading = read();
    while let Some(message) = reading.next().await? {
        bar.set_position(end.0 + message.position.0);
        let session = SessionEvent::from_json(&message.payload)?.after;
        if alive.get(&session.id) != Some(&message.position) {
            continue;
        }
        together.push((session, message.guard()));
        if together.len() == SESSIONS_AT_ONCE {
            let ended = restorer.end_sessions(std::mem::take(&mut together)).await;
            ended.map_err(anyhow::Error::msg)?;
        }
    }
    restorer.end_sessions(together).await.map_err(anyhow::Error::msg)?;
    bar.finish_and_clear();
    Ok(alive.len() as u64)
}

/// Voids links that are out: one that was used behind the backup would be good again.
async fn links(
    log: &EventLog,
    restorer: &RestoreReconciler,
    since: Timestamp,
) -> anyhow::Result<u64> {
    let end = log.end().await?;
    let mut out: BTreeSet<(&str, UserId)> = BTreeSet::new();
    let mut reading = Reading::new(log, &[LINKS_FILTER], Position(0), end);
    while let Some(message) = reading.next().await? {
        let mut parts = message.subject.split('.').skip(1);
        let (purpose, user) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Some(purpose) = purpose_of(purpose) else { continue };
        let record: LinkRecord = serde_json::from_slice(&message.payload)?;
        let user = user.parse()?;
        if record.serial.is_some() && record.ordered_at >= since {
            out.insert((purpose.as_str(), user));
        } else {
            out.remove(&(purpose.as_str(), user));
        }
    }
    let mut voided = 0;
    for (purpose, user) in out {
        let Some(purpose) = purpose_of(purpose) else { continue };
        let done = restorer.void_link(purpose, user).await.map_err(anyhow::Error::msg)?;
        voided += u64::from(done);
    }
    Ok(voided)
}

fn purpose_of(name: &str) -> Option<LinkPurpose> {
    LinkPurpose::ALL.into_iter().find(|purpose| purpose.as_str() == name)
}

fn bar(length: u64, what: &str) -> anyhow::Result<ProgressBar> {
    let style = "{wide_bar} {percent}%  {per_sec}  {eta} left  {msg}";
    let bar = ProgressBar::new(length).with_style(ProgressStyle::with_template(style)?);
    bar.set_message(what.to_owned());
    Ok(bar)
}
