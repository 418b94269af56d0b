//! Both logs in one order.

use std::collections::VecDeque;
use std::time::Duration;

use events::{Position, subjects};
use futures::StreamExt;
use futures::stream::{BoxStream, ReadyChunks};
use service_kit::event_log::{EventLog, FollowError, Followed, Start};
use tokio::time::timeout;

use super::FeedError;

/// What of the log of users is read.
const USERS_FILTERS: [&str; 2] = [subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER];
/// What of the log of sessions is read.
const SESSIONS_FILTERS: [&str; 1] = [subjects::SESSION_EVENTS_FILTER];
/// How long an event that the log holds may take to come.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// Which log a message comes from.
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
    /// The one of that name.
    pub(super) fn of(stream: &str) -> Option<Self> {
        [Self::Users, Self::Sessions].into_iter().find(|source| source.stream() == stream)
    }

    /// The stream it is.
    pub(super) const fn stream(self) -> &'static str {
        match self {
            Self::Users => subjects::USERS_STREAM,
            Self::Sessions => subjects::SESSIONS_STREAM,
        }
    }
}

/// Both logs, read on from where the feed ends and put into one order.
pub(super) struct Reader<'a> {
    users: Side,
    sessions: Side,
    log: &'a EventLog,
}

/// One of the logs.
struct Side {
    from: Source,
    chunks: ReadyChunks<BoxStream<'static, Result<Followed, FollowError>>>,
    /// What has come and is not worked on yet.
    held: VecDeque<Followed>,
    /// Why nothing comes behind it.
    failure: Option<FollowError>,
    /// The last position that came.
    position: Position,
    /// How many there were behind it when it was sent.
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

    /// Waits until something has come. What came before a failure is worked on before it is reported.
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
    /// Reads on behind a position of each.
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

    /// How many messages there are to come.
    pub(super) const fn pending(&self) -> u64 {
        self.users.pending + self.sessions.pending
    }

    /// The next messages in order, at least one. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self, messages_max: usize) -> Result<Vec<Read>, FeedError> {
        loop {
            match (self.users.held.is_empty(), self.sessions.held.is_empty()) {
                (true, true) => tokio::select! {
                    filled = self.users.fill() => filled?,
                    filled = self.sessions.fill() => filled?,
                },
                // The backlog of sessions may hold what happened before.
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

    /// What can be published now: up to where one side runs dry.
    fn merged(&mut self, messages_max: usize) -> Vec<Read> {
        let mut merged = Vec::new();
        while merged.len() < messages_max {
            let first = match (self.users.held.front(), self.sessions.held.front()) {
                (Some(user), Some(session)) if user.stored_at <= session.stored_at => {
                    self.users.take()
                }
                (Some(_), Some(_)) => self.sessions.take(),
                // With one side dry, only what was alone from the beginning goes on.
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

/// Whether the log holds an event of a user behind a position.
async fn is_more(users: &EventLog, position: Position) -> Result<bool, FeedError> {
    Ok(users.next(subjects::USER_EVENTS_FILTER, position).await?.is_some())
}

fn holds(messages: &[Read], from: Source) -> bool {
    messages.iter().any(|message| message.from == from)
}
