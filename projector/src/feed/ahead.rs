//! The messages to publish for a batch of the logs.

use std::collections::{HashMap, HashSet};

use events::feed::{
    FeedEvent, Happened, PARKED_HEADER, SESSIONS_POSITION_HEADER, USERS_POSITION_HEADER,
};
use events::{DecodeError, Position, UserId, subjects};
use futures::{StreamExt, TryStreamExt, stream};
use service_kit::ambient;
use service_kit::event_log::{EVENT_TYPE_HEADER, EventLog, Followed, ReadError, Sequel};
use view_kit::{Fold, age};

use super::feed_end::{FeedEnd, Parked, PublishedThrough};
use super::reader::{Read, Source};
use super::{Feed, FeedError, WRITE_MESSAGES_MAX, project};
use crate::fold::{Sessions, Users};
use crate::read;

/// Concurrent look-ups of users.
const LOOK_UPS_AT_ONCE: usize = 16;
/// Type of the event after which nothing of a user is published.
const DELETED: &str = "user.deleted.v1";

/// The result of a batch of the logs.
pub(super) struct Ahead {
    pub(super) messages: Vec<Sequel>,
    /// How far the feed is published after them.
    pub(super) published: PublishedThrough,
    /// What is parked after them.
    pub(super) parked: Parked,
    /// Why nothing after them can be published, if so.
    pub(super) failure: Option<FeedError>,
}

/// An event to publish, and how far the feed is published with it.
struct Publishable {
    event: FeedEvent,
    published: PublishedThrough,
}

impl Feed {
    /// The messages to publish for a batch. Events before one that can no longer be parked are published before that
    /// failure is reported.
    pub(super) async fn ahead(
        &self,
        batch: &[Read],
        feed_end: &FeedEnd,
    ) -> Result<Ahead, FeedError> {
        let (mut published, mut parked) = (feed_end.published, feed_end.parked.clone());
        let mut events = Vec::with_capacity(batch.len());
        let mut failure = None;
        for message in batch {
            let Followed { subject, position, .. } = &message.followed;
            let (from, aggregate) = (message.from, subjects::aggregate(subject));
            let is_parked = parked.holds(from, aggregate);
            let mut after = published;
            after.and(message);
            if message.followed.is_foreign {
                published = after;
                continue;
            }
            match event_of(&message.followed) {
                Ok(event) if is_parked => {
                    if let Some(event) = event.filter(is_deletion) {
                        parked.release(from, aggregate);
                        events.push(Publishable { event, published: after });
                    }
                }
                Err(_) if is_parked => {}
                Ok(event) => {
                    events.extend(event.map(|event| Publishable { event, published: after }))
                }
                Err(error) if parked.count() < self.parked_max => {
                    tracing::error!(
                        stream = from.stream(), aggregate, %position, %error,
                        "an event cannot be read: parking its user or session; nothing more of it is published"
                    );
                    parked.hold(from, aggregate, *position);
                }
                Err(error) => {
                    let (stream, max) = (from.stream(), self.parked_max);
                    failure = Some(FeedError::TooManyParked(*position, stream, error, max));
                    break;
                }
            }
            published = after;
        }
        let messages = self.messages(events, &parked).await?;
        Ok(Ahead { messages, published, parked, failure })
    }

    /// The messages to publish for a parked aggregate as far as it can be read now; `None` if that is no further than
    /// before.
    pub(super) async fn ahead_of_parked(
        &self,
        from: Source,
        aggregate: &str,
        feed_end: &FeedEnd,
    ) -> Result<Option<Ahead>, FeedError> {
        let Some(position) = feed_end.parked.position(from, aggregate) else { return Ok(None) };
        let (log, subjects) = match from {
            Source::Users => (&self.users, Users::subjects_of(aggregate)),
            Source::Sessions => (&self.sessions, Sessions::subjects_of(aggregate)),
        };
        let (behind, through) =
            (Position(position.0.saturating_sub(1)), feed_end.published.of(from));
        let messages = log.between(&subjects, behind, through, WRITE_MESSAGES_MAX).await?;
        let is_whole = messages.len() < WRITE_MESSAGES_MAX;
        let messages = messages.into_iter().filter(|message| !message.is_foreign);
        let messages: Vec<Read> = messages.map(|followed| Read { from, followed }).collect();
        let read: Vec<_> = messages.iter().map(|message| event_of(&message.followed)).collect();
        let is_end = |event: &Result<Option<FeedEvent>, DecodeError>| {
            event.as_ref().is_ok_and(|event| event.as_ref().is_some_and(is_deletion))
        };
        let counts_from = read.iter().rposition(is_end).unwrap_or(0);
        let (mut events, mut stuck, mut next) = (Vec::new(), None, behind);
        for (message, event) in messages.iter().zip(read).skip(counts_from) {
            let Ok(event) = event else {
                stuck = Some(message.followed.position);
                break;
            };
            next = Position(message.followed.position.0.saturating_add(1));
            events.extend(event.map(|event| Publishable { event, published: feed_end.published }));
        }
        let mut parked = feed_end.parked.clone();
        match stuck {
            Some(stuck) if stuck == position => return Ok(None),
            Some(stuck) => parked.hold(from, aggregate, stuck),
            None if is_whole => parked.release(from, aggregate),
            None => parked.hold(from, aggregate, next),
        }
        let messages = self.messages(events, &parked).await?;
        Ok(Some(Ahead { messages, published: feed_end.published, parked, failure: None }))
    }

    /// The messages that publish some events.
    async fn messages(
        &self,
        events: Vec<Publishable>,
        parked: &Parked,
    ) -> Result<Vec<Sequel>, FeedError> {
        let of_sessions = events.iter().filter(|publishable| is_of_a_session(&publishable.event));
        let gone = self.gone(of_sessions.filter_map(|one| one.event.happened.user_id())).await?;
        let now = ambient::now();
        let mut messages = Vec::with_capacity(events.len());
        for Publishable { mut event, published } in events {
            let is_gone = event.happened.user_id().is_some_and(|user| gone.contains(&user));
            if is_of_a_session(&event) && is_gone {
                continue;
            }
            let Some(subject) = event.nats_subject() else { continue };
            let mut kept = None;
            if subject.starts_with("sessions.") {
                let left = self.sessions_kept.checked_sub(age(Some(event.time), now));
                // It would expire before it is published: a new subscriber has no use for it.
                let Some(left) = left.filter(|left| left.as_secs() > 0) else { continue };
                kept = Some(left);
            }
            let mut headers = vec![
                (EVENT_TYPE_HEADER, event.happened.kind().to_owned()),
                (USERS_POSITION_HEADER, published.users.to_string()),
                (SESSIONS_POSITION_HEADER, published.sessions.to_string()),
            ];
            headers.extend(parked.header().map(|parked| (PARKED_HEADER, parked)));
            event.data_schema =
                self.schemas.as_ref().map(|schemas| schemas.uri(event.happened.kind()));
            // The feed_end that the OpenTelemetry conventions define.
            headers.extend(event.traceparent.clone().map(|trace| ("traceparent", trace)));
            messages.push(Sequel { subject, payload: event.to_json()?.into(), headers, kept });
        }
        Ok(messages)
    }

    /// Which of some users are deleted, according to the log.
    async fn gone(
        &self,
        users: impl Iterator<Item = UserId>,
    ) -> Result<HashSet<UserId>, FeedError> {
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

fn is_deletion(event: &FeedEvent) -> bool {
    matches!(event.happened, Happened::Deleted(_))
}
