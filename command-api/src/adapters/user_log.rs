//! The log of users in NATS: which message stands on which subject.

use async_trait::async_trait;
use events::{
    CommandId, Cutoff, EmailAddress, EmailClaim, Event, Fact, LinkPurpose, LinkRecord, Position,
    ROLE_ADMIN, Revision, RevocationCause, RevocationReason, Salvage, StoredRevocation,
    UndoneChanges, UserFact, UserId, UserState, credential_position, subjects,
};
use serde::{Deserialize, Serialize};
use service_kit::ambient;
use service_kit::commands::{
    Appended, Failure, IdempotencyKey, KeyRecord, Loaded, LogError, Recorded,
};
use service_kit::event_log::{Append, EventLog, Guard, Stored, Write};
use service_kit::key_ring::RotatingKey;
use service_kit::keys::SecretKey;
use service_kit::security::SecurityRecorder;
use std::collections::BTreeSet;

use super::{CredentialSealer, Reached, Resealer, recorded};
use crate::domain::Admins;
use crate::ports::{Change, ClaimChange, CredentialChange, KeptImport, PasswordHash, UserLog};

/// Most events of a user of whom one cannot be read that are read one by one.
const SALVAGED_EVENTS_MAX: usize = 10_000;

#[derive(Serialize, Deserialize)]
struct Holders {
    holders: BTreeSet<UserId>,
}

/// The record of a key, as versions before wrote it: with the user it was about.
#[derive(Serialize)]
struct Record {
    user_id: UserId,
    #[serde(flatten)]
    record: KeyRecord,
}

/// The record of the key of an import, with its answer.
#[derive(Serialize)]
struct ImportRecord<'a> {
    #[serde(flatten)]
    record: KeyRecord,
    #[serde(flatten)]
    kept: &'a KeptImport,
}

/// The real log.
pub struct NatsUserLog {
    log: EventLog,
    /// Where events of users are published next, if its room is known.
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

    /// The same, with what it stores in the security record.
    pub fn recorded(self, recorder: SecurityRecorder) -> Self {
        Self { recorder, ..self }
    }

    /// The same, which says how far the log is.
    pub fn noting(self, reached: Reached) -> Self {
        Self { reached, ..self }
    }

    const fn sealer(&self) -> &CredentialSealer {
        self.resealer.sealer()
    }

    fn claim_subject(&self, email: &EmailAddress) -> String {
        subjects::email_claim(&self.claim_key(email))
    }

    fn append_of(&self, change: &Change) -> Result<Append, String> {
        let mut writes = self.writes_beside(change)?;
        // The record goes first: everything else follows it without a gap.
        if let Some(key) = &change.key {
            let behind = (writes.len() + change.events.len()) as u64;
            let record = match (change.events.last(), change.unchanged) {
                (Some(last), _) => KeyRecord::of(key, last.revision(), behind),
                (None, Some((revision, at))) => KeyRecord {
                    // The revocation is what was done, and the last of the writes.
                    events_behind: if change.revocation.is_some() { behind } else { 0 },
                    ..KeyRecord::unchanged(key, revision, at)
                },
                (None, None) => return Err("a key that leads to nothing".to_owned()),
            };
            let subject = subjects::idempotency_record(&key.key);
            let write = KeyRecord::write(subject, &Record { user_id: change.user, record })?;
            writes.insert(0, write);
        }
        let mut events = change.events.iter();
        let (command, last) = match events.next() {
            Some(first) => (first.command_id, first_event(change, first)?),
            None => {
                let last = writes.pop().ok_or("a change of nothing")?;
                (CommandId::from_uuid(ambient::new_uuid()), last)
            }
        };
        let mut append = writes.into_iter().fold(Append::new(command, last), Append::with);
        for event in events {
            append = append.then(json(event)?, event.id, event.fact.wire_type());
        }
        Ok(append)
    }

    /// One append of the changes of several users.
    fn append_of_all(&self, changes: &[Change]) -> Result<Append, String> {
        let command = CommandId::from_uuid(ambient::new_uuid());
        let mut writes = Vec::new();
        for change in changes {
            let [event] = change.events.as_slice() else {
                return Err("one event for each user can be stored together".to_owned());
            };
            writes.extend(self.writes_beside(change)?);
            writes.push(first_event(change, event)?);
        }
        let last = writes.pop().ok_or("a change of nothing")?;
        Ok(writes.into_iter().fold(Append::new(command, last), Append::with))
    }

    /// What a change writes beside its events.
    fn writes_beside(&self, change: &Change) -> Result<Vec<Write>, String> {
        let mut writes = Vec::new();
        for claim in &change.claims {
            let (email, guard, claim) = match claim {
                ClaimChange::Hold(email, guard) => (email, *guard, EmailClaim::held(change.user)),
                ClaimChange::TakeBack(email, reserved, guard) => {
                    (email, *guard, EmailClaim::taken_back(change.user, *reserved))
                }
                ClaimChange::Release(email, reserved, guard) => {
                    (email, *guard, EmailClaim::released(change.user, *reserved))
                }
            };
            writes.push(Write::new(self.claim_subject(email), guard, encode(&claim)?));
        }
        if let Some(credential) = &change.credential {
            let (hash, guard) = match credential {
                CredentialChange::Set(hash, guard) => (Some(hash), *guard),
                CredentialChange::Remove(guard) => (None, *guard),
            };
            writes.push(self.credential_write(change.user, hash, guard, None)?);
        }
        if let Some((admins, guard)) = &change.admins {
            let holders = Holders { holders: admins.0.clone() };
            let subject = subjects::role_holders(ROLE_ADMIN);
            writes.push(Write::new(subject, *guard, encode(&holders)?));
        }
        if let Some(link) = &change.link {
            let subject = subjects::link(link.purpose, change.user);
            writes.push(Write::new(subject, link.guard, encode(&link.record.used())?));
        }
        if let Some((undone, guard)) = &change.undone {
            let subject = subjects::undone_email_changes(change.user);
            writes.push(Write::new(subject, *guard, encode(undone)?));
        }
        if let Some((revocation, guard)) = &change.revocation {
            let subject = subjects::user_revocation(change.user);
            let cause = change.revoked_by.clone().or_else(|| cause(&change.events));
            let stored = StoredRevocation { revocation: *revocation, cause };
            writes.push(Write::new(subject, *guard, encode(&stored)?));
        }
        Ok(writes)
    }

    /// Stores the record of a key alone.
    /// In the room that is reserved for what ends access nothing is remembered.
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

    async fn recorded(&self, key: &IdempotencyKey) -> Result<Option<Recorded>, Failure> {
        self.log.recorded(&subjects::idempotency_record(&key.key), key).await
    }

    async fn record(&self, key: &IdempotencyKey) -> Appended {
        let record = KeyRecord::of(key, Revision::default(), 0);
        self.store_record(key, &record).await
    }

    async fn recorded_import(&self, key: &IdempotencyKey) -> Result<Option<KeptImport>, Failure> {
        // Whether it was this request is looked at as for every other.
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

    async fn event_at(&self, position: Position) -> Result<Option<Event>, LogError> {
        let read = |stored: &Stored| Event::from_json(&stored.payload).map_err(|e| e.to_string());
        self.log.loaded_at(position, read).await
    }

    async fn append(&self, change: &Change) -> Appended {
        if change.can_wait() && !self.has_headroom() {
            return Appended::Full;
        }
        let appended = match self.append_of(change) {
            Ok(append) => self.log.append(&append).await.into(),
            Err(why) => Appended::Refused(why),
        };
        if let Appended::Stored(position) = appended {
            self.reached.note(position);
            recorded::records(change).for_each(|event| self.recorder.record(event));
        }
        appended
    }

    async fn append_all(&self, changes: &[Change]) -> Appended {
        if changes.iter().any(Change::can_wait) && !self.has_headroom() {
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
            tracing::warn!(
                error = why,
                "cannot seal a credential anew; the next login tries again"
            );
        }
    }

    fn open_credential(&self, user: UserId, sealed: &[u8]) -> Result<Option<PasswordHash>, String> {
        self.sealer().open(user, sealed)
    }

    fn claim_key(&self, email: &EmailAddress) -> String {
        self.claim_key.mac_hex(&[email.canonical().as_bytes()])
    }
}

/// What led to a revocation that stands beside events: the one that ends the most.
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

fn first_event(change: &Change, event: &Event) -> Result<Write, String> {
    let subject = subjects::user_events(change.user);
    let write = Write::new(subject, change.guard, json(event)?);
    Ok(write.event(event.id, event.fact.wire_type()))
}

fn json(event: &Event) -> Result<Vec<u8>, String> {
    event.to_json().map_err(|e| e.to_string())
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|e| e.to_string())
}
