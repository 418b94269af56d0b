//! The loop: read on from the checkpoint, fold, write, say how far the views are.

use std::marker::PhantomData;
use std::time::Duration;

use events::{DecodeError, Position};
use futures::StreamExt;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    EventLog, FollowError, Followed, Limits, ReadError, Start, StreamSpec, sessions_stream,
    users_stream,
};
use service_kit::health::Readiness;
use service_kit::metrics::{Metrics, ProjectorMetrics};
use service_kit::nats;
use service_kit::trace::Tracer;
use service_kit::views_position::{Announcer, HEARTBEAT};
use service_kit::watch::Watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use views::Views;

use crate::causes::Causes;
use crate::feed::Feed;
use crate::fold::{Fold, Sessions, Users};
use crate::store::{StoreError, checkpoint, prepare, write};
use crate::supervise::{Follower, Progress, age, supervised};

/// The name of this service towards NATS.
pub const SERVICE: &str = "projector";
/// Time for the database to build indexes. A new one over millions of documents takes minutes.
const INDEXES_MAX: Duration = Duration::from_mins(60);

/// The projector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// The event log is not as it must be.
    #[error(transparent)]
    Log(#[from] service_kit::event_log::ProvisionError),
    /// The connection string of the database is not valid.
    #[error("mongodb.url cannot be used")]
    Database(#[from] mongodb::error::Error),
}

/// Why a run ended; the next one starts from the checkpoint.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("the database does not answer in time")]
    DatabaseTimeout,
    #[error("the event at position {0} cannot be read and nothing behind it is applied: {1}")]
    Poison(Position, DecodeError),
    #[error("the views are at {views} and the log ends at {log}: they do not belong together")]
    LogBehindViews { views: Position, log: Position },
}

/// A projector that is ready to run: views of users, views of sessions, and the feed.
pub struct App {
    users: Projection<Users>,
    sessions: Projection<Sessions>,
    feed: Feed,
}

impl App {
    /// Connects and checks the log. The database may come later.
    ///
    /// # Errors
    /// [`StartError`]: nothing runs.
    pub async fn build(settings: &Settings, watch: &Watch) -> Result<Self, StartError> {
        let client = nats::connect(&settings.nats, SERVICE).await?;
        let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;
        let (users, sessions) =
            (users_stream(&settings.log), sessions_stream(&settings.log, &settings.sessions));
        Ok(Self {
            users: Projection::open(&client, settings, watch, &views, &users).await?,
            sessions: Projection::open(&client, settings, watch, &views, &sessions).await?,
            feed: Feed::open(&client, settings, watch).await?,
        })
    }

    /// What must hold for the views to follow the log: nothing stands still, and the oldest event that
    /// they lack is not too old.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let readiness = Readiness::default();
        let readiness = self.users.check(readiness, "projector-users");
        self.feed.check(self.sessions.check(readiness, "projector-sessions"))
    }

    /// Runs until `stop`. Whatever fails is tried again, from the checkpoint.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            supervised(&self.users, &stop),
            supervised(&self.sessions, &stop),
            supervised(&self.feed, &stop),
        );
    }
}

/// The views of one stream.
struct Projection<F> {
    log: EventLog,
    views: Views,
    announcer: Announcer,
    batch_max: usize,
    operation_timeout: Duration,
    lag_max: Duration,
    progress: Progress<Position>,
    metrics: ProjectorMetrics,
    tracer: Tracer,
    fold: PhantomData<fn() -> F>,
}

/// Messages that came together, folded.
struct Batch<F> {
    fold: F,
    /// How many they were.
    events: u64,
    /// How many there are behind them.
    pending: u64,
    causes: Causes,
}

impl<F: Fold> Batch<F> {
    fn of(causes: Causes) -> Self {
        Self { fold: F::default(), events: 0, pending: 0, causes }
    }

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        self.fold.add(message)?;
        self.events += 1;
        self.pending = message.pending;
        self.causes.add(message);
        Ok(())
    }
}

impl<F: Fold> Projection<F> {
    async fn open(
        client: &async_nats::Client,
        settings: &Settings,
        watch: &Watch,
        views: &Views,
        spec: &StreamSpec,
    ) -> Result<Self, StartError> {
        let log = EventLog::new(client.clone(), F::STREAM, Limits::of(settings));
        log.verify(spec).await?;
        log.watch_room(&watch.metrics);
        let projection = Self {
            log,
            announcer: Announcer::new(client.clone(), F::ANNOUNCED_ON),
            views: views.clone(),
            batch_max: settings.projector.batch_events_max,
            operation_timeout: Duration::from_millis(settings.mongodb.operation_timeout_ms),
            lag_max: Duration::from_millis(settings.projector.lag_max_ms),
            progress: Progress::default(),
            metrics: watch.metrics.projector(F::STREAM),
            tracer: watch.tracer.clone(),
            fold: PhantomData,
        };
        projection.watch(&watch.metrics);
        Ok(projection)
    }

    /// Lets every scrape see how old the oldest event is that the views lack.
    fn watch(&self, metrics: &Metrics) {
        let (progress, log) = (self.progress.clone(), self.log.clone());
        let watched = self.metrics.clone();
        metrics.sample(move || {
            let (position, log, watched) = (progress.position(), log.clone(), watched.clone());
            async move {
                // A log that does not answer is told by what it is asked for, not here.
                if let Ok(age) = age_of_missing::<F>(&log, position).await {
                    watched.lags(age);
                }
            }
        });
    }

    fn check(&self, readiness: Readiness, name: &'static str) -> Readiness {
        let (progress, log, lag_max) = (self.progress.clone(), self.log.clone(), self.lag_max);
        readiness.with(name, move || {
            let (progress, log) = (progress.clone(), log.clone());
            async move {
                if let Some(trouble) = progress.trouble() {
                    return Err(trouble);
                }
                let lag = age_of_missing::<F>(&log, progress.position()).await;
                let lag = lag.map_err(|error| error.to_string())?;
                if lag <= lag_max {
                    return Ok(());
                }
                Err(format!("the views are {} s behind the log", lag.as_secs()))
            }
        })
    }

    /// The messages behind a position, folded into as few batches as they arrive in; before them, how many
    /// there are.
    async fn events_behind(
        &self,
        position: Position,
    ) -> Result<(u64, impl futures::Stream<Item = Result<Batch<F>, RunError>>), RunError> {
        let following = self.log.follow(F::FILTERS, Start::Behind(position)).await?;
        let ready = following.messages.ready_chunks(self.batch_max);
        // What came before a failure is written before the failure is reported: a chunk is cut there.
        let recorded = self.tracer.is_on();
        let batches = ready.flat_map(move |chunk| {
            let mut batch = Batch::<F>::of(Causes::wanted(recorded));
            let mut failure = None;
            for next in chunk {
                let taken = next.map_err(RunError::from).and_then(|message| {
                    batch.add(&message).map_err(|error| RunError::Poison(message.position, error))
                });
                if let Err(error) = taken {
                    failure = Some(Err(error));
                    break;
                }
            }
            let batch = batch.fold.end().is_some().then_some(Ok(batch));
            futures::stream::iter(batch.into_iter().chain(failure))
        });
        Ok((following.pending, batches))
    }

    async fn bounded<T>(
        &self,
        operation: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, RunError> {
        within(self.operation_timeout, operation).await
    }
}

impl<F: Fold> Follower for Projection<F> {
    type Position = Position;
    type Error = RunError;

    fn stream(&self) -> &'static str {
        F::STREAM
    }

    fn progress(&self) -> &Progress<Position> {
        &self.progress
    }

    fn metrics(&self) -> &ProjectorMetrics {
        &self.metrics
    }

    async fn run_once(&self) -> Result<(), RunError> {
        within(INDEXES_MAX, prepare(&self.views)).await?;
        let name = F::checkpoint();
        let mut position = self
            .bounded(async { self.views.position(&name).await.map_err(StoreError::from) })
            .await?;
        let end = self.log.end().await?;
        if end < position {
            return Err(RunError::LogBehindViews { views: position, log: end });
        }
        let (pending, batches) = self.events_behind(position).await?;
        let mut batches = Box::pin(batches);
        tracing::info!(stream = F::STREAM, %position, "the projector follows the log");
        self.progress.reached(position);
        self.metrics.follows(position, pending);

        self.announcer.announce(position).await;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let batch = tokio::select! {
                _ = heartbeat.tick() => {
                    self.announcer.announce(position).await;
                    continue;
                }
                batch = batches.next() => batch,
            };
            let Some(batch) = batch else { return Ok(()) };
            let Batch { fold: batch, events, pending, causes } = batch?;
            let began = Instant::now();
            let work = causes.begin(&self.tracer, F::STREAM);
            if let Err(error) = self.bounded(write(&self.views, &batch)).await {
                work.failed();
                return Err(error);
            }
            self.metrics.wrote(events, began.elapsed());
            position = batch.end().map_or(position, |end| position.max(end));
            self.progress.reached(position);
            self.metrics.follows(position, pending);
            work.done();
            // Readers have what is announced already; the checkpoint is for the next start.
            self.announcer.announce(position).await;
            self.bounded(checkpoint(&self.views, &name, position)).await?;
        }
    }
}

async fn within<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, RunError> {
    match timeout(limit, operation).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(RunError::DatabaseTimeout),
    }
}

/// Age of the oldest event behind a position; zero when there is none.
async fn age_of_missing<F: Fold>(
    log: &EventLog,
    position: Position,
) -> Result<Duration, ReadError> {
    let events = F::FILTERS.first().copied().unwrap_or_default();
    let missing = log.next(events, position).await?;
    Ok(age(missing.map(|missing| missing.stored_at), ambient::now()))
}
