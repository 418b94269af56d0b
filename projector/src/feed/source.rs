//! What the messages of the logs become.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::feed::{DataSchemas, FeedEvent, Happened};
use events::{DecodeError, UserId, subjects};
use futures::{StreamExt, TryStreamExt, stream};
use service_kit::ambient;
use service_kit::event_log::{EVENT_TYPE_HEADER, EventLog, Followed, ReadError, Sequel};
use view_kit::age;
use view_kit::feed_publisher::{FeedSource, PublishError};

use super::project;
use crate::read;

/// Concurrent look-ups of users.
const LOOK_UPS_AT_ONCE: usize = 16;
/// Type of the event after which nothing of a user is published.
const DELETED: &str = "user.deleted.v1";

/// What the messages of `USERS` and `SESSIONS` become.
pub(crate) struct UserFeedSource {
    /// The log of users, which is asked who is deleted.
    pub(super) users: EventLog,
    /// How long events of sessions are kept.
    pub(super) sessions_kept: Duration,
    pub(super) schemas: Option<DataSchemas>,
}

impl FeedSource for UserFeedSource {
    type Event = FeedEvent;

    fn event(&self, message: &Followed) -> Result<Option<FeedEvent>, DecodeError> {
        event_of(message)
    }

    fn is_last(event: &FeedEvent) -> bool {
        matches!(event.happened, Happened::Deleted(_))
    }

    async fn messages(&self, events: Vec<FeedEvent>) -> Result<Vec<Option<Sequel>>, PublishError> {
        let of_sessions = events.iter().filter(|event| is_of_a_session(event));
        let gone = self.gone(of_sessions.filter_map(|event| event.happened.user_id())).await?;
        Ok(events.into_iter().map(|event| self.message(event, &gone)).collect::<Result<_, _>>()?)
    }
}

impl UserFeedSource {
    /// The message of an event; `None` if the user of its session is deleted, or if it is too old to be kept.
    fn message(
        &self,
        mut event: FeedEvent,
        gone: &HashSet<UserId>,
    ) -> Result<Option<Sequel>, serde_json::Error> {
        let is_gone = event.happened.user_id().is_some_and(|user| gone.contains(&user));
        if is_of_a_session(&event) && is_gone {
            return Ok(None);
        }
        let Some(subject) = event.nats_subject() else { return Ok(None) };
        let mut kept = None;
        if subject.starts_with("sessions.") {
            let left = self.sessions_kept.checked_sub(age(Some(event.time), ambient::now()));
            // It would expire before it is published: a new subscriber has no use for it.
            let Some(left) = left.filter(|left| left.as_secs() > 0) else { return Ok(None) };
            kept = Some(left);
        }
        let kind = event.happened.kind();
        let mut headers = vec![(EVENT_TYPE_HEADER, kind.to_owned())];
        event.data_schema = self.schemas.as_ref().map(|schemas| schemas.uri(kind));
        // The header that the OpenTelemetry conventions define.
        headers.extend(event.traceparent.clone().map(|trace| ("traceparent", trace)));
        Ok(Some(Sequel { subject, payload: event.to_json()?.into(), headers, kept }))
    }

    /// Which of some users are deleted, according to the log.
    async fn gone(
        &self,
        users: impl Iterator<Item = UserId>,
    ) -> Result<HashSet<UserId>, PublishError> {
        let users: HashSet<UserId> = users.collect();
        let found: HashMap<UserId, bool> = stream::iter(users)
            .map(|user| is_gone(&self.users, user))
            .buffer_unordered(LOOK_UPS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().filter_map(|(user, gone)| gone.then_some(user)).collect())
    }
}

async fn is_gone(users: &EventLog, user: UserId) -> Result<(UserId, bool), ReadError> {
    let last = users.last(&subjects::user_events(user)).await?;
    // A user without a message in the log never existed, and nothing is published of them.
    let gone = last.is_none_or(|last| last.header(EVENT_TYPE_HEADER).as_deref() == Some(DELETED));
    Ok((user, gone))
}

/// The feed event of a message of one of the logs, if there is one.
///
/// # Errors
/// [`DecodeError`]: the message cannot be read.
pub fn event_of(message: &Followed) -> Result<Option<FeedEvent>, DecodeError> {
    let Followed { subject, position, stored_at, payload, .. } = message;
    if let Some(user) = subject.strip_prefix("rv.user.") {
        let (user, stored) = read::revocation(user, payload)?;
        return Ok(project::of_revocation(user, &stored, *position, *stored_at));
    }
    if subject.starts_with("ev.session.") {
        let event = read::session_event(subject, payload)?;
        return Ok(project::of_session(&event, *position));
    }
    let event = read::user_event(subject, payload)?;
    project::of_user(&event, *position).map(Some)
}

/// Whether it comes from the log of sessions. The end of all sessions of a user does not.
const fn is_of_a_session(event: &FeedEvent) -> bool {
    event.happened.session_id().is_some()
}
