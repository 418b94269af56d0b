//! The consistency checker: it compares one user after the other, continuously, in the log, the views and the feed.
//!
//! Users are taken from the log, which reveals missing documents, and from the views, which reveals documents without
//! an event. Nothing is changed. A difference is compared again after a pause, so that only differences that remain are
//! counted. `roster verify` compares everything at once, including the claims, for which the projector does not have
//! the key.

use std::time::Duration;

use events::feed::{FEED_STREAM, FeedEvent};
use events::{Event, Position, Snapshot, UserFact, UserId, UserState, subjects};
use futures::TryStreamExt;
use mongodb::bson::{Uuid, doc};
use mongodb::error::Error;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, ReadError};
use service_kit::metrics::{CheckMetrics, Metrics};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use view_kit::DatabaseError;
use views::{SessionDocument, UserDocument, ViewSet, Views, user_key};

use crate::feed::is_published_through;
use crate::generations::{FollowerRegistry, View};
use crate::read;

/// The most events of one user that are folded; longer histories are not checked.
const EVENTS_MAX: usize = 1_000;
/// The most sessions of one user that are compared.
const SESSIONS_MAX: i64 = 50;
/// Time for views and feed to catch up with what was stored during a comparison.
const SETTLE: Duration = Duration::from_secs(3);
/// Time limit for one user.
const ONE_MAX: Duration = Duration::from_secs(30);

/// Where something differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Where {
    Log,
    UserView,
    SessionView,
    Feed,
}

impl Where {
    const ALL: [Self; 4] = [Self::Log, Self::UserView, Self::SessionView, Self::Feed];

    const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::UserView => "user-view",
            Self::SessionView => "session-view",
            Self::Feed => "feed",
        }
    }
}

/// A difference and the position at which it was found.
type Difference = (Where, Position);

/// A user could not be checked; the next round tries again.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Database(DatabaseError),
}

impl From<Error> for CheckError {
    fn from(error: Error) -> Self {
        Self::Database(error.into())
    }
}

/// Compares users, slowly.
pub(crate) struct Checker {
    users: EventLog,
    sessions: EventLog,
    feed: EventLog,
    views: Views,
    registry: FollowerRegistry,
    pause: Duration,
    metrics: CheckMetrics,
}

impl Checker {
    /// `None` when the checker is switched off. Opens no connection.
    pub(crate) fn new(
        client: &async_nats::Client,
        settings: &Settings,
        views: &Views,
        registry: &FollowerRegistry,
        metrics: &Metrics,
    ) -> Option<Self> {
        let pause = Duration::from_millis(settings.projector.check_pause_ms);
        let log = |stream| EventLog::new(client.clone(), stream, Limits::of(settings));
        (!pause.is_zero()).then(|| Self {
            users: log(subjects::USERS_STREAM),
            sessions: log(subjects::SESSIONS_STREAM),
            feed: log(FEED_STREAM),
            views: views.clone(),
            registry: registry.clone(),
            pause,
            metrics: metrics.checks(&Where::ALL.map(Where::name)),
        })
    }

    /// Checks all users again and again until `stop`.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let (mut behind, mut last) = (Position(0), None);
        let mut ticks = interval(self.pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let looking = async {
                let mut users = Vec::new();
                users.extend(self.next_in_log(&mut behind).await?);
                users.extend(self.next_in_views(&mut last).await?);
                for user in users {
                    self.compare(user).await?;
                }
                Ok::<_, CheckError>(())
            };
            let looked = tokio::select! {
                () = stop.cancelled() => return,
                looked = timeout(ONE_MAX, looking) => looked,
            };
            if let Ok(Err(error)) = looked {
                tracing::debug!(%error, "a user could not be checked");
            }
        }
    }

    /// The user of the next event in the log that is the last event of its user.
    async fn next_in_log(&self, behind: &mut Position) -> Result<Option<UserId>, ReadError> {
        let Some(next) = self.users.next(subjects::USER_EVENTS_FILTER, *behind).await? else {
            *behind = Position(0);
            return Ok(None);
        };
        *behind = next.position;
        let user = subjects::aggregate(&next.subject).parse().ok();
        if next.is_foreign() {
            return Ok(None);
        }
        let is_last = self.users.last(&next.subject).await?;
        Ok(user.filter(|_| is_last.is_some_and(|last| last.position == next.position)))
    }

    /// The next user in the views.
    async fn next_in_views(&self, last: &mut Option<Uuid>) -> Result<Option<UserId>, Error> {
        let Some(live) = self.live(ViewSet::Users) else { return Ok(None) };
        // A document without a position holds only data from sessions and revocations.
        let filter = match *last {
            Some(last) => doc! {"_id": {"$gt": last}, "position": {"$gte": 0}},
            None => doc! {"position": {"$gte": 0}},
        };
        let found = self.views.users(live).find_one(filter).sort(doc! {"_id": 1}).await?;
        *last = found.map(|found| found.id);
        Ok(last.map(|id| UserId::from_uuid(uuid::Uuid::from_bytes(id.bytes()))))
    }

    fn live(&self, set: ViewSet) -> Option<u32> {
        self.registry.live(set)
    }

    /// Compares one user, and compares again what differs.
    async fn compare(&self, user: UserId) -> Result<(), CheckError> {
        let mut found = self.differences(user).await?;
        if !found.is_empty() {
            sleep(SETTLE).await;
            let again = self.differences(user).await?;
            found.retain(|difference| again.contains(difference));
        }
        for (place, position) in found {
            let place = place.name();
            tracing::error!(%user, %position, place, "views or feed diverge from the log: run `roster verify`");
            self.metrics.differs(place);
        }
        self.metrics.checked();
        Ok(())
    }

    async fn differences(&self, user: UserId) -> Result<Vec<Difference>, CheckError> {
        let mut found = Vec::new();
        let Some(last) = self.users.last(&subjects::user_events(user)).await? else {
            if self.document(user).await?.is_some() {
                found.push((Where::UserView, Position(0)));
            }
            return Ok(found);
        };
        // An unreadable event is parked, and reported there.
        let Ok(event) = read::user_event(&last.subject, &last.payload) else { return Ok(found) };
        let position = last.position;
        if !self.folds(user, &event, position).await? {
            found.push((Where::Log, position));
        }
        if !self.is_shown(user, &event, position).await? {
            found.push((Where::UserView, position));
        }
        if !self.is_published(user, position).await? {
            found.push((Where::Feed, position));
        }
        if matches!(event.after, Snapshot::Present(_)) {
            found.extend(self.sessions_that_differ(user).await?);
        }
        Ok(found)
    }

    /// Whether folding the changes of a user gives the state that the last event carries.
    async fn folds(&self, user: UserId, last: &Event, at: Position) -> Result<bool, ReadError> {
        // Events before a deletion are erased.
        if last.fact == UserFact::Deleted {
            return Ok(true);
        }
        let subject = [subjects::user_events(user)];
        let messages = self.users.between(&subject, Position(0), at, EVENTS_MAX).await?;
        if messages.len() == EVENTS_MAX {
            return Ok(true);
        }
        let mut state = UserState::Absent;
        for message in &messages {
            let Ok(event) = read::user_event(&message.subject, &message.payload) else {
                return Ok(true);
            };
            let Ok(next) = state.evolve(user, &event.fact, event.time) else { return Ok(false) };
            state = next;
        }
        Ok(state.snapshot().as_ref() == Some(&last.after))
    }

    async fn document(&self, user: UserId) -> Result<Option<UserDocument>, Error> {
        let Some(live) = self.live(ViewSet::Users) else { return Ok(None) };
        let filter = doc! {"_id": user_key(user), "position": {"$gte": 0}};
        self.views.users(live).find_one(filter).await
    }

    /// Whether the views show the state after an event, or are not expected to yet.
    async fn is_shown(
        &self,
        user: UserId,
        event: &Event,
        position: Position,
    ) -> Result<bool, CheckError> {
        if !self.has_reached(View::Users, position) {
            return Ok(true);
        }
        let expected = UserDocument::project(&event.after, position);
        // Logins and cutoffs are guarded separately: the position of the state says nothing about them.
        Ok(self.document(user).await?.is_some_and(|found| {
            UserDocument { last_login_at: None, cutoff: None, ..found } == expected
        }))
    }

    /// Whether the last event of a user is the last one in the feed, or the feed is not that far yet.
    async fn is_published(&self, user: UserId, position: Position) -> Result<bool, ReadError> {
        if !is_published_through(&self.feed, position).await? {
            return Ok(true);
        }
        let Some(published) = self.feed.last(&format!("users.v1.*.{user}")).await? else {
            return Ok(false);
        };
        Ok(FeedEvent::from_json(&published.payload).is_ok_and(|event| event.position == position))
    }

    async fn sessions_that_differ(&self, user: UserId) -> Result<Vec<Difference>, CheckError> {
        let Some(live) = self.live(ViewSet::Sessions) else { return Ok(Vec::new()) };
        let sessions = self.views.sessions(live);
        let documents = sessions.find(doc! {"user_id": user_key(user)}).limit(SESSIONS_MAX);
        let documents: Vec<SessionDocument> = documents.await?.try_collect().await?;
        let mut found = Vec::new();
        for document in documents {
            let id = uuid::Uuid::from_bytes(document.id.bytes());
            let session = events::SessionId::from_uuid(id);
            let subject = subjects::session_events(user, session);
            // The log drops old sessions first.
            let Some(last) = self.sessions.last(&subject).await? else { continue };
            let Ok(event) = read::session_event(&last.subject, &last.payload) else { continue };
            let is_shown = SessionDocument::project(&event.after, last.position) == document;
            if !is_shown && self.has_reached(View::Sessions, last.position) {
                found.push((Where::SessionView, last.position));
            }
        }
        Ok(found)
    }

    /// Whether the live views must have a position: they have reached it, and nothing is parked.
    fn has_reached(&self, view: View, position: Position) -> bool {
        let lowest_position = self.registry.lowest_position(view.stream());
        self.registry.parked(view.stream()) == 0 && lowest_position.is_ok_and(|has| has >= position)
    }
}
