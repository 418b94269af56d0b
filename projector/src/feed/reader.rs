//! Reading both logs in one order.

use std::collections::VecDeque;
use std::time::Duration;

use events::{Position, subjects};
use futures::StreamExt;
use futures::stream::{BoxStream, ReadyChunks};
use service_kit::event_log::{EventLog, FollowError, Followed, Start};
use tokio::time::timeout;

use super::FeedError;

/// Subjects of the log of users that are read.
const USERS_FILTERS: [&str; 2] = [subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER];
/// Subjects of the log of sessions that are read.
const SESSIONS_FILTERS: [&str; 1] = [subjects::SESSION_EVENTS_FILTER];
/// How long an event that is in the log may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// The log that a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Users,
    Sessions,
}

/// A message of one of the logs.
pub(super) struct Read {
    pub(super) from: Source,
    pub(super) followed: Followed,
}

impl Source {
    /// The source with a stream name.
    pub(super) fn of(stream: &str) -> Option<Self> {
        [Self::Users, Self::Sessions].into_iter().find(|source| source.stream() == stream)
    }

    /// The name of its stream.
    pub(super) const fn stream(self) -> &'static str {
        match self {
            Self::Users => subjects::USERS_STREAM,
            Self::Sessions => subjects::SESSIONS_STREAM,
        }
    }
}

/// Both logs, read from where the feed ends, merged into one order.
pub(super) struct Reader<'a> {
    users: Side,
    sessions: Side,
    log: &'a EventLog,
}

/// One of the logs.
struct Side {
    from: Source,
    chunks: ReadyChunks<BoxStream<'static, Result<Followed, FollowError>>>,
    /// Messages that arrived and are not processed yet.
    held: VecDeque<Followed>,
    /// Why nothing arrives after them.
    failure: Option<FollowError>,
    /// The position of the last message that arrived.
    position: Position,
    /// The number of messages after it when it was sent.
    pending: u64,
}

impl Side {
    async fn open(
        log: &EventLog,
        from: Source,
        filters: &[&str],
        behind: Position,
        batch_max: usize,
    ) -> Result<Self, FeedError> {
        let following = log.follow(filters, Start::Behind(behind)).await?;
        Ok(Self {
            from,
            chunks: following.messages.ready_chunks(batch_max),
            held: VecDeque::new(),
            failure: None,
            position: behind,
            pending: following.pending,
        })
    }

    /// Waits for at least one message. Messages that arrived before a failure are processed before it is reported.
    async fn fill(&mut self) -> Result<(), FeedError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure.into());
        }
        let chunk = self.chunks.next().await.unwrap_or_default();
        for next in chunk {
            match next {
                Ok(followed) => {
                    (self.position, self.pending) = (followed.position, followed.pending);
                    self.held.push_back(followed);
                }
                Err(failure) if self.held.is_empty() => return Err(failure.into()),
                Err(failure) => {
                    self.failure = Some(failure);
                    break;
                }
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Read> {
        self.held.pop_front().map(|followed| Read { from: self.from, followed })
    }
}

impl<'a> Reader<'a> {
    /// Reads both logs from the given positions on.
    pub(super) async fn open(
        (users_log, behind_users): (&'a EventLog, Position),
        (sessions_log, behind_sessions): (&EventLog, Position),
        max: usize,
    ) -> Result<Self, FeedError> {
        let (users, sessions) = (Source::Users, Source::Sessions);
        Ok(Self {
            users: Side::open(users_log, users, &USERS_FILTERS, behind_users, max).await?,
            sessions: Side::open(sessions_log, sessions, &SESSIONS_FILTERS, behind_sessions, max)
                .await?,
            log: users_log,
        })
    }

    /// The number of messages that are still to come.
    pub(super) const fn pending(&self) -> u64 {
        self.users.pending + self.sessions.pending
    }

    /// The next messages in order, at least one. Cancel-safe.
    pub(super) async fn next(&mut self, messages_max: usize) -> Result<Vec<Read>, FeedError> {
        loop {
            match (self.users.held.is_empty(), self.sessions.held.is_empty()) {
                (true, true) => tokio::select! {
                    filled = self.users.fill() => filled?,
                    filled = self.sessions.fill() => filled?,
                },
                // The backlog of sessions may contain earlier events.
                (false, true) if self.sessions.pending > 0 => self.sessions.fill().await?,
                (true, false) if self.users.pending > 0 => self.users.fill().await?,
                (true, false) if is_more(self.log, self.users.position).await? => {
                    let arrival = timeout(ARRIVAL_MAX, self.users.fill()).await;
                    arrival.map_err(|_| FeedError::Missing)??;
                }
                (false, false) | (false, true) | (true, false) => {
                    return Ok(self.merged(messages_max));
                }
            }
        }
    }

    /// The messages that can be published now: up to where one side has none left.
    fn merged(&mut self, messages_max: usize) -> Vec<Read> {
        let mut merged = Vec::new();
        while merged.len() < messages_max {
            let first = match (self.users.held.front(), self.sessions.held.front()) {
                (Some(user), Some(session)) if user.stored_at <= session.stored_at => {
                    self.users.take()
                }
                (Some(_), Some(_)) => self.sessions.take(),
                // When one side has none left, the other one goes on only if it was alone from the start.
                (Some(_), None) if !holds(&merged, Source::Sessions) => self.users.take(),
                (None, Some(_)) if !holds(&merged, Source::Users) => self.sessions.take(),
                (Some(_) | None, _) => None,
            };
            let Some(first) = first else { break };
            merged.push(first);
        }
        merged
    }
}

/// Whether the log has an event of a user after a position.
async fn is_more(users: &EventLog, position: Position) -> Result<bool, FeedError> {
    Ok(users.next(subjects::USER_EVENTS_FILTER, position).await?.is_some())
}

fn holds(messages: &[Read], from: Source) -> bool {
    messages.iter().any(|message| message.from == from)
}
