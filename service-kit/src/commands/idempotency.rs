//! Requests that are repeated under one key (`Idempotency-Key`).
//!
//! The record of a key is stored in the same batch as the result it refers to, guarded by absence. A repeated request
//! finds it even after other changes of the same aggregate. A command that has nothing to change stores the record
//! alone: repeated after somebody else's change, it must not undo that change.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use events::{Position, Revision};
use serde::{Deserialize, Serialize};

use super::{Failure, IDEMPOTENCY_RECORD_LIFE, LogError};
use crate::event_log::{EventLog, Guard, Write};
use crate::keys::SecretKey;

/// Identifies a request with an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Keyed hash of caller and key, in hex.
    pub key: String,
    /// Keyed hash of method, path and body without secrets, in hex.
    pub fingerprint: String,
}

/// Makes idempotency keys. The caller's own text is stored nowhere. Cheap to clone.
#[derive(Clone)]
pub struct IdempotencyKeys(Arc<SecretKey>);

impl IdempotencyKeys {
    /// With a key for this purpose alone.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        Self(Arc::new(key))
    }

    /// The key of a caller for a request; `request` is all of the request except secrets.
    #[must_use]
    pub fn key(&self, caller: &str, key: &str, request: &[&[u8]]) -> IdempotencyKey {
        IdempotencyKey {
            key: self.0.mac_hex(&[b"key", caller.as_bytes(), key.as_bytes()]),
            fingerprint: self.0.mac_hex(request),
        }
    }
}

/// The record of a key in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Fingerprint of the request.
    pub fingerprint: String,
    /// Revision after the last event of the command.
    pub revision: Revision,
    /// How many messages after this record that event is. A batch is stored without a gap, so this gives its
    /// position, which was unknown when the record was written.
    pub events_behind: u64,
    /// Position of the last event before the command, if the command had nothing to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged_at: Option<Position>,
}

impl KeyRecord {
    /// For a command that stores this many messages after the record.
    #[must_use]
    pub fn of(key: &IdempotencyKey, revision: Revision, events_behind: u64) -> Self {
        Self { fingerprint: key.fingerprint.clone(), revision, events_behind, unchanged_at: None }
    }

    /// For a command that had nothing to change; the last event is at this position.
    #[must_use]
    pub fn unchanged(key: &IdempotencyKey, revision: Revision, at: Position) -> Self {
        Self { unchanged_at: Some(at), ..Self::of(key, revision, 0) }
    }

    /// The write of a record, the first of its batch. `record` is this, or contains it.
    ///
    /// # Errors
    /// In words: it cannot be JSON.
    pub fn write(subject: String, record: &impl Serialize) -> Result<Write, String> {
        let payload = serde_json::to_vec(record).map_err(|error| error.to_string())?;
        Ok(Write::new(subject, Guard::absent(), payload).expiring_after(IDEMPOTENCY_RECORD_LIFE))
    }
}

/// The recorded result of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// Position of the command's last message.
    pub position: Position,
    /// Revision after it.
    pub revision: Revision,
    /// Position of the event with the state after it.
    pub state_at: Position,
}

impl EventLog {
    /// The recorded result of a key, if there is one, on the subject of its record.
    ///
    /// # Errors
    /// [`Failure::KeyReused`] when it was another request, and those of reading.
    pub async fn recorded(
        &self,
        subject: &str,
        key: &IdempotencyKey,
    ) -> Result<Option<Recorded>, Failure> {
        let read = |stored: &crate::event_log::Stored| {
            serde_json::from_slice::<KeyRecord>(&stored.payload).map_err(|e| e.to_string())
        };
        let loaded = self.loaded(subject, read).await.map_err(|error: LogError| error)?;
        let Some(loaded) = loaded else { return Ok(None) };
        let record = loaded.value;
        if record.fingerprint != key.fingerprint {
            return Err(Failure::KeyReused);
        }
        let written = Position(loaded.position.0 + record.events_behind);
        let state_at = record.unchanged_at.unwrap_or(written);
        // Something may have been stored although the state did not change.
        let position = if record.events_behind == 0 { state_at } else { written };
        Ok(Some(Recorded { position, revision: record.revision, state_at }))
    }
}

/// The keys of running commands in this process. Between processes the record in the log decides.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<String>>>);

/// Removes its key when it is dropped.
#[derive(Debug)]
pub struct Running {
    keys: InFlight,
    key: Option<String>,
}

impl InFlight {
    /// Marks a key as running.
    ///
    /// # Errors
    /// [`Failure::KeyInFlight`]: it is already.
    pub fn start(&self, key: Option<&IdempotencyKey>) -> Result<Running, Failure> {
        let key = key.map(|key| key.key.clone());
        if let Some(key) = &key
            && !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
        {
            return Err(Failure::KeyInFlight);
        }
        Ok(Running { keys: self.clone(), key })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        }
    }
}
