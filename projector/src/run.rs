//! The loop: read on from the checkpoint, fold, write, say how far the views are.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::time::Duration;

use events::{DecodeError, Position, Timestamp, subjects};
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
use crate::lineage::{Lineage, Parted};
use crate::parked::Parked;
use crate::retry::{Retries, Wishes};
use crate::store::{StoreError, checkpoint, prepare, write};
use crate::supervise::{Follower, Progress, age, supervised};

/// The name of this service towards NATS.
pub const SERVICE: &str = "projector";
/// Time for the database to build indexes. A new one over millions of documents takes minutes.
const INDEXES_MAX: Duration = Duration::from_mins(60);
/// Messages of a parked aggregate that are read and written at once.
const RETRY_MESSAGES_MAX: usize = 500;

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
    #[error(
        "the event at position {0} cannot be read: {1}. It is not parked, as {2} aggregates are (projector.parked_max), and nothing behind it is applied"
    )]
    TooManyParked(Position, DecodeError, usize),
    #[error(transparent)]
    Parted(#[from] Parted),
}

/// A projector that is ready to run: views of users, views of sessions, and the feed.
pub struct App {
    users: Projection<Users>,
    sessions: Projection<Sessions>,
    feed: Feed,
    wishes: Wishes,
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
        let wishes = Wishes::listen(&client).await?;
        let heard = || wishes.heard();
        Ok(Self {
            users: Projection::open(&client, settings, watch, &views, &users, heard()).await?,
            sessions: Projection::open(&client, settings, watch, &views, &sessions, heard())
                .await?,
            feed: Feed::open(&client, settings, watch, heard()).await?,
            wishes,
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
            self.wishes.run(&stop),
        );
    }
}

/// The views of one stream.
struct Projection<F> {
    log: EventLog,
    views: Views,
    announcer: Announcer,
    batch_max: usize,
    parked_max: usize,
    operation_timeout: Duration,
    lag_max: Duration,
    progress: Progress<Position>,
    metrics: ProjectorMetrics,
    tracer: Tracer,
    retries: Retries,
    fold: PhantomData<fn() -> F>,
}

/// Messages that came together, and why nothing comes behind them, if so.
struct Chunk {
    messages: Vec<Followed>,
    failure: Option<RunError>,
}

/// Messages that came together, folded.
struct Batch<F> {
    fold: F,
    /// How many they were.
    events: u64,
    /// How many there are behind them.
    pending: u64,
    /// Position of the last, applied or passed over.
    end: Option<Position>,
    /// When the last of them was stored.
    stored_at: Option<Timestamp>,
    causes: Causes,
    /// Aggregates that are parked from this batch on.
    parked: Vec<String>,
    /// Parked aggregates that came to their end.
    ended: Vec<String>,
    /// Why nothing behind it is applied, if so.
    failure: Option<RunError>,
}

impl<F: Fold> Batch<F> {
    fn of(causes: Causes) -> Self {
        Self {
            fold: F::default(),
            events: 0,
            pending: 0,
            end: None,
            stored_at: None,
            causes,
            parked: Vec::new(),
            ended: Vec::new(),
            failure: None,
        }
    }

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        self.fold.add(message)?;
        self.causes.add(message);
        self.passes(message);
        Ok(())
    }

    /// Comes past a message.
    fn passes(&mut self, message: &Followed) {
        self.events += 1;
        self.pending = message.pending;
        self.end = Some(message.position);
        self.stored_at = Some(message.stored_at);
    }
}

impl<F: Fold> Projection<F> {
    async fn open(
        client: &async_nats::Client,
        settings: &Settings,
        watch: &Watch,
        views: &Views,
        spec: &StreamSpec,
        retries: Retries,
    ) -> Result<Self, StartError> {
        let log = EventLog::new(client.clone(), F::STREAM, Limits::of(settings));
        log.verify(spec).await?;
        log.watch_room(&watch.metrics);
        let projection = Self {
            log,
            announcer: Announcer::new(client.clone(), F::ANNOUNCED_ON),
            views: views.clone(),
            batch_max: settings.projector.batch_events_max,
            parked_max: settings.projector.parked_max,
            operation_timeout: Duration::from_millis(settings.mongodb.operation_timeout_ms),
            lag_max: Duration::from_millis(settings.projector.lag_max_ms),
            progress: Progress::default(),
            metrics: watch.metrics.projector(F::STREAM),
            tracer: watch.tracer.clone(),
            retries,
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

    /// The messages behind a position, in as few chunks as they arrive in; before them, how many there are.
    async fn events_behind(
        &self,
        position: Position,
    ) -> Result<(u64, impl futures::Stream<Item = Chunk> + use<F>), RunError> {
        let following = self.log.follow(F::FILTERS, Start::Behind(position)).await?;
        let ready = following.messages.ready_chunks(self.batch_max);
        // What came before a failure is written before the failure is reported: a chunk is cut there.
        let chunks = ready.map(|chunk| {
            let (mut messages, mut failure) = (Vec::with_capacity(chunk.len()), None);
            for next in chunk {
                match next {
                    Ok(message) => messages.push(message),
                    Err(error) => {
                        failure = Some(error.into());
                        break;
                    }
                }
            }
            Chunk { messages, failure }
        });
        Ok((following.pending, chunks))
    }

    /// Folds what has come, without what is parked. As before a failure, what comes before an event that cannot
    /// be parked any more is written before that is reported.
    async fn fold(&self, chunk: Chunk, parked: &mut Parked) -> Result<Batch<F>, RunError> {
        let mut batch = Batch::<F>::of(Causes::wanted(self.tracer.is_on()));
        let mut waiting = HashMap::new();
        for message in &chunk.messages {
            let aggregate = subjects::aggregate(&message.subject);
            if parked.holds(aggregate) {
                waiting.insert(aggregate.to_owned(), message.position);
            }
        }
        self.asked(parked.wait(waiting)).await?;
        for message in &chunk.messages {
            let aggregate = subjects::aggregate(&message.subject);
            let is_parked = parked.holds(aggregate);
            if is_parked && !F::ends(message) {
                parked.passes(aggregate, message.position);
                batch.passes(message);
                continue;
            }
            match batch.add(message) {
                Ok(()) if is_parked => {
                    parked.forget(aggregate);
                    batch.ended.push(aggregate.to_owned());
                }
                Ok(()) => {}
                Err(error) if parked.count() < self.parked_max => {
                    parked.hold(aggregate, message.position, error.to_string());
                    batch.parked.push(aggregate.to_owned());
                    batch.passes(message);
                }
                Err(error) => {
                    let failure = RunError::TooManyParked(message.position, error, self.parked_max);
                    batch.failure = Some(failure);
                    return Ok(batch);
                }
            }
        }
        batch.failure = chunk.failure;
        Ok(batch)
    }

    /// Reads what is parked once more: a version that can read it may have been started, or the message that
    /// could not be read was removed.
    async fn retry(&self, parked: &mut Parked, position: Position) -> Result<(), RunError> {
        self.asked(parked.reload()).await?;
        for (aggregate, from) in parked.aggregates() {
            self.retry_one(parked, &aggregate, from, position).await?;
        }
        self.has_parked(parked.count());
        Ok(())
    }

    async fn retry_one(
        &self,
        parked: &mut Parked,
        aggregate: &str,
        from: Position,
        position: Position,
    ) -> Result<(), RunError> {
        let subjects = F::subjects_of(aggregate);
        let mut behind = Position(from.0.saturating_sub(1));
        loop {
            let messages =
                self.log.between(&subjects, behind, position, RETRY_MESSAGES_MAX).await?;
            let Some(last) = messages.last().map(|last| last.position) else {
                return self.asked(parked.release(aggregate, position)).await;
            };
            let counts_from = messages.iter().rposition(F::ends).unwrap_or(0);
            let mut batch = Batch::<F>::of(Causes::wanted(false));
            let mut stuck = None;
            for message in messages.iter().skip(counts_from) {
                if let Err(error) = batch.add(message) {
                    stuck = Some((message.position, error.to_string()));
                    break;
                }
            }
            self.bounded(write(&self.views, &batch.fold)).await?;
            if let Some((at, why)) = stuck {
                return self.asked(parked.stuck(aggregate, at, why)).await;
            }
            behind = last;
        }
    }

    /// Writes what was folded, and what is parked of it.
    async fn apply(&self, batch: &mut Batch<F>, parked: &mut Parked) -> Result<(), RunError> {
        let began = Instant::now();
        let causes = std::mem::replace(&mut batch.causes, Causes::wanted(false));
        let work = causes.begin(&self.tracer, F::STREAM);
        if let Err(error) = self.bounded(write(&self.views, &batch.fold)).await {
            work.failed();
            return Err(error);
        }
        self.metrics.wrote(batch.events, began.elapsed());
        work.done();
        for aggregate in &batch.parked {
            self.asked(parked.park(aggregate)).await?;
        }
        for aggregate in &batch.ended {
            self.asked(parked.end(aggregate)).await?;
        }
        self.has_parked(parked.count());
        Ok(())
    }

    fn has_parked(&self, aggregates: usize) {
        self.progress.has_parked(aggregates);
        self.metrics.has_parked(aggregates);
    }

    async fn asked<T>(
        &self,
        operation: impl Future<Output = Result<T, mongodb::error::Error>>,
    ) -> Result<T, RunError> {
        self.bounded(async { operation.await.map_err(StoreError::from) }).await
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
        let mut position = self.asked(self.views.position(&name)).await?;
        let lineage = Lineage::of(&self.log).await?;
        let known = self.bounded(Lineage::known(&self.views, &name)).await?;
        lineage.check(&self.log, position, &known, self.views.database().name()).await??;
        self.bounded(lineage.note(&self.views, &name)).await?;
        let mut parked = self.asked(Parked::load(&self.views, &name, F::STREAM)).await?;
        self.retry(&mut parked, position).await?;
        let (pending, chunks) = self.events_behind(position).await?;
        let mut chunks = Box::pin(chunks);
        tracing::info!(stream = F::STREAM, %position, "the projector follows the log");
        self.progress.reached(position);
        self.metrics.follows(position, pending);

        self.announcer.announce(position).await;
        let mut retries = self.retries.clone();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.metrics.alive(ambient::now());
            let chunk = tokio::select! {
                _ = heartbeat.tick() => {
                    self.announcer.announce(position).await;
                    if retries.are_due() {
                        self.retry(&mut parked, position).await?;
                    }
                    continue;
                }
                chunk = chunks.next() => chunk,
            };
            let Some(chunk) = chunk else { return Ok(()) };
            let mut batch = self.fold(chunk, &mut parked).await?;
            if let Some(end) = batch.end {
                self.apply(&mut batch, &mut parked).await?;
                position = position.max(end);
                self.progress.reached(position);
                self.metrics.follows(position, batch.pending);
                // Readers have what is announced already; the checkpoint is for the next start.
                self.announcer.announce(position).await;
                self.bounded(checkpoint(&self.views, &name, position, batch.stored_at)).await?;
            }
            if let Some(failure) = batch.failure {
                return Err(failure);
            }
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
