//! The log of users in NATS: which record is on which subject.

use async_trait::async_trait;
use events::{
    CommandId, Cutoff, EmailAddress, EmailClaim, Event, LinkPurpose, LinkRecord, Position,
    ROLE_ADMIN, Revision, RevocationCause, RevocationReason, Salvage, StoredRevocation,
    UndoneChanges, UserFact, UserId, UserState, credential_position, subjects,
};
use serde::{Deserialize, Serialize};
use service_kit::ambient;
use service_kit::commands::{
    Appended, CommandLog, Failure, IdempotencyKey, KeyRecord, Loaded, LogError, Recorded,
    first_event,
};
use service_kit::event_log::{Append, EventLog, Guard, Stored, Write};
use service_kit::key_ring::RotatingKey;
use service_kit::keys::SecretKey;
use service_kit::security::SecurityRecorder;
use std::collections::BTreeSet;

use super::security_events::security_events;
use super::{CredentialSealer, Reached, Resealer};
use crate::domain::Admins;
use crate::ports::{
    ClaimChange, CredentialChange, KeptImport, PasswordHash, UserChange, UserLog, UserWrites,
    can_wait,
};

/// Events that are read one by one of a user with an event that cannot be read.
const SALVAGED_EVENTS_MAX: usize = 10_000;

#[derive(Serialize, Deserialize)]
struct Holders {
    holders: BTreeSet<UserId>,
}

/// The record of a key. Earlier versions wrote it with the user, so this one does.
#[derive(Serialize)]
struct Record {
    user_id: UserId,
    #[serde(flatten)]
    record: KeyRecord,
}

/// The record of an import's key, with the answer.
#[derive(Serialize)]
struct ImportRecord<'a> {
    #[serde(flatten)]
    record: KeyRecord,
    #[serde(flatten)]
    kept: &'a KeptImport,
}

/// The log of users.
pub struct NatsUserLog {
    log: EventLog,
    /// The feed that the events go to, if this process may see how full it is.
    feed: Option<EventLog>,
    resealer: Resealer,
    claim_key: SecretKey,
    recorder: SecurityRecorder,
    reached: Reached,
}

impl NatsUserLog {
    /// Uses a verified stream, the application key and the key of claims.
    pub fn new(
        log: EventLog,
        feed: Option<EventLog>,
        application_key: &RotatingKey,
        claim_key: SecretKey,
    ) -> Result<Self, String> {
        Ok(Self {
            resealer: Resealer::new(log.clone(), application_key)?,
            log,
            feed,
            claim_key,
            recorder: SecurityRecorder::off(),
            reached: Reached::default(),
        })
    }

    /// Records the changes that it stores in the security record.
    pub fn recorded(self, recorder: SecurityRecorder) -> Self {
        Self { recorder, ..self }
    }

    /// Reports the positions that it stores.
    pub fn noting(self, reached: Reached) -> Self {
        Self { reached, ..self }
    }

    const fn sealer(&self) -> &CredentialSealer {
        self.resealer.sealer()
    }

    fn claim_subject(&self, email: &EmailAddress) -> String {
        subjects::email_claim(&self.claim_key(email))
    }

    fn append_of(&self, change: &UserChange) -> Result<Append, String> {
        let record = |key: &IdempotencyKey, record: KeyRecord| {
            let subject = subjects::idempotency_record(&key.key);
            KeyRecord::write(subject, &Record { user_id: change.id, record })
        };
        change.to_append(subjects::user_events(change.id), self.further(change)?, record)
    }

    /// The batch that stores the changes of several users.
    fn append_of_all(&self, changes: &[UserChange]) -> Result<Append, String> {
        let command = CommandId::from_uuid(ambient::new_uuid());
        let mut writes = Vec::new();
        for change in changes {
            let [event] = change.events.as_slice() else {
                return Err("one event for each user can be stored together".to_owned());
            };
            writes.extend(self.further(change)?);
            let subject = subjects::user_events(change.id);
            writes.push(first_event(subject, change.before.guard, event)?);
        }
        let last = writes.pop().ok_or("a change of nothing")?;
        Ok(writes.into_iter().fold(Append::new(command, last), Append::with))
    }

    /// The further writes of a change; the revocation is the last one.
    fn further(&self, change: &UserChange) -> Result<Vec<Write>, String> {
        let (user, further) = (change.id, &change.further);
        let mut writes = Vec::new();
        for claim in &further.claims {
            let (email, guard, claim) = match claim {
                ClaimChange::Hold(email, guard) => (email, *guard, EmailClaim::held(user)),
                ClaimChange::TakeBack(email, reserved, guard) => {
                    (email, *guard, EmailClaim::taken_back(user, *reserved))
                }
                ClaimChange::Release(email, reserved, guard) => {
                    (email, *guard, EmailClaim::released(user, *reserved))
                }
            };
            writes.push(Write::new(self.claim_subject(email), guard, encode(&claim)?));
        }
        if let Some(credential) = &further.credential {
            let (hash, guard) = match credential {
                CredentialChange::Set(hash, guard) => (Some(hash), *guard),
                CredentialChange::Remove(guard) => (None, *guard),
            };
            writes.push(self.credential_write(user, hash, guard, None)?);
        }
        if let Some((admins, guard)) = &further.admins {
            let holders = Holders { holders: admins.0.clone() };
            let subject = subjects::role_holders(ROLE_ADMIN);
            writes.push(Write::new(subject, *guard, encode(&holders)?));
        }
        if let Some(link) = &further.link {
            let subject = subjects::link(link.purpose, user);
            writes.push(Write::new(subject, link.guard, encode(&link.record.used())?));
        }
        if let Some((undone, guard)) = &further.undone {
            let subject = subjects::undone_email_changes(user);
            writes.push(Write::new(subject, *guard, encode(undone)?));
        }
        if let Some((revocation, guard)) = &further.revocation {
            let subject = subjects::user_revocation(user);
            let cause = further.revoked_by.clone().or_else(|| cause(&change.events));
            let stored = StoredRevocation { revocation: *revocation, cause };
            writes.push(Write::new(subject, *guard, encode(&stored)?));
        }
        Ok(writes)
    }

    /// Stores the record of a key alone, but not in the room that is reserved for ending access.
    async fn store_record(&self, key: &IdempotencyKey, record: &impl Serialize) -> Appended {
        if !self.has_headroom() {
            return Appended::Full;
        }
        match KeyRecord::write(subjects::idempotency_record(&key.key), record) {
            Ok(write) => {
                let command = CommandId::from_uuid(ambient::new_uuid());
                self.log.append(&Append::new(command, write)).await.into()
            }
            Err(why) => Appended::Refused(why),
        }
    }

    fn credential_write(
        &self,
        user: UserId,
        hash: Option<&PasswordHash>,
        guard: Guard,
        since: Option<Position>,
    ) -> Result<Write, String> {
        let sealed = self.sealer().seal(user, hash, since)?;
        Ok(Write::new(subjects::user_credential(user), guard, sealed))
    }
}

#[async_trait]
impl CommandLog<UserFact, UserWrites> for NatsUserLog {
    async fn recorded(&self, key: &IdempotencyKey) -> Result<Option<Recorded>, Failure> {
        self.log.recorded(&subjects::idempotency_record(&key.key), key).await
    }

    async fn event_at(&self, position: Position) -> Result<Option<Event>, LogError> {
        let read = |stored: &Stored| Event::from_json(&stored.payload).map_err(|e| e.to_string());
        self.log.loaded_at(position, read).await
    }

    async fn append(&self, change: &UserChange) -> Appended {
        if can_wait(change) && !self.has_headroom() {
            return Appended::Full;
        }
        let appended = match self.append_of(change) {
            Ok(append) => self.log.append(&append).await.into(),
            Err(why) => Appended::Refused(why),
        };
        if let Appended::Stored(position) = appended {
            self.reached.note(position);
            security_events(change).for_each(|event| self.recorder.record(event));
        }
        appended
    }
}

#[async_trait]
impl UserLog for NatsUserLog {
    fn has_headroom(&self) -> bool {
        self.log.has_headroom() && self.feed.as_ref().is_none_or(EventLog::has_headroom)
    }

    async fn load(&self, user: UserId) -> Result<Loaded<UserState>, LogError> {
        let subject = subjects::user_events(user);
        self.log
            .loaded_or(&subject, UserState::Absent, |stored| {
                let event = Event::from_json(&stored.payload).map_err(|e| e.to_string())?;
                Ok(UserState::from(event.after))
            })
            .await
    }

    async fn salvage(&self, user: UserId) -> Result<Loaded<UserState>, LogError> {
        let subject = subjects::user_events(user);
        let unavailable = LogError::Unavailable;
        let Some(last) = self.log.last(&subject).await.map_err(unavailable)? else {
            return Ok(Loaded::empty(UserState::Absent));
        };
        let (guard, position) = (last.guard(), last.position);
        let subjects = std::slice::from_ref(&subject);
        let messages = self
            .log
            .between(subjects, Position(0), position, SALVAGED_EVENTS_MAX)
            .await
            .map_err(unavailable)?;
        if messages.len() == SALVAGED_EVENTS_MAX {
            let reason = format!("it has {SALVAGED_EVENTS_MAX} events or more");
            return Err(LogError::Damaged { subject, reason });
        }
        let mut salvage = Salvage::of(user);
        messages.iter().for_each(|message| salvage.add(&message.payload));
        Ok(Loaded { value: salvage.into_state(), guard, position })
    }

    async fn claim(&self, email: &EmailAddress) -> Result<Loaded<Option<EmailClaim>>, LogError> {
        let subject = self.claim_subject(email);
        self.log
            .loaded_or(&subject, None, |stored| {
                serde_json::from_slice(&stored.payload).map(Some).map_err(|e| e.to_string())
            })
            .await
    }

    async fn credential(&self, user: UserId) -> Result<Loaded<Option<PasswordHash>>, LogError> {
        let subject = subjects::user_credential(user);
        let mut set_at = None;
        let loaded = self
            .log
            .loaded_or(&subject, None, |stored| {
                set_at = Some(credential_position(&stored.payload, stored.position));
                self.sealer().open(user, &stored.payload)
            })
            .await?;
        Ok(Loaded { position: set_at.unwrap_or(loaded.position), ..loaded })
    }

    async fn admins(&self) -> Result<Loaded<Admins>, LogError> {
        let subject = subjects::role_holders(ROLE_ADMIN);
        self.log
            .loaded_or(&subject, Admins::default(), |stored| {
                let holders: Holders =
                    serde_json::from_slice(&stored.payload).map_err(|e| e.to_string())?;
                Ok(Admins(holders.holders))
            })
            .await
    }

    async fn cutoff(&self, user: UserId) -> Result<Loaded<Cutoff>, LogError> {
        self.log
            .loaded_or(&subjects::user_revocation(user), Cutoff::default(), |stored| {
                let revocation =
                    serde_json::from_slice(&stored.payload).map_err(|e| e.to_string())?;
                Ok(Cutoff::of(revocation, stored.position))
            })
            .await
    }

    async fn link(
        &self,
        purpose: LinkPurpose,
        user: UserId,
    ) -> Result<Loaded<Option<LinkRecord>>, LogError> {
        self.log
            .loaded_or(&subjects::link(purpose, user), None, |stored| {
                serde_json::from_slice(&stored.payload).map(Some).map_err(|e| e.to_string())
            })
            .await
    }

    async fn undone(&self, user: UserId) -> Result<Loaded<UndoneChanges>, LogError> {
        let loaded = self
            .log
            .loaded(&subjects::undone_email_changes(user), |stored| {
                serde_json::from_slice(&stored.payload).map_err(|e| e.to_string())
            })
            .await?;
        Ok(loaded.unwrap_or_else(|| Loaded::empty(UndoneChanges::default())))
    }

    async fn record(&self, key: &IdempotencyKey) -> Appended {
        let record = KeyRecord::of(key, Revision::default(), 0);
        self.store_record(key, &record).await
    }

    async fn recorded_import(&self, key: &IdempotencyKey) -> Result<Option<KeptImport>, Failure> {
        // Checks the fingerprint, as for every other key.
        if self.recorded(key).await?.is_none() {
            return Ok(None);
        }
        let read = |stored: &Stored| {
            serde_json::from_slice::<KeptImport>(&stored.payload).map_err(|e| e.to_string())
        };
        let loaded = self.log.loaded(&subjects::idempotency_record(&key.key), read).await?;
        Ok(loaded.map(|loaded| loaded.value))
    }

    async fn record_import(&self, key: &IdempotencyKey, kept: &KeptImport) -> Appended {
        let record = KeyRecord::of(key, Revision::default(), 0);
        self.store_record(key, &ImportRecord { record, kept }).await
    }

    async fn append_all(&self, changes: &[UserChange]) -> Appended {
        if changes.iter().any(can_wait) && !self.has_headroom() {
            return Appended::Full;
        }
        match self.append_of_all(changes) {
            Ok(append) => self.log.append(&append).await.into(),
            Err(why) => Appended::Refused(why),
        }
    }

    async fn rehash(
        &self,
        user: UserId,
        hash: &PasswordHash,
        replaced: &Loaded<Option<PasswordHash>>,
    ) -> Appended {
        if !self.has_headroom() {
            return Appended::Full;
        }
        match self.credential_write(user, Some(hash), replaced.guard, Some(replaced.position)) {
            Ok(write) => {
                let command = CommandId::from_uuid(ambient::new_uuid());
                self.log.append(&Append::new(command, write)).await.into()
            }
            Err(why) => Appended::Refused(why),
        }
    }

    async fn reseal(&self, user: UserId) {
        if self.sealer().has_rotated()
            && self.has_headroom()
            && let Err(why) = self.resealer.reseal(user).await
        {
            tracing::warn!(error = why, "cannot reseal a credential; the next login tries again");
        }
    }

    fn open_credential(&self, user: UserId, sealed: &[u8]) -> Result<Option<PasswordHash>, String> {
        self.sealer().open(user, sealed)
    }

    fn claim_key(&self, email: &EmailAddress) -> String {
        self.claim_key.mac_hex(&[email.canonical().as_bytes()])
    }
}

/// The cause of a revocation that is stored with events: the event that ends the most.
fn cause(events: &[Event]) -> Option<RevocationCause> {
    let reason = |event: &Event| match event.fact {
        UserFact::Deleted => Some(RevocationReason::Deleted),
        UserFact::Disabled => Some(RevocationReason::Disabled),
        UserFact::PasswordChanged => Some(RevocationReason::PasswordChanged),
        UserFact::EmailVerified | UserFact::EmailChanged { .. } => {
            Some(RevocationReason::EmailProven)
        }
        UserFact::RolesChanged { .. } => Some(RevocationReason::RolesChanged),
        UserFact::Registered { .. } | UserFact::ProfileChanged { .. } | UserFact::Enabled => None,
    };
    let ends_least = |reason: &RevocationReason| *reason == RevocationReason::RolesChanged;
    let causes = events.iter().filter_map(|event| Some((reason(event)?, event)));
    let (reason, event) = causes.min_by_key(|(reason, _)| ends_least(reason))?;
    Some(RevocationCause {
        id: ambient::new_uuid(),
        time: event.time,
        reason,
        actor: event.actor,
        command_id: event.command_id,
        correlation_id: event.correlation_id.clone(),
        traceparent: event.traceparent.clone(),
    })
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|e| e.to_string())
}
