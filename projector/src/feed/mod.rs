//! The feed: what other services are told, each event once and in order.
//!
//! It is written by whichever projector knows the end of it: every write is guarded by the last sequence of the
//! whole stream ([`EventLog::append_behind`]). Each message says in its headers up to which position of `USERS`
//! and of `SESSIONS` the feed tells everything, so the end of the feed is the checkpoint, and none has to be
//! kept anywhere else (ADR 14). After anything but an acknowledged write the end is read again, and what it
//! covers by then is not told a second time.
//!
//! # Order
//! Users and sessions are two streams, and one feed. What happened to one user, and what happened to one session,
//! comes in its order. Between the two the time of storing decides while there is a backlog, and at the end of
//! the log an event of a session waits until everything is told that happened to users before it.
//!
//! # Deletion
//! Nothing about a user comes after `users.v1.deleted`, so that erasing what is before it erases everything. A
//! login can race a deletion and store a session later than it. So the log is asked, with the events of a
//! session in hand, whether their user is gone; then they are not told. A deletion that is stored after that
//! question is told after them, since it is read later.

pub mod project;
mod reader;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use events::feed::{
    FEED_STREAM, FEED_STREAM_SUBJECTS, FeedEvent, SESSIONS_POSITION_HEADER, USERS_POSITION_HEADER,
};
use events::{DecodeError, Event, Position, SessionEvent, StoredRevocation, UserId, subjects};
use futures::{StreamExt, TryStreamExt, stream};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    EVENT_TYPE_HEADER, EventLog, FollowError, Followed, Limits, Outcome, ReadError,
    SEQUEL_MESSAGES_MAX, Sequel, Tail, feed_stream,
};
use service_kit::health::Readiness;
use service_kit::metrics::{Metrics, ProjectorMetrics};
use service_kit::watch::Watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::reader::{Read, Reader, Source};
use crate::run::StartError;
use crate::supervise::{Follower, Progress, age};

/// Members of one write: its bytes stay far below what a server takes in at once.
const WRITE_MESSAGES_MAX: usize = 500;
/// How often it is said that the feed follows the log when nothing happens.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Writes in a row that another writer was faster at.
const CONFLICTS_MAX: u32 = 100;
/// Users looked up at once.
const LOOK_UPS_AT_ONCE: usize = 16;
/// The type of the event after which nothing is told of a user.
const DELETED: &str = "user.deleted.v1";

/// Why a run ended; the next one starts from the end of the feed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("the event at position {0} of {1} cannot be read and nothing behind it is told: {2}")]
    Poison(Position, &'static str, DecodeError),
    #[error("an event that the log of users holds does not come")]
    Missing,
    #[error("the feed is full: raise feed.bytes_max and run `roster provision`")]
    Full,
    #[error("the feed takes nothing in: {0:?}")]
    Refused(Outcome),
    #[error("a message of the feed does not say how far it tells")]
    NoPosition,
    #[error(
        "the feed tells up to {feed} of {stream} and the log ends at {log}: they do not belong together"
    )]
    LogBehindFeed { stream: &'static str, feed: Position, log: Position },
    #[error("the feed has become shorter: it ended at {before} and ends at {now}")]
    Shortened { before: Position, now: Position },
    #[error("another writer is faster every time")]
    Overtaken,
}

/// How far the feed tells of each stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Position in `USERS`.
    users: Position,
    /// Position in `SESSIONS`.
    sessions: Position,
}

impl Told {
    fn of(tail: &Tail) -> Result<Self, FeedError> {
        let Some(last) = &tail.last else { return Ok(Self::default()) };
        let position = |name| {
            let value = last.header(name).and_then(|value| value.parse().ok());
            value.map(Position).ok_or(FeedError::NoPosition)
        };
        Ok(Self {
            users: position(USERS_POSITION_HEADER)?,
            sessions: position(SESSIONS_POSITION_HEADER)?,
        })
    }

    fn covers(&self, message: &Read) -> bool {
        match message.from {
            Source::Users => message.followed.position <= self.users,
            Source::Sessions => message.followed.position <= self.sessions,
        }
    }

    fn and(&mut self, message: &Read) {
        match message.from {
            Source::Users => self.users = self.users.max(message.followed.position),
            Source::Sessions => self.sessions = self.sessions.max(message.followed.position),
        }
    }

    fn max(self, other: Self) -> Self {
        Self { users: self.users.max(other.users), sessions: self.sessions.max(other.sessions) }
    }
}

/// What a batch leads to.
struct Ahead {
    messages: Vec<Sequel>,
    /// How far the feed tells after them.
    told: Told,
    /// Why nothing behind them can be told, if so.
    poison: Option<FeedError>,
}

/// The writer of the feed.
pub(crate) struct Feed {
    users: EventLog,
    sessions: EventLog,
    feed: EventLog,
    sessions_kept: Duration,
    batch_max: usize,
    lag_max: Duration,
    progress: Progress<Told>,
    metrics: ProjectorMetrics,
}

impl Feed {
    /// Checks the stream of the feed. Those of the log are checked by the views.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub(crate) async fn open(
        client: &async_nats::Client,
        settings: &Settings,
        watch: &Watch,
    ) -> Result<Self, StartError> {
        let log = |stream| EventLog::new(client.clone(), stream, Limits::of(settings));
        let feed = log(FEED_STREAM).watched(&watch.metrics);
        feed.verify(&feed_stream(&settings.log, &settings.feed)).await?;
        feed.watch_room(&watch.metrics);
        let writer = Self {
            users: log(subjects::USERS_STREAM),
            sessions: log(subjects::SESSIONS_STREAM),
            feed,
            sessions_kept: Duration::from_secs(settings.feed.sessions_kept_s),
            batch_max: settings
                .projector
                .batch_events_max
                .min(WRITE_MESSAGES_MAX)
                .min(SEQUEL_MESSAGES_MAX),
            lag_max: Duration::from_millis(settings.projector.lag_max_ms),
            progress: Progress::default(),
            metrics: watch.metrics.projector(FEED_STREAM),
        };
        writer.watch(&watch.metrics);
        Ok(writer)
    }

    /// Lets every scrape see how old the oldest event is that is not told yet.
    fn watch(&self, metrics: &Metrics) {
        let (progress, users, sessions) =
            (self.progress.clone(), self.users.clone(), self.sessions.clone());
        let watched = self.metrics.clone();
        metrics.sample(move || {
            let (told, users, sessions) = (progress.position(), users.clone(), sessions.clone());
            let watched = watched.clone();
            async move {
                // A log that does not answer is told by what it is asked for, not here.
                if let Ok(age) = age_of_untold(&users, &sessions, told).await {
                    watched.lags(age);
                }
            }
        });
    }

    /// What must hold for other services to be told in time.
    #[must_use]
    pub(crate) fn check(&self, readiness: Readiness) -> Readiness {
        let (progress, lag_max) = (self.progress.clone(), self.lag_max);
        let (users, sessions) = (self.users.clone(), self.sessions.clone());
        readiness.with("projector-feed", move || {
            let (progress, users, sessions) = (progress.clone(), users.clone(), sessions.clone());
            async move {
                if let Some(trouble) = progress.trouble() {
                    return Err(trouble);
                }
                let lag = age_of_untold(&users, &sessions, progress.position()).await;
                let lag = lag.map_err(|error| error.to_string())?;
                if lag <= lag_max {
                    return Ok(());
                }
                Err(format!("the feed is {} s behind the log", lag.as_secs()))
            }
        })
    }

    /// Tells what a batch of the logs leads to, and only what is not told yet.
    async fn tell(
        &self,
        mut batch: Vec<Read>,
        end: &mut Position,
        told: &mut Told,
    ) -> Result<(), FeedError> {
        for _ in 0..CONFLICTS_MAX {
            batch.retain(|message| !told.covers(message));
            // Anew each time: a user may have been deleted since, and told to be.
            let Ahead { messages, told: after, poison } = self.messages(&batch, *told).await?;
            let outcome = match messages.is_empty() {
                true => Outcome::Stored(*end),
                false => self.feed.append_behind(*end, &messages).await,
            };
            match outcome {
                Outcome::Stored(position) => {
                    (*end, *told) = (position, after);
                    return poison.map_or(Ok(()), Err);
                }
                Outcome::Full => return Err(FeedError::Full),
                refused @ Outcome::Refused(..) => return Err(FeedError::Refused(refused)),
                // Somebody else wrote, or nobody knows: the end of the feed does.
                Outcome::Conflict
                | Outcome::Duplicate
                | Outcome::Unknown
                | Outcome::Unavailable => {
                    let tail = self.feed.tail(&FEED_STREAM_SUBJECTS).await?;
                    if tail.end < *end {
                        return Err(FeedError::Shortened { before: *end, now: tail.end });
                    }
                    // What leads to no message is known to this process alone.
                    *told = told.max(Told::of(&tail)?);
                    *end = tail.end;
                }
            }
        }
        Err(FeedError::Overtaken)
    }

    /// What a batch leads to. What comes before an event that cannot be read is told before that is reported.
    async fn messages(&self, batch: &[Read], mut told: Told) -> Result<Ahead, FeedError> {
        let mut events = Vec::with_capacity(batch.len());
        let mut poison = None;
        for message in batch {
            match read(message) {
                Ok(event) => events.push(event),
                Err(error) => {
                    poison = Some(error);
                    break;
                }
            }
        }
        let of_sessions = events.iter().flatten().filter(|event| is_of_a_session(event));
        let gone = self.gone(of_sessions.filter_map(|event| event.happened.user_id())).await?;
        let now = ambient::now();
        let mut messages = Vec::with_capacity(events.len());
        for (message, event) in batch.iter().zip(events) {
            told.and(message);
            let Some(event) = event else { continue };
            let is_gone = event.happened.user_id().is_some_and(|user| gone.contains(&user));
            if is_of_a_session(&event) && is_gone {
                continue;
            }
            let Some(subject) = event.nats_subject() else { continue };
            let mut kept = None;
            if subject.starts_with("sessions.") {
                let left = self.sessions_kept.checked_sub(age(Some(event.time), now));
                // Its time is over before it is told: whoever comes now has no use for it.
                let Some(left) = left.filter(|left| left.as_secs() > 0) else { continue };
                kept = Some(left);
            }
            messages.push(sequel(subject, &event, told, kept).map_err(|error| {
                let (position, stream) = (message.followed.position, message.from.stream());
                FeedError::Poison(position, stream, error.into())
            })?);
        }
        Ok(Ahead { messages, told, poison })
    }

    /// Those of some users who are deleted, as the log says now.
    async fn gone(
        &self,
        users: impl Iterator<Item = UserId>,
    ) -> Result<HashSet<UserId>, FeedError> {
        let users: HashSet<UserId> = users.collect();
        let look_up = async |user: UserId| {
            let last = self.users.last(&subjects::user_events(user)).await?;
            let kind = last.and_then(|last| last.header(EVENT_TYPE_HEADER));
            // Whose log is empty never was a user, and nothing is told of them either.
            Ok::<_, FeedError>((user, kind.is_none_or(|kind| kind == DELETED)))
        };
        let found: HashMap<UserId, bool> = stream::iter(users)
            .map(look_up)
            .buffer_unordered(LOOK_UPS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(found.into_iter().filter_map(|(user, gone)| gone.then_some(user)).collect())
    }
}

impl Follower for Feed {
    type Position = Told;
    type Error = FeedError;

    fn stream(&self) -> &'static str {
        FEED_STREAM
    }

    fn progress(&self) -> &Progress<Told> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), FeedError> {
        let tail = self.feed.tail(&FEED_STREAM_SUBJECTS).await?;
        let mut told = Told::of(&tail)?;
        let mut end = tail.end;
        for (stream, feed, log) in [
            (subjects::USERS_STREAM, told.users, self.users.end().await?),
            (subjects::SESSIONS_STREAM, told.sessions, self.sessions.end().await?),
        ] {
            if log < feed {
                return Err(FeedError::LogBehindFeed { stream, feed, log });
            }
        }
        let mut reader = Reader::open(
            (&self.users, told.users),
            (&self.sessions, told.sessions),
            self.batch_max,
        )
        .await?;
        tracing::info!(stream = FEED_STREAM, %end, "the projector follows the log");
        // With something to tell it is not well before that is told: the feed may be full.
        if reader.pending() == 0 {
            self.progress.reached(told);
        }
        self.metrics.follows(end, reader.pending());
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let batch = tokio::select! {
                _ = heartbeat.tick() => continue,
                batch = reader.next(self.batch_max) => batch?,
            };
            let (began, events) = (Instant::now(), batch.len() as u64);
            self.tell(batch, &mut end, &mut told).await?;
            self.metrics.wrote(events, began.elapsed());
            self.metrics.follows(end, reader.pending());
            self.progress.reached(told);
        }
    }
}

/// The event of a message, if it leads to one.
fn read(message: &Read) -> Result<Option<FeedEvent>, FeedError> {
    let Followed { subject, position, stored_at, payload, .. } = &message.followed;
    let event = match (message.from, subject.strip_prefix("rv.user.")) {
        (Source::Users, None) => Event::from_json(payload)
            .and_then(|event| project::of_user(&event, *position))
            .map(Some),
        (Source::Users, Some(user)) => user
            .parse()
            .map_err(|_| DecodeError::Inconsistent("the subject names nobody"))
            .and_then(|user| {
                let stored: StoredRevocation = serde_json::from_slice(payload)?;
                Ok(project::of_revocation(user, &stored, *position, *stored_at))
            }),
        (Source::Sessions, _) => {
            SessionEvent::from_json(payload).map(|event| project::of_session(&event, *position))
        }
    };
    event.map_err(|error| FeedError::Poison(*position, message.from.stream(), error))
}

/// Whether it comes from the log of sessions. The end of all sessions of a user does not.
const fn is_of_a_session(event: &FeedEvent) -> bool {
    event.happened.session_id().is_some()
}

fn sequel(
    subject: String,
    event: &FeedEvent,
    told: Told,
    kept: Option<Duration>,
) -> Result<Sequel, serde_json::Error> {
    let mut headers = vec![
        (EVENT_TYPE_HEADER, event.happened.kind().to_owned()),
        (USERS_POSITION_HEADER, told.users.to_string()),
        (SESSIONS_POSITION_HEADER, told.sessions.to_string()),
    ];
    // Where the conventions of OpenTelemetry look for it.
    headers.extend(event.traceparent.clone().map(|trace| ("traceparent", trace)));
    Ok(Sequel { subject, payload: event.to_json()?.into(), headers, kept })
}

/// Age of the oldest event that is not told.
async fn age_of_untold(
    users: &EventLog,
    sessions: &EventLog,
    told: Told,
) -> Result<Duration, ReadError> {
    let now = ambient::now();
    let user = users.next(subjects::USER_EVENTS_FILTER, told.users).await?;
    let session = sessions.next(subjects::SESSION_EVENTS_FILTER, told.sessions).await?;
    let age = |stored: Option<service_kit::event_log::Stored>| {
        age(stored.map(|stored| stored.stored_at), now)
    };
    Ok(age(user).max(age(session)))
}
