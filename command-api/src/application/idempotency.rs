//! Requests that are repeated under one key.

use events::Snapshot;
use service_kit::commands::IdempotencyKey;

use super::{CommandError, Done, Users};
use crate::domain::Rejection;

impl Users {
    /// What the key of a request led to before, if it did. The answer is read from the event itself, so
    /// it is the same also when the user has changed since.
    pub(super) async fn earlier(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Done>, CommandError> {
        let Some(key) = key else { return Ok(None) };
        let Some(recorded) = self.log().recorded(key).await? else { return Ok(None) };
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
