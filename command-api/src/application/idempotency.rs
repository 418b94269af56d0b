//! Requests that are repeated under one key.

use events::{Snapshot, UserState};
use service_kit::commands::IdempotencyKey;

use super::{CommandError, Done, Request, Users, settled};
use crate::domain::Rejection;

/// What became of something that no event of a user tells of.
pub(super) enum Effect<T> {
    /// It happened.
    Happened(T),
    /// There was nothing to do, and there never will be.
    Nothing(T),
}

impl<T> Effect<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Effect<U> {
        match self {
            Self::Happened(answer) => Effect::Happened(change(answer)),
            Self::Nothing(answer) => Effect::Nothing(change(answer)),
        }
    }

    /// What is answered in either case.
    pub(super) fn into_answer(self) -> T {
        let (Self::Happened(answer) | Self::Nothing(answer)) = self;
        answer
    }
}

impl Users {
    /// What a request led to before it ended the access that it came with.
    ///
    /// # Errors
    /// [`CommandError`]; `None` when it is no repetition.
    pub async fn replayed(&self, request: Request) -> Result<Option<Done>, CommandError> {
        self.run_detached(|users| async move { users.earlier(request.key.as_ref()).await }).await
    }

    /// Whether the key of a request led to something before.
    ///
    /// # Errors
    /// [`CommandError`]: it was another request, or nobody can say.
    pub async fn repeats(&self, request: &Request) -> Result<bool, CommandError> {
        let Some(key) = &request.key else { return Ok(false) };
        Ok(self.log().recorded(key).await?.is_some())
    }

    /// Does what no event of a user tells of (a mail, the end of a session), and remembers that the key of the request
    /// led to it. `again` is the answer to a repetition.
    ///
    /// The record comes after the effect: a crash between the two does it once more, and never loses it. Where nothing
    /// happened nothing is remembered: records are written to the log of users, and what costs nothing has no limit.
    pub(super) async fn once<T>(
        &self,
        key: Option<&IdempotencyKey>,
        again: T,
        effect: impl Future<Output = Result<Effect<T>, CommandError>>,
    ) -> Result<T, CommandError> {
        let Some(key) = key else { return effect.await.map(Effect::into_answer) };
        let _running = self.in_flight.start(Some(key))?;
        if self.log().recorded(key).await?.is_some() {
            return Ok(again);
        }
        let done = match effect.await? {
            Effect::Nothing(answer) => return Ok(answer),
            Effect::Happened(answer) => answer,
        };
        // It is done, whatever becomes of the record: another process may have written it, too.
        if let Err(error) = settled(self.log().record(key).await) {
            tracing::warn!(%error, "an idempotency key is not recorded; its repetition is done again");
        }
        Ok(done)
    }

    /// What the key of a registration led to before, if it did. A deletion is for ever: the key that made a user who is
    /// gone makes nobody again, or a request that was held up would bring them back.
    pub(super) async fn earlier_registration(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Done>, CommandError> {
        let earlier = self.earlier(key).await;
        let user = match &earlier {
            Ok(Some(Done { user: Some(user), .. })) => user.id,
            Ok(None) => return Ok(None),
            Ok(Some(_)) | Err(CommandError::Rejected(Rejection::NoSuchUser)) => {
                return Err(CommandError::KeyOfDeleted);
            }
            Err(_) => return earlier,
        };
        // Deleted, and not erased yet.
        match self.log().load(user).await?.value {
            UserState::Present(_) => earlier,
            UserState::Absent | UserState::Deleted(_) => Err(CommandError::KeyOfDeleted),
        }
    }

    /// What the key of a request led to before, if it did. The answer is read from the event itself, so
    /// it is the same also when the user has changed since.
    pub(super) async fn earlier(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Done>, CommandError> {
        let Some(key) = key else { return Ok(None) };
        let Some(recorded) = self.log().recorded(key).await? else { return Ok(None) };
        let event = self.log().event_at(recorded.state_at).await?;
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
