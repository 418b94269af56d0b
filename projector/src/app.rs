//! Puts the projector together, and keeps a follower for each view of each generation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use events::subjects::PARKED_RETRY;
use mongodb::error::Error;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, sessions_stream, users_stream};
use service_kit::health::Readiness;
use service_kit::metrics::{Metrics, ProjectorMetrics};
use service_kit::nats;
use service_kit::telemetry::Telemetry;
use service_kit::trace::Tracer;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use view_kit::{
    FollowLimits, OpenError, Projection, Retries, RetryRequests, RunError, age_of_missing,
    describe, keeps_up, none_parked, supervised,
};
use views::Views;

use crate::checker::Checker;
use crate::feed::Feed;
use crate::fold::{IntoView, Logins, Sessions, Users};
use crate::generations::{FollowerRegistry, LOOK_EVERY, Of, View};
use crate::store::adopt_logins;
use crate::target::InGeneration;

/// The name of this service towards NATS.
pub const SERVICE: &str = "projector";
/// How often it is looked whether something was written into a generation that is gone.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Where an operator sees what is parked.
pub(crate) const PARKED_LIST: &str = "`roster parked list`";

/// The projector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// The event log is not as it must be.
    #[error(transparent)]
    Log(#[from] service_kit::event_log::ProvisionError),
    /// Nobody would hear that what is parked is to be tried again.
    #[error(transparent)]
    Subscribe(#[from] async_nats::SubscribeError),
    /// The database of the views cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
}

/// A projector that is ready to run: the views of each generation, and the feed.
pub struct App {
    users: Source,
    sessions: Source,
    views: Views,
    board: FollowerRegistry,
    limits: FollowLimits,
    tracer: Tracer,
    feed: Feed,
    checker: Option<Checker>,
    wishes: RetryRequests,
    retries: Retries,
}

/// A stream of the log.
#[derive(Clone)]
struct Source {
    log: EventLog,
    metrics: ProjectorMetrics,
}

impl App {
    /// Connects and checks the log. The database may come later.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn build(settings: &Settings, watch: &Telemetry) -> Result<Self, StartError> {
        let client = nats::connect(&settings.nats, SERVICE).await?;
        let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;
        let (users, sessions) =
            (users_stream(&settings.log), sessions_stream(&settings.log, &settings.sessions));
        let open = async |view: View, spec| {
            let log = EventLog::new(client.clone(), view.stream(), Limits::of(settings))
                .reporting(&watch.metrics);
            log.verify(spec).await?;
            log.watch_room(&watch.metrics);
            let metrics = watch.metrics.projector(view.stream());
            Ok::<_, StartError>(Source { log, metrics })
        };
        let wishes = RetryRequests::listen(&client, PARKED_RETRY).await?;
        let board = FollowerRegistry::new(&client, views.clone(), &watch.metrics);
        let app = Self {
            users: open(View::Users, &users).await?,
            sessions: open(View::Sessions, &sessions).await?,
            checker: Checker::new(&client, settings, &views, &board, &watch.metrics),
            board,
            views,
            limits: FollowLimits {
                batch_events_max: settings.projector.batch_events_max,
                parked_max: settings.projector.parked_max,
                operation_timeout: Duration::from_millis(settings.mongodb.operation_timeout_ms),
                lag_max: Duration::from_millis(settings.projector.lag_max_ms),
            },
            tracer: watch.tracer.clone(),
            feed: Feed::open(&client, settings, watch, wishes.heard()).await?,
            retries: wishes.heard(),
            wishes,
        };
        for view in [View::Users, View::Sessions] {
            app.watch(view, &watch.metrics);
        }
        Ok(app)
    }

    const fn source(&self, view: View) -> &Source {
        match view {
            View::Users => &self.users,
            View::Logins | View::Sessions => &self.sessions,
        }
    }

    /// Lets every scrape see how old the oldest event is that the views lack.
    fn watch(&self, view: View, metrics: &Metrics) {
        let (board, source) = (self.board.clone(), self.source(view).clone());
        metrics.sample(move || {
            let (standing, source) = (board.standing(view.stream()), source.clone());
            async move {
                // A log that does not answer is told by what it is asked for, not here.
                if let Ok(position) = standing
                    && let Ok(age) = age_of_missing(&source.log, view.filters(), position).await
                {
                    source.metrics.lags(age);
                }
            }
        });
    }

    /// What must hold for the views to follow the log: nothing stands still that is read, and the oldest event
    /// that it lacks is not too old. A generation that is being filled has its time.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let readiness = self.check(Readiness::default(), "projector-users", View::Users);
        self.feed.check(self.check(readiness, "projector-sessions", View::Sessions))
    }

    fn check(&self, readiness: Readiness, name: &'static str, view: View) -> Readiness {
        let (board, lag_max) = (self.board.clone(), self.limits.lag_max);
        let log = self.source(view).log.clone();
        readiness.with(name, move || {
            let (standing, log) = (board.standing(view.stream()), log.clone());
            let parked = board.parked(view.stream());
            async move {
                keeps_up(&log, view.filters(), standing?, lag_max).await?;
                none_parked(parked, PARKED_LIST)
            }
        })
    }

    /// Runs until `stop`. Whatever fails is tried again, from the checkpoint.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            self.follow(&stop),
            supervised(&self.feed, &stop),
            self.wishes.run(&stop),
            self.check_slowly(&stop),
        );
        self.users.log.disconnect().await;
    }

    async fn check_slowly(&self, stop: &CancellationToken) {
        if let Some(checker) = &self.checker {
            checker.run(stop).await;
        }
    }

    /// Keeps a follower for each view of each generation that there is.
    async fn follow(&self, stop: &CancellationToken) {
        let followers = TaskTracker::new();
        let mut running = BTreeMap::new();
        let mut swept = None;
        let mut is_silent = false;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let looking = self.look(&followers, &mut running, &mut swept, stop);
            let looked = timeout(self.limits.operation_timeout, looking).await;
            let trouble = match looked {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(describe(&error)),
                Err(_) => Some(RunError::DatabaseTimeout.to_string()),
            };
            if let Some(error) = trouble.as_ref().filter(|_| !is_silent) {
                tracing::warn!(error, "cannot read the list of generations; retrying");
            }
            is_silent = trouble.is_some();
            self.board.looked(trouble);
        }
        followers.close();
        followers.wait().await;
    }

    async fn look(
        &self,
        followers: &TaskTracker,
        running: &mut BTreeMap<Of, JoinHandle<()>>,
        swept: &mut Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let generations = self.board.look().await?;
        let numbers =
            |view: View| generations.of(view.set()).all().map(move |number| (view, number));
        let wanted: BTreeSet<Of> = View::ALL.into_iter().flat_map(numbers).collect();
        if running.is_empty() {
            adopt_logins(&self.views, &generations).await?;
        }
        for of in &wanted {
            if !running.contains_key(of) {
                running.insert(*of, self.start(*of, followers, stop));
            }
        }
        // One whose generation is gone ends by itself, between two writes.
        let ended = |(of, task): (&Of, &JoinHandle<()>)| {
            (!wanted.contains(of) && task.is_finished()).then_some(*of)
        };
        let ended: Vec<Of> = running.iter().filter_map(ended).collect();
        for of in &ended {
            running.remove(of);
            self.board.ended(*of);
        }
        if !ended.is_empty() || swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
            for collection in self.views.sweep().await? {
                tracing::info!(collection, "what is left of a generation was dropped");
            }
            *swept = Some(Instant::now());
        }
        Ok(())
    }

    fn start(&self, of: Of, followers: &TaskTracker, stop: &CancellationToken) -> JoinHandle<()> {
        match of.0 {
            View::Users => self.start_one::<Users>(of, followers, stop),
            View::Logins => self.start_one::<Logins>(of, followers, stop),
            View::Sessions => self.start_one::<Sessions>(of, followers, stop),
        }
    }

    fn start_one<F: IntoView>(
        &self,
        of: Of,
        followers: &TaskTracker,
        stop: &CancellationToken,
    ) -> JoinHandle<()> {
        let (view, generation) = of;
        let Source { log, metrics } = self.source(view).clone();
        let (views, board) = (self.views.clone(), self.board.clone());
        let projection = Projection {
            log,
            target: Arc::new(InGeneration::<F>::new(views, generation, board)),
            limits: self.limits,
            progress: self.board.begins(of),
            metrics,
            tracer: self.tracer.clone(),
            retries: self.retries.clone(),
        };
        let stop = stop.clone();
        followers.spawn(async move { supervised(&projection, &stop).await })
    }
}
