//! Wires the service together. It is the only module that knows every other one.

use std::time::Duration;

use events::Position;
use service_kit::commands::{Commands, IdempotencyKeys};
use service_kit::event_log::{
    EventLog, Limits, ProvisionError, service_feed_stream, service_log_stream,
};
use service_kit::health::Readiness;
use service_kit::keys::{KeyError, SecretKey};
use service_kit::nats;
use service_kit::reactions::Reactions;
use service_kit::remote_keys::{KeySource, RemoteKeys, RemoteKeysError};
use service_kit::telemetry::Telemetry;
use service_kit::verification::{Accepted, Verification, VerificationError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use view_kit::feed_publisher::ServiceFeedPublisher;
use view_kit::{
    BuildError, FollowLimits, OpenError, ReadLimits, ViewDatabase, ViewFollower, ViewReads,
};

use crate::domain::{ProductFact, Products};
use crate::projection::ProductViews;
use crate::reaction::{self, UnpublishOrphaned};
use crate::routes::{AppState, routes};
use crate::settings::{FEED_STREAM, LOG_STREAM, NAMES, SERVICE, Settings};

/// File with this service's own key, in the folder of its secrets.
const KEY_FILE: &str = "service.key";

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The service's key is missing.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// A stream or the consumer is not configured as it must be.
    #[error(transparent)]
    Log(#[from] ProvisionError),
    /// Roster's keys cannot be fetched.
    #[error(transparent)]
    Keys(#[from] RemoteKeysError),
    /// Tokens cannot be verified.
    #[error(transparent)]
    Verification(#[from] VerificationError),
    /// The views cannot be followed.
    #[error(transparent)]
    Views(#[from] BuildError),
    /// The position of the views cannot be followed.
    #[error("cannot follow the position of the views: {0}")]
    Position(#[from] async_nats::SubscribeError),
    /// The database of the views cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
}

/// A service that is ready to run.
pub struct App {
    router: axum::Router,
    readiness: Readiness,
    follower: ViewFollower<ProductViews>,
    feed_publisher: ServiceFeedPublisher<ProductFact>,
    reactions: Reactions<UnpublishOrphaned>,
    reads: ViewReads<ProductViews>,
    tasks: TaskTracker,
}

/// Creates the streams and the consumer, with the operator's credentials. Idempotent.
///
/// # Errors
/// [`StartError`] says what could not be created.
pub async fn provision(settings: &Settings) -> Result<(), StartError> {
    let service = &settings.service;
    let client = nats::connect(&service.nats, "operator").await?;
    let (log, limits) = (&service.log, Limits::of_service(service));
    for spec in [
        service_log_stream(&NAMES, log.replicas, log.bytes_max),
        service_feed_stream(&NAMES, log.replicas, log.feed_bytes_max),
    ] {
        EventLog::new(client.clone(), spec.name(), limits).provision(&spec).await?;
    }
    let consumer = reaction::consumer();
    let feed = EventLog::new(client, consumer.stream(), limits);
    Ok(feed.provision_consumer(&consumer).await?)
}

/// Reads the feed from its start to its current end.
///
/// # Errors
/// NATS or the feed does not answer.
pub async fn read_feed(settings: &Settings, mut show: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let service = &settings.service;
    let client = nats::connect(&service.nats, SERVICE).await?;
    let feed = EventLog::new(client, FEED_STREAM, Limits::of_service(service));
    let end = feed.end().await?;
    let mut position = Position(0);
    while position < end
        && let Some(event) = feed.next(">", position).await?
    {
        show(&event.payload);
        position = event.position;
    }
    Ok(())
}

impl App {
    /// Connects, and checks the streams, the consumer and the keys. The database may become available later.
    ///
    /// # Errors
    /// [`StartError`]: the service serves nothing.
    pub async fn build(
        settings: &Settings,
        telemetry: &Telemetry,
        stop: &CancellationToken,
    ) -> Result<Self, StartError> {
        let service = &settings.service;
        let key = SecretKey::read(&service.secrets.dir.join(KEY_FILE))?;
        let client = nats::connect(&service.nats, SERVICE).await?;
        let (log, limits) = (&service.log, Limits::of_service(service));
        let log_spec = service_log_stream(&NAMES, log.replicas, log.bytes_max);
        let feed_spec = service_feed_stream(&NAMES, log.replicas, log.feed_bytes_max);
        let log = EventLog::new(client.clone(), LOG_STREAM, limits).watched(&telemetry.metrics);
        log.verify(&log_spec).await?;
        log.watch_room(&telemetry.metrics);
        let feed = EventLog::new(client.clone(), FEED_STREAM, limits).watched(&telemetry.metrics);
        feed.verify(&feed_spec).await?;
        feed.watch_room(&telemetry.metrics);

        let keys = RemoteKeys::fetch(&key_source(settings), stop).await?;
        let accepted = Accepted {
            silence_max: Duration::from_millis(service.revocations.silence_max_ms),
            ..Accepted::new(&service.tokens.issuer, &service.tokens.audience)
        };
        let verification = Verification::start(keys, &client, accepted, stop).await?;
        verification.watched(&telemetry.metrics);

        let database = service.database(&NAMES);
        let database = ViewDatabase::open(&service.mongodb.url, &database, SERVICE).await?;
        let operation_timeout = Duration::from_millis(service.mongodb.operation_timeout_ms);
        let read_limits = ReadLimits {
            operation_timeout,
            list_work: Duration::from_millis(service.views.list_work_ms),
            total_max: service.views.list_total_max,
        };
        // Subscribe to the projector's positions before it publishes the first one.
        let reads = ViewReads::<ProductViews>::follow(
            &client,
            database.clone(),
            read_limits,
            &telemetry.metrics,
            stop.clone(),
        )
        .await?;
        let follow_limits = FollowLimits {
            batch_events_max: service.projector.batch_events_max,
            parked_max: service.projector.parked_max,
            operation_timeout,
            lag_max: Duration::from_millis(service.projector.lag_max_ms),
        };
        let follower =
            ViewFollower::build(&client, log.clone(), database, follow_limits, telemetry).await?;
        let feed_publisher =
            ServiceFeedPublisher::new(log.clone(), feed, FEED_STREAM, follow_limits, telemetry);

        let tasks = TaskTracker::new();
        let keys = IdempotencyKeys::new(key.derive("idempotency v1"));
        let commands = Commands::<Products>::new(log.clone(), NAMES, keys, tasks.clone());
        let unpublish_orphaned = UnpublishOrphaned {
            log,
            commands: commands.clone(),
            reads: reads.clone(),
            second_look: Duration::from_secs(settings.products.second_look_s),
        };
        let (consumer, concurrent_max) = (reaction::consumer(), reaction::CONCURRENT_MAX);
        let reactions =
            Reactions::open(&client, limits, consumer, concurrent_max, unpublish_orphaned).await?;

        let readiness = verification
            .check(reads.readiness())
            .and(follower.readiness())
            .and(feed_publisher.readiness())
            .and(reactions.readiness());
        let router = routes(AppState {
            commands,
            reads: reads.clone(),
            verifier: verification.verifier(),
            cursor_key: key.derive("list cursor v1"),
            price_max: settings.products.price_max,
            command_wait: Duration::from_millis(service.views.command_wait_ms),
            query_wait: Duration::from_millis(service.views.query_wait_ms),
        });
        Ok(Self { router, readiness, follower, feed_publisher, reactions, reads, tasks })
    }

    /// The routes, without the layers that every public listener has.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// What must hold for the service to accept requests.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs views, feed and reactions until `stop`, then waits for running commands and queries.
    pub async fn run(self, stop: CancellationToken) {
        let Self { follower, feed_publisher, reactions, reads, tasks, .. } = self;
        tokio::join!(follower.run(stop.clone()), feed_publisher.run(&stop), reactions.run(&stop));
        tasks.close();
        tasks.wait().await;
        reads.finished().await;
    }
}

fn key_source(settings: &Settings) -> KeySource {
    let tokens = &settings.service.tokens;
    let mut source = KeySource::at(&tokens.jwks_url);
    if !tokens.ca_file.as_os_str().is_empty() {
        source.ca_file = Some(tokens.ca_file.clone());
    }
    source
}
