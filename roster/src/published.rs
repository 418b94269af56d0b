//! How far the feed tells of the log.

use std::collections::HashMap;

use events::feed::{FEED_STREAM_SUBJECTS, SESSIONS_POSITION_HEADER, USERS_POSITION_HEADER};
use events::{Cause, Position, Timestamp, UserId, subjects};
use service_kit::event_log::{EVENT_TYPE_HEADER, EventLog, ReadError, Stored};

use crate::reading::Reading;

/// The event of a session that nobody is told of.
const REFRESHED: &str = "session.refreshed.v1";
/// The last event of a user.
const DELETED: &str = "user.deleted.v1";

/// Up to where the last message of the feed tells everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedThrough {
    /// Position in `USERS`.
    pub users: Position,
    /// Position in `SESSIONS`. Many events of sessions lead to no message: see [`unpublished_session_events`].
    pub sessions: Position,
}

impl PublishedThrough {
    /// What the end of the feed says.
    pub async fn of(feed: &EventLog) -> anyhow::Result<Self> {
        let tail = feed.tail(&FEED_STREAM_SUBJECTS).await?;
        let position = |name| {
            let header = tail.last.as_ref().and_then(|last| last.header(name));
            Position(header.and_then(|value| value.parse().ok()).unwrap_or(0))
        };
        let (users, sessions) =
            (position(USERS_POSITION_HEADER), position(SESSIONS_POSITION_HEADER));
        Ok(Self { users, sessions })
    }
}

/// Up to which position of `USERS` a message of the feed says that everything is told.
pub fn users_published_through(message: &Stored) -> Option<Position> {
    message.header(USERS_POSITION_HEADER)?.parse().ok().map(Position)
}

/// The sequence of the first message of the feed for which something holds, one behind `end` when it holds for none.
/// It must hold for all that come later too: positions and times only go up. So a search by halves finds it.
pub async fn first(
    feed: &EventLog,
    end: Position,
    holds: impl Fn(&Stored) -> bool,
) -> Result<Position, ReadError> {
    let (mut low, mut high) = (1, end.0 + 1);
    while low < high {
        let middle = low.midpoint(high);
        // What was erased, or is foreign, is passed over: it holds for the next message as well.
        let next = feed.next_own(">", Position(middle - 1)).await?;
        if next.as_ref().is_none_or(&holds) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(Position(low))
}

/// Events that must be told and are not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Unpublished {
    /// How many.
    pub count: u64,
    /// When the first was stored.
    pub oldest: Option<Timestamp>,
}

/// The events of sessions behind one position and up to another that must be told: no refreshes, and nothing of
/// users who are gone. Stops at `max` of them.
pub async fn unpublished_session_events(
    (users, sessions): (&EventLog, &EventLog),
    behind: Position,
    end: Position,
    max: u64,
) -> anyhow::Result<Unpublished> {
    let mut untold = Unpublished::default();
    let mut gone: HashMap<UserId, bool> = HashMap::new();
    let mut events = Reading::new(sessions, &[subjects::SESSION_EVENTS_FILTER], behind, end);
    while untold.count < max
        && let Some(event) = events.next().await?
    {
        if Cause::of(&event.payload).is_some_and(|cause| cause.kind == REFRESHED) {
            continue;
        }
        let user = event.subject.split('.').nth(2).and_then(|id| id.parse().ok());
        let is_gone = match user {
            None => true,
            Some(user) => match gone.get(&user) {
                Some(gone) => *gone,
                None => {
                    let is_gone = is_gone(users, user).await?;
                    gone.insert(user, is_gone);
                    is_gone
                }
            },
        };
        if !is_gone {
            untold.count += 1;
            untold.oldest.get_or_insert(event.stored_at);
        }
    }
    Ok(untold)
}

/// Whether the log says now that a user is deleted.
pub async fn is_gone(users: &EventLog, user: UserId) -> anyhow::Result<bool> {
    let last = users.last(&subjects::user_events(user)).await?;
    let kind = last.map(|last| last.header(EVENT_TYPE_HEADER));
    Ok(kind.is_none_or(|kind| kind.as_deref() == Some(DELETED)))
}
