//! Which generations there are, how far each is, and what may be announced of them.
//!
//! Every generation that exists has followers of its own, each with a checkpoint. What is announced is the
//! position of the one that is farthest behind among those that are read, or will be next. That holds across a
//! switch, because a follower asks which generations there are after it has written a batch and before the batch
//! counts as announced: who does not see yet that a generation joins announces what the log had before it
//! joined, and the switch waits until the generation has that (ADR 16).

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

/// How often it is asked which generations there are when nothing happens.
pub const LOOK_EVERY: Duration = HEARTBEAT;
/// Silence of a follower after which nothing is announced that it must have: two heartbeats and some.
const SILENT_AFTER: Duration = Duration::from_millis(2_500);

/// What a stream of the log leads to in a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Documents and history of users.
    Users,
    /// What the documents of users have out of the log of sessions.
    Logins,
    /// Documents of sessions.
    Sessions,
}

impl View {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Users, Self::Logins, Self::Sessions];

    /// What it is a part of.
    #[must_use]
    pub const fn set(self) -> ViewSet {
        match self {
            Self::Users | Self::Logins => ViewSet::Users,
            Self::Sessions => ViewSet::Sessions,
        }
    }

    /// The stream it is made from.
    #[must_use]
    pub const fn stream(self) -> &'static str {
        match self {
            Self::Users => subjects::USERS_STREAM,
            Self::Logins | Self::Sessions => subjects::SESSIONS_STREAM,
        }
    }

    /// What of the stream is read. The first are the events, by which the age of what is missing is told.
    #[must_use]
    pub const fn filters(self) -> &'static [&'static str] {
        match self {
            Self::Users => &[subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER],
            Self::Logins | Self::Sessions => &[subjects::SESSION_EVENTS_FILTER],
        }
    }

    /// Its checkpoint in the database.
    #[must_use]
    pub fn checkpoint(self, generation: u32) -> String {
        match self {
            Self::Users => users_checkpoint(generation),
            Self::Logins => logins_checkpoint(generation),
            Self::Sessions => sessions_checkpoint(generation),
        }
    }
}

/// A view of a generation.
pub type Of = (View, u32);

/// What is known of all followers of this process. Cheap to clone.
#[derive(Clone)]
pub struct FollowerRegistry(Arc<Inner>);

struct Inner {
    views: Views,
    users: Announcer,
    sessions: Announcer,
    known: watch::Sender<Option<Generations>>,
    followers: Mutex<BTreeMap<Of, Known>>,
    metrics: [(ViewSet, GenerationMetrics); 2],
    /// Why the last look at the generations failed.
    trouble: Mutex<Option<String>>,
}

#[derive(Default)]
struct Known {
    progress: Progress<Position>,
    /// What it has, and when it last said so.
    sign: Option<(Position, Instant)>,
}

impl FollowerRegistry {
    /// Nothing is known yet.
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

    /// Asks which generations there are.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn look(&self) -> Result<Generations, mongodb::error::Error> {
        let generations = self.0.views.generations().await?;
        self.learn(&generations);
        Ok(generations)
    }

    /// Takes in what was read. Two may read at once, and the later version is the one that counts.
    pub fn learn(&self, read: &Generations) {
        self.0.known.send_if_modified(|known| {
            let is_new = known.as_ref().is_none_or(|known| known.version() < read.version());
            if is_new {
                *known = Some(read.clone());
            }
            is_new
        });
        for (set, metrics) in &self.0.metrics {
            metrics.is_live(self.known().map_or(0, |known| known.of(*set).live));
        }
    }

    fn known(&self) -> Option<Generations> {
        self.0.known.borrow().clone()
    }

    fn asks(&self, of: Of, question: impl Fn(&views::ViewSetState, u32) -> bool) -> bool {
        let known = self.0.known.borrow();
        known.as_ref().is_some_and(|known| question(known.of(of.0.set()), of.1))
    }

    /// Whether a generation is there, as far as is known.
    pub fn is_there(&self, of: Of) -> bool {
        self.asks(of, |there, number| there.all().any(|one| one == number))
    }

    /// The one that is read, as far as is known.
    pub fn live(&self, set: ViewSet) -> Option<u32> {
        self.0.known.borrow().as_ref().map(|known| known.of(set).live)
    }

    /// Whether it is the one that is read.
    pub fn is_live(&self, of: Of) -> bool {
        self.asks(of, |there, number| there.live == number)
    }

    /// Whether it is a new one that nobody waits for.
    pub fn is_filling(&self, of: Of) -> bool {
        self.asks(of, |there, number| there.is(number, Phase::Filling))
    }

    /// What readiness looks at for a follower that begins.
    pub fn begins(&self, of: Of) -> Progress<Position> {
        self.followers().entry(of).or_default().progress.clone()
    }

    /// A generation is gone.
    pub fn ended(&self, of: Of) {
        self.followers().remove(&of);
    }

    /// The views of a generation have a position. It is called when the generations were read after those views
    /// were written, and again as a sign of life.
    pub fn reached(&self, of: Of, position: Position) {
        if let Some(known) = self.followers().get_mut(&of) {
            known.sign = Some((position, Instant::now()));
        }
    }

    /// Announces what everything has that is read from the stream of a view, or will be next. While one of those
    /// is silent nothing is said, and nobody waits for it.
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
        let signs = waited_for.iter().map(|of| {
            let (position, at) = followers.get(of)?.sign?;
            (at.elapsed() < SILENT_AFTER).then_some(position)
        });
        signs.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// The views from a stream that are read, or will be next; `None` while it is not known which those are.
    fn waited_for(&self, stream: &str) -> Option<Vec<Of>> {
        let known = self.known()?;
        let of_stream = View::ALL.into_iter().filter(|view| view.stream() == stream);
        let numbers = |view: View| {
            known.of(view.set()).waited_for().map(move |number| (view, number)).collect::<Vec<_>>()
        };
        Some(of_stream.flat_map(numbers).collect())
    }

    /// How far the views from a stream are that are read, or will be next.
    ///
    /// # Errors
    /// Why one of them stands still.
    pub fn standing(&self, stream: &str) -> Result<Position, String> {
        let unknown = || match &*self.trouble() {
            Some(trouble) => trouble.clone(),
            None => "the list of generations is not read yet".to_owned(),
        };
        let waited_for = self.waited_for(stream).ok_or_else(unknown)?;
        let followers = self.followers();
        let mut lowest = None;
        for of in waited_for {
            let Some(known) = followers.get(&of) else { return Err(unknown()) };
            if let Some(trouble) = known.progress.trouble() {
                let (view, number) = of;
                return Err(match self.is_live(of) {
                    true => trouble,
                    false => format!("generation {number} of the {}: {trouble}", view.set()),
                });
            }
            let position = known.progress.position();
            lowest = Some(lowest.map_or(position, |lowest: Position| lowest.min(position)));
        }
        lowest.ok_or_else(unknown)
    }

    /// How many aggregates are parked in the views from a stream that are read, or will be next: in the one of them
    /// that has the most.
    pub fn parked(&self, stream: &str) -> usize {
        let waited_for = self.waited_for(stream).unwrap_or_default();
        let followers = self.followers();
        let parked = waited_for.iter().filter_map(|of| Some(followers.get(of)?.progress.parked()));
        parked.max().unwrap_or(0)
    }

    /// Remembers why a look at the generations failed, or that it did not.
    pub fn looked(&self, trouble: Option<String>) {
        *self.trouble() = trouble;
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn followers(&self) -> MutexGuard<'_, BTreeMap<Of, Known>> {
        self.0.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
