//! The generations of views: which exist, how far each is, and which position may be announced.
//!
//! Every generation has its own followers, each with a checkpoint. The announced position is the lowest one among the
//! generations that queries read now or will read next. This holds across a switch, because a follower reads the list
//! of generations after it has written a batch and before the batch counts as announced. A projector that has not seen
//! yet that a generation joins can only announce positions that the log had before it joined, and the switch waits
//! until the generation has reached those (ADR 16).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{Position, subjects};
use service_kit::metrics::{GenerationMetrics, Metrics};
use service_kit::views_position::{Announcer, HEARTBEAT};
use tokio::sync::watch;
use tokio::time::Instant;
use view_kit::Progress;
use views::{
    Generations, Phase, ViewSet, Views, logins_checkpoint, sessions_checkpoint, users_checkpoint,
};

/// How often the list of generations is read when nothing happens.
pub const LOOK_EVERY: Duration = HEARTBEAT;
/// After this silence of a follower, no position is announced that it would have to have: two heartbeats and a margin.
const SILENT_AFTER: Duration = Duration::from_millis(2_500);

/// The part of a generation that is built from one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Documents and history of users.
    Users,
    /// The members of user documents that come from the log of sessions.
    Logins,
    /// Documents of sessions.
    Sessions,
}

impl View {
    /// All views.
    pub const ALL: [Self; 3] = [Self::Users, Self::Logins, Self::Sessions];

    /// The view set that it belongs to.
    #[must_use]
    pub const fn set(self) -> ViewSet {
        match self {
            Self::Users | Self::Logins => ViewSet::Users,
            Self::Sessions => ViewSet::Sessions,
        }
    }

    /// The stream that it is built from.
    #[must_use]
    pub const fn stream(self) -> &'static str {
        match self {
            Self::Users => subjects::USERS_STREAM,
            Self::Logins | Self::Sessions => subjects::SESSIONS_STREAM,
        }
    }

    /// The subjects that are read. The first one has the events, by which the lag is measured.
    #[must_use]
    pub const fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Users => &[subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER],
            Self::Logins | Self::Sessions => &[subjects::SESSION_EVENTS_FILTER],
        }
    }

    /// The name of its checkpoint in the database.
    #[must_use]
    pub fn checkpoint(self, generation: u32) -> String {
        match self {
            Self::Users => users_checkpoint(generation),
            Self::Logins => logins_checkpoint(generation),
            Self::Sessions => sessions_checkpoint(generation),
        }
    }
}

/// Key of a running projection: a view of a generation.
pub type ViewId = (View, u32);

/// The running projections of this process, by key. Cheap to clone.
#[derive(Clone)]
pub struct FollowerRegistry(Arc<Inner>);

struct Inner {
    views: Views,
    users: Announcer,
    sessions: Announcer,
    known: watch::Sender<Option<Generations>>,
    followers: Mutex<BTreeMap<ViewId, Known>>,
    metrics: [(ViewSet, GenerationMetrics); 2],
    /// Why the list of generations could not be read last time.
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Known {
    progress: Progress<Position>,
    /// The position that it reached, and when it last reported.
    sign: Option<(Position, Instant)>,
}

impl FollowerRegistry {
    /// An empty registry.
    pub fn new(client: &async_nats::Client, views: Views, metrics: &Metrics) -> Self {
        let announcer = |subject: &'static str| Announcer::new(client.clone(), subject);
        Self(Arc::new(Inner {
            views,
            users: announcer(subjects::USER_VIEWS_POSITION),
            sessions: announcer(subjects::SESSION_VIEWS_POSITION),
            known: watch::channel(None).0,
            followers: Mutex::default(),
            metrics: [
                (ViewSet::Users, metrics.generation("users")),
                (ViewSet::Sessions, metrics.generation("sessions")),
            ],
            trouble: Mutex::default(),
        }))
    }

    /// Reads the list of generations.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn look(&self) -> Result<Generations, mongodb::error::Error> {
        let generations = self.0.views.generations().await?;
        self.learn(&generations);
        Ok(generations)
    }

    /// Stores a list that was read. Two reads can overlap; the later version wins.
    pub fn learn(&self, read: &Generations) {
        self.0.known.send_if_modified(|known| {
            let is_new = known.as_ref().is_none_or(|known| known.version() < read.version());
            if is_new {
                *known = Some(read.clone());
            }
            is_new
        });
        for (set, metrics) in &self.0.metrics {
            metrics.is_live(self.known().map_or(0, |known| known.state(*set).live));
        }
    }

    fn known(&self) -> Option<Generations> {
        self.0.known.borrow().clone()
    }

    fn asks(&self, id: ViewId, question: impl Fn(&views::ViewSetState, u32) -> bool) -> bool {
        let known = self.0.known.borrow();
        known.as_ref().is_some_and(|known| question(known.state(id.0.set()), id.1))
    }

    /// Whether a generation exists, as far as is known.
    pub fn is_there(&self, id: ViewId) -> bool {
        self.asks(id, |there, number| there.all().any(|one| one == number))
    }

    /// The live generation of a set, as far as is known.
    pub fn live(&self, set: ViewSet) -> Option<u32> {
        self.0.known.borrow().as_ref().map(|known| known.state(set).live)
    }

    /// Whether a generation is live.
    pub fn is_live(&self, id: ViewId) -> bool {
        self.asks(id, |there, number| there.live == number)
    }

    /// Whether it is new and no command waits for it.
    pub fn is_filling(&self, id: ViewId) -> bool {
        self.asks(id, |there, number| there.is(number, Phase::Filling))
    }

    /// Registers a follower; readiness watches the returned progress.
    pub fn begins(&self, id: ViewId) -> Progress<Position> {
        self.followers().entry(id).or_default().progress.clone()
    }

    /// Unregisters the follower of a removed generation.
    pub fn ended(&self, id: ViewId) {
        self.followers().remove(&id);
    }

    /// Records that a follower reached a position. It is called after the generations were read again following a
    /// write, and periodically as a heartbeat.
    pub fn reached(&self, id: ViewId, position: Position) {
        if let Some(known) = self.followers().get_mut(&id) {
            known.sign = Some((position, Instant::now()));
        }
    }

    /// Announces the position that every generation has reached that is live or about to be. While one of them is
    /// silent nothing is announced, and no command waits.
    pub async fn announce(&self, view: View) {
        let announcer = match view {
            View::Users => &self.0.users,
            View::Logins | View::Sessions => &self.0.sessions,
        };
        if let Some(position) = self.lowest(view.stream()) {
            announcer.announce(position).await;
        }
    }

    fn lowest(&self, stream: &str) -> Option<Position> {
        let waited_for = self.waited_for(stream)?;
        let followers = self.followers();
        let signs = waited_for.iter().map(|id| {
            let (position, at) = followers.get(id)?.sign?;
            (at.elapsed() < SILENT_AFTER).then_some(position)
        });
        signs.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// The views on a stream that are read now or will be next; `None` while the generations are unknown.
    fn waited_for(&self, stream: &str) -> Option<Vec<ViewId>> {
        let known = self.known()?;
        let of_stream = View::ALL.into_iter().filter(|view| view.stream() == stream);
        let numbers = |view: View| {
            known
                .state(view.set())
                .waited_for()
                .map(move |number| (view, number))
                .collect::<Vec<_>>()
        };
        Some(of_stream.flat_map(numbers).collect())
    }

    /// The lowest position of the views on a stream that are read now or will be next.
    ///
    /// # Errors
    /// Why one of them has stopped.
    pub fn lowest_position(&self, stream: &str) -> Result<Position, String> {
        let unknown = || match &*self.trouble() {
            Some(trouble) => trouble.clone(),
            None => "the list of generations is not read yet".to_owned(),
        };
        let waited_for = self.waited_for(stream).ok_or_else(unknown)?;
        let followers = self.followers();
        let mut lowest = None;
        for id in waited_for {
            let Some(known) = followers.get(&id) else { return Err(unknown()) };
            if let Some(trouble) = known.progress.trouble() {
                let (view, number) = id;
                return Err(match self.is_live(id) {
                    true => trouble,
                    false => format!("generation {number} of the {}: {trouble}", view.set()),
                });
            }
            let position = known.progress.position();
            lowest = Some(lowest.map_or(position, |lowest: Position| lowest.min(position)));
        }
        lowest.ok_or_else(unknown)
    }

    /// The number of parked aggregates in the views on a stream that are read now or will be next; the largest one
    /// among generations.
    pub fn parked(&self, stream: &str) -> usize {
        let waited_for = self.waited_for(stream).unwrap_or_default();
        let followers = self.followers();
        let parked = waited_for.iter().filter_map(|id| Some(followers.get(id)?.progress.parked()));
        parked.max().unwrap_or(0)
    }

    /// Records why reading the list of generations failed, or that it succeeded.
    pub fn looked(&self, trouble: Option<String>) {
        *self.trouble() = trouble;
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<ViewId, Known>> {
        self.0.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
