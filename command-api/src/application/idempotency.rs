//! Requests that are repeated under one key.

use events::Snapshot;
use service_kit::commands::{Executed, IdempotencyKey, earlier, settled};

use super::{CommandError, Done, Request, Users};
use crate::domain::Rejection;

/// The result of something that is in no event of a user.
pub(super) enum Effect<T> {
    /// It happened.
    Happened(T),
    /// There was nothing to do, now and later.
    Nothing(T),
}

impl<T> Effect<T> {
    pub(super) fn map<U>(self, change: impl FnOnce(T) -> U) -> Effect<U> {
        match self {
            Self::Happened(answer) => Effect::Happened(change(answer)),
            Self::Nothing(answer) => Effect::Nothing(change(answer)),
        }
    }

    /// The answer in either case.
    pub(super) fn into_answer(self) -> T {
        let (Self::Happened(answer) | Self::Nothing(answer)) = self;
        answer
    }
}

impl Users {
    /// The result of an earlier request that ended the access it was sent with; `None` if this is no repetition.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn replayed(&self, request: Request) -> Result<Option<Done>, CommandError> {
        self.run_detached(|users| async move { users.earlier(request.key.as_ref()).await }).await
    }

    /// Whether a request repeats an earlier one.
    ///
    /// # Errors
    /// [`CommandError`]: the key belongs to another request, or the log does not answer.
    pub async fn repeats(&self, request: &Request) -> Result<bool, CommandError> {
        let Some(key) = &request.key else { return Ok(false) };
        Ok(self.log().recorded(key).await?.is_some())
    }

    /// Does something that is in no event of a user (a mail, the end of a session), and records the key of the request.
    /// `again` is the answer to a repetition.
    ///
    /// The record comes after the effect: a crash between the two repeats the effect and never loses it. If nothing
    /// happened, nothing is recorded: records are written to the log of users, and a request without effect has no
    /// rate limit.
    pub(super) async fn once<T>(
        &self,
        key: Option<&IdempotencyKey>,
        again: T,
        effect: impl Future<Output = Result<Effect<T>, CommandError>>,
    ) -> Result<T, CommandError> {
        let Some(key) = key else { return effect.await.map(Effect::into_answer) };
        let _running = self.deps.runner.start(Some(key))?;
        if self.log().recorded(key).await?.is_some() {
            return Ok(again);
        }
        let done = match effect.await? {
            Effect::Nothing(answer) => return Ok(answer),
            Effect::Happened(answer) => answer,
        };
        // The effect has happened, even if the record fails: another process may have written it, too.
        if let Err(error) = settled(self.log().record(key).await) {
            tracing::warn!(%error, "cannot record an idempotency key; a repetition will be carried out again");
        }
        Ok(done)
    }

    /// The result of an earlier request with the same key, if there was one.
    pub(super) async fn earlier(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Done>, CommandError> {
        // Erased since: the answer from then must not be given again.
        let done = |executed: Executed<Snapshot>| executed.done_or(|| Rejection::NoSuchUser.into());
        earlier(self.log(), key).await?.map(done).transpose()
    }
}
