//! Assembles the projector: one follower for each view of each generation, and the feed.

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
use view_kit::feed_publisher::FeedPublisher;
use view_kit::{
    FollowLimits, OpenError, Projection, Retries, RetryRequests, RunError, age_of_missing,
    describe, keeps_up, none_parked, supervised,
};
use views::Views;

use crate::checker::Checker;
use crate::feed::{self, UserFeedSource};
use crate::fold::{IntoView, Logins, Sessions, Users};
use crate::generations::{FollowerRegistry, LOOK_EVERY, View, ViewId};
use crate::store::adopt_logins;
use crate::target::InGeneration;

/// The name of this service towards NATS.
pub const SERVICE: &str = "projector";
/// How often leftovers of removed generations are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// The command that lists parked aggregates.
pub(crate) const PARKED_LIST: &str = "`roster parked list`";

/// The projector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// The event log is not provisioned as required.
    #[error(transparent)]
    Log(#[from] service_kit::event_log::ProvisionError),
    /// Requests to retry parked aggregates cannot be received.
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
    registry: FollowerRegistry,
    limits: FollowLimits,
    tracer: Tracer,
    feed: FeedPublisher<UserFeedSource>,
    checker: Option<Checker>,
    retry_requests: RetryRequests,
    retries: Retries,
}

/// A stream of the log.
#[derive(Clone)]
struct Source {
    log: EventLog,
    metrics: ProjectorMetrics,
}

impl App {
    /// Connects to NATS and checks the log. The database may become available later.
    ///
    /// # Errors
    /// [`StartError`]: nothing was started.
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
        let retry_requests = RetryRequests::listen(&client, PARKED_RETRY).await?;
        let registry = FollowerRegistry::new(&client, views.clone(), &watch.metrics);
        let limits = FollowLimits {
            batch_events_max: settings.projector.batch_events_max,
            parked_max: settings.projector.parked_max,
            operation_timeout: Duration::from_millis(settings.mongodb.operation_timeout_ms),
            lag_max: Duration::from_millis(settings.projector.lag_max_ms),
        };
        let retries = retry_requests.heard();
        let app = Self {
            users: open(View::Users, &users).await?,
            sessions: open(View::Sessions, &sessions).await?,
            checker: Checker::new(&client, settings, &views, &registry, &watch.metrics),
            registry,
            views,
            limits,
            tracer: watch.tracer.clone(),
            feed: feed::publisher(&client, settings, limits, retries.clone(), watch).await?,
            retries,
            retry_requests,
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

    /// Reports the age of the oldest event that the views lack, at every scrape of the metrics.
    fn watch(&self, view: View, metrics: &Metrics) {
        let (registry, source) = (self.registry.clone(), self.source(view).clone());
        metrics.sample(move || {
            let (lowest_position, source) =
                (registry.lowest_position(view.stream()), source.clone());
            async move {
                // A log that does not answer is reported where it is read, not here.
                if let Ok(position) = lowest_position
                    && let Ok(age) = age_of_missing(&source.log, view.filters(), position).await
                {
                    source.metrics.lags(age);
                }
            }
        });
    }

    /// Adds the readiness checks: no view that is read has stopped, and the oldest event that the views lack is not too
    /// old. A generation that is being filled is not checked.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let readiness = self.check(Readiness::default(), "projector-users", View::Users);
        self.check(readiness, "projector-sessions", View::Sessions).and(self.feed.readiness())
    }

    fn check(&self, readiness: Readiness, name: &'static str, view: View) -> Readiness {
        let (registry, lag_max) = (self.registry.clone(), self.limits.lag_max);
        let log = self.source(view).log.clone();
        readiness.with(name, move || {
            let (lowest_position, log) = (registry.lowest_position(view.stream()), log.clone());
            let parked = registry.parked(view.stream());
            async move {
                keeps_up(&log, view.filters(), lowest_position?, lag_max).await?;
                none_parked(parked, PARKED_LIST)
            }
        })
    }

    /// Runs until `stop`. After any failure it retries from the checkpoint.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            self.follow(&stop),
            self.feed.run(&stop),
            self.retry_requests.run(&stop),
            self.check_slowly(&stop),
        );
        self.users.log.disconnect().await;
    }

    async fn check_slowly(&self, stop: &CancellationToken) {
        if let Some(checker) = &self.checker {
            checker.run(stop).await;
        }
    }

    /// Keeps one follower for each view of each generation.
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
            self.registry.looked(trouble);
        }
        followers.close();
        followers.wait().await;
    }

    async fn look(
        &self,
        followers: &TaskTracker,
        running: &mut BTreeMap<ViewId, JoinHandle<()>>,
        swept: &mut Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let generations = self.registry.look().await?;
        let numbers =
            |view: View| generations.state(view.set()).all().map(move |number| (view, number));
        let wanted: BTreeSet<ViewId> = View::ALL.into_iter().flat_map(numbers).collect();
        if running.is_empty() {
            adopt_logins(&self.views, &generations).await?;
        }
        for id in &wanted {
            if !running.contains_key(id) {
                running.insert(*id, self.start(*id, followers, stop));
            }
        }
        // The follower of a removed generation ends by itself, between two writes.
        let ended = |(id, task): (&ViewId, &JoinHandle<()>)| {
            (!wanted.contains(id) && task.is_finished()).then_some(*id)
        };
        let ended: Vec<ViewId> = running.iter().filter_map(ended).collect();
        for id in &ended {
            running.remove(id);
            self.registry.ended(*id);
        }
        if !ended.is_empty() || swept.is_none_or(|at| at.elapsed() > SWEEP_EVERY) {
            for collection in self.views.sweep().await? {
                tracing::info!(collection, "dropped the leftovers of a removed generation");
            }
            *swept = Some(Instant::now());
        }
        Ok(())
    }

    fn start(
        &self,
        id: ViewId,
        followers: &TaskTracker,
        stop: &CancellationToken,
    ) -> JoinHandle<()> {
        match id.0 {
            View::Users => self.start_one::<Users>(id, followers, stop),
            View::Logins => self.start_one::<Logins>(id, followers, stop),
            View::Sessions => self.start_one::<Sessions>(id, followers, stop),
        }
    }

    fn start_one<F: IntoView>(
        &self,
        id: ViewId,
        followers: &TaskTracker,
        stop: &CancellationToken,
    ) -> JoinHandle<()> {
        let (view, generation) = id;
        let Source { log, metrics } = self.source(view).clone();
        let (views, registry) = (self.views.clone(), self.registry.clone());
        let projection = Projection {
            log,
            target: Arc::new(InGeneration::<F>::new(views, generation, registry)),
            limits: self.limits,
            progress: self.registry.begins(id),
            metrics,
            tracer: self.tracer.clone(),
            retries: self.retries.clone(),
        };
        let stop = stop.clone();
        followers.spawn(async move { supervised(&projection, &stop).await })
    }
}
