//! Requests that are repeated under one key.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use events::Snapshot;

use super::{CommandError, Done, Users};
use crate::domain::Rejection;
use crate::ports::IdempotencyKey;

/// The keys at work in this process. Between processes the record in the log decides.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<Mutex<HashSet<String>>>);

/// Takes its key out when it goes.
#[derive(Debug)]
pub struct Running {
    keys: InFlight,
    key: Option<String>,
}

impl InFlight {
    /// Marks a key as running.
    pub fn start(&self, key: Option<&IdempotencyKey>) -> Result<Running, CommandError> {
        let key = key.map(|key| key.key.clone());
        if let Some(key) = &key
            && !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone())
        {
            return Err(CommandError::KeyInFlight);
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

impl Users {
    /// What the key of a request led to before, if it did. The answer is read from the event itself, so
    /// it is the same also when the user has changed since.
    pub(super) async fn earlier(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Done>, CommandError> {
        let Some(key) = key else { return Ok(None) };
        let Some(recorded) = self.log().recorded(key).await? else { return Ok(None) };
        if recorded.fingerprint != key.fingerprint {
            return Err(CommandError::KeyReused);
        }
        let event = self.log().event_at(recorded.position).await?;
        match event.map(|event| event.after) {
            Some(Snapshot::Present(user)) => Ok(Some(Done {
                revision: recorded.revision,
                position: recorded.position,
                user: Some(user),
            })),
            Some(Snapshot::Deleted(_)) => Ok(Some(Done {
                revision: recorded.revision,
                position: recorded.position,
                user: None,
            })),
            // Erased meanwhile: what was answered then must not be told again.
            None => Err(Rejection::NoSuchUser.into()),
        }
    }
}
