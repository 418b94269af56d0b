//! What ended behind a backup: made every few minutes, small, so that a restore brings nobody back who is gone and
//! opens nothing that was closed. It only ever takes away, but for a password that came after another one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::bail;
use events::{
    Event, Position, RevocationReason, SessionId, Snapshot, Status, StoredRevocation, Timestamp,
    UserFact, UserId, credential_position, subjects,
};
use serde::{Deserialize, Serialize};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Followed, Limits};
use service_kit::key_ring::Ring;
use service_kit::keys::APPLICATION_KEY_FILE;
use service_kit::nats;
use uuid::Uuid;

use super::crypt::Recipient;
use super::folder::Backup;
use crate::reading::Reading;

/// What ended since a backup was taken, as of a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RevocationDelta {
    /// The backup.
    pub backup: Uuid,
    /// Everything that ended before this is in it.
    pub until: Option<Timestamp>,
    /// Read up to here of `USERS`.
    pub users_position: Position,
    /// Read up to here of `SESSIONS`.
    pub sessions_position: Position,
    /// Users to whom something happened.
    pub users: BTreeMap<UserId, UserRevocations>,
    /// Sessions that ended.
    pub sessions: BTreeSet<SessionId>,
    /// The file of the application key, once it was rotated: a credential here may be sealed with a key that the backup does
    /// not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application_key: Option<String>,
}

/// What ended for one user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserRevocations {
    /// Gone for ever.
    pub deleted: bool,
    /// Not allowed in.
    pub disabled: bool,
    /// The roles, if they changed.
    pub roles: Option<Vec<String>>,
    /// Whether access ended: logged out everywhere, or what the others say.
    pub access: bool,
    /// Whether the password changed.
    pub password: bool,
    /// The credential as it stands in the log, sealed.
    pub credential: Option<String>,
    /// Whether the address changed. It cannot be taken back, and is told.
    pub address: bool,
}

impl UserRevocations {
    /// Whether anything was taken from the user. A credential alone is the same password, hashed anew.
    pub const fn takes(&self) -> bool {
        self.deleted || self.disabled || self.roles.is_some() || self.access || self.password
    }
}

impl RevocationDelta {
    /// Nothing yet.
    fn of(backup: &Backup) -> anyhow::Result<Self> {
        Ok(Self {
            backup: backup.manifest.id,
            users_position: backup.manifest.stream(subjects::USERS_STREAM)?.last,
            sessions_position: backup.manifest.stream(subjects::SESSIONS_STREAM)?.last,
            ..Self::default()
        })
    }

    /// What was collected for a backup; nothing when nothing was.
    pub fn read(backup: &Backup) -> anyhow::Result<Self> {
        match backup.revocation_delta::<Self>()? {
            Some(ends) if ends.backup == backup.manifest.id => Ok(ends),
            Some(_) => bail!("the ends in the folder are those of another backup"),
            None => Self::of(backup),
        }
    }

    /// The keys that what is in here may be sealed with, if the application key was ever rotated.
    pub fn ring(&self) -> anyhow::Result<Option<Ring>> {
        let ring = self.application_key.as_deref();
        let from = Path::new("the application key beside what ended");
        Ok(ring.map(|text| Ring::parse(text, from)).transpose()?)
    }

    /// Takes a message of `USERS` in.
    fn add(&mut self, message: &Followed, backup_end: Position) -> anyhow::Result<()> {
        let (root, user) = message.subject.rsplit_once('.').unwrap_or_default();
        let user: UserId = user.parse()?;
        let ends = self.users.entry(user).or_default();
        match root {
            "ev.user" => {
                let event = Event::from_json(&message.payload)?;
                match event.fact {
                    UserFact::RolesChanged { roles } => ends.roles = Some(roles),
                    UserFact::EmailChanged { .. } => ends.address = true,
                    // Whom the backup does not know has nothing that could come back.
                    UserFact::Registered { .. } => ends.credential = None,
                    UserFact::ProfileChanged { .. }
                    | UserFact::PasswordChanged
                    | UserFact::EmailVerified
                    | UserFact::Disabled
                    | UserFact::Enabled
                    | UserFact::Deleted => {}
                }
                match event.after {
                    Snapshot::Present(user) => ends.disabled = user.status == Status::Disabled,
                    Snapshot::Deleted(_) => {
                        *ends = UserRevocations { deleted: true, ..UserRevocations::default() }
                    }
                }
            }
            "rv.user" => {
                let stored: StoredRevocation = serde_json::from_slice(&message.payload)?;
                let reason = stored.cause.map(|cause| cause.reason);
                ends.access = true;
                ends.password |= reason == Some(RevocationReason::PasswordChanged);
            }
            // An erased user's is empty, and the password of the backup that was only sealed or hashed anew is in the backup.
            _ if !ends.deleted
                && credential_position(&message.payload, message.position) > backup_end =>
            {
                ends.credential = Some(String::from_utf8(message.payload.to_vec())?)
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads what ended since the backup was taken, or since it was last asked, and writes it into the folder.
pub async fn collect(
    settings: &Settings,
    backup: &Backup,
    recipient: Option<&Recipient>,
) -> anyhow::Result<RevocationDelta> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream| EventLog::new(client.clone(), stream, Limits::of(settings));
    let (users, sessions) = (log(subjects::USERS_STREAM), log(subjects::SESSIONS_STREAM));
    for log in [&users, &sessions] {
        let lineage = log.standing().await?.and_then(|standing| standing.lineage);
        if lineage != backup.manifest.stream(log.stream())?.lineage {
            bail!(
                "the backup is not of this log, or of before it was restored: make a new one with `roster backup`"
            );
        }
    }
    // Damaged ones are of no use, and encrypted ones cannot be read here; everything is in the log still.
    let mut ends = RevocationDelta::read(backup).or_else(|_| RevocationDelta::of(backup))?;
    let backup_end = backup.manifest.stream(subjects::USERS_STREAM)?.last;
    let until = ambient::now();
    let end = users.end().await?;
    let filters = [
        subjects::USER_EVENTS_FILTER,
        subjects::CREDENTIALS_FILTER,
        subjects::USER_REVOCATIONS_FILTER,
    ];
    let mut reading = Reading::new(&users, &filters, ends.users_position, end);
    while let Some(message) = reading.next().await? {
        ends.add(&message, backup_end)?;
    }
    ends.users_position = end;
    let end = sessions.end().await?;
    let filters = [subjects::SESSION_REVOCATIONS_FILTER];
    let mut reading = Reading::new(&sessions, &filters, ends.sessions_position, end);
    while let Some(message) = reading.next().await? {
        if message.subject != subjects::LINEAGE {
            ends.sessions.insert(message.subject.rsplit('.').next().unwrap_or_default().parse()?);
        }
    }
    ends.sessions_position = end;
    ends.until = Some(until);
    let ring = Ring::read(&settings.secrets.dir.join(APPLICATION_KEY_FILE))?;
    ends.application_key = ring.original().is_none().then(|| ring.text().to_string());
    ends.users.retain(|_, ends| *ends != UserRevocations::default());
    backup.write_revocation_delta(&ends, recipient)?;
    Ok(ends)
}
