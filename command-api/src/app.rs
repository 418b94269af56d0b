//! Composition of the service: the only module that knows which adapter implements which port.

pub(crate) mod administrators;
mod unverified;

use std::sync::Arc;
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use events::feed::FEED_STREAM;
use events::{SessionSeed, subjects};
use service_kit::access::Access;
use service_kit::commands::{CommandRunner, IdempotencyKeys, Request};
use service_kit::config::Settings;
use service_kit::event_log::{
    EventLog, Limits, ProvisionError, StreamSpec, mails_stream, sessions_stream,
    throttle_closed_stream, throttle_counts_stream, throttle_stream, users_stream,
};
use service_kit::health::Readiness;
use service_kit::http::TrustedProxies;
use service_kit::key_ring::RotatingKey;
use service_kit::keys::{APPLICATION_KEY_FILE, random};
use service_kit::links::{LINK_KEY_PURPOSE, Links};
use service_kit::lookup_keys::LookupKeys;
use service_kit::mail_jobs::{MAIL_KEY_PURPOSE, MailJobs};
use service_kit::metrics::Metrics;
use service_kit::nats;
use service_kit::security::{Observed, SecurityRecorder, SecurityStreamError, observe};
use service_kit::signing_keys::KeyRing;
use service_kit::tokens::TokenIssuer;
use service_kit::verification::{Accepted, Verification, VerificationError};
use service_kit::views_position::ViewsPosition;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapters::{
    Buckets, HashPool, HeardLineage, Keeper, NatsMailQueue, NatsSessionLog, NatsThrottle,
    NatsUserLog, Reached,
};
use crate::application::{Dependencies, EnumerationPolicy, RefreshTokens, Users};
use crate::domain::{PasswordRules, SessionRules};
use crate::ports::LogLineage;
use crate::routes::{AppState, Report, import_lines, routes};

pub use administrators::{Made, NewAdministrator, PrepareError, PreparedAdministrator};
pub use unverified::Unverified;

/// The name of this service on NATS.
pub const SERVICE: &str = "command-api";
/// The path prefix of calls about other users.
const ADMINISTRATIVE_ROUTES: &str = "/api/v1/users";

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key is missing.
    #[error(transparent)]
    Key(#[from] service_kit::keys::KeyError),
    /// No connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// The streams of the event log are not set up correctly.
    #[error(transparent)]
    Log(#[from] ProvisionError),
    /// The stream of security records is not set up correctly.
    #[error(transparent)]
    Security(#[from] SecurityStreamError),
    /// The position of the views cannot be followed.
    #[error("cannot follow the position of the views: {0}")]
    Views(String),
    /// The networks of trusted proxies are not valid.
    #[error("http.trusted_proxies: {0}")]
    TrustedProxies(String),
    /// Access tokens cannot be verified.
    #[error(transparent)]
    Verification(#[from] VerificationError),
    /// Password hashing or sealing cannot be set up.
    #[error("{0}")]
    Crypto(String),
}

/// A service that is ready to serve.
pub struct App {
    users: Users,
    router: axum::Router,
    keys: KeyRing,
    readiness: Readiness,
    tasks: TaskTracker,
    recorder: SecurityRecorder,
    connection: nats::Client,
}

impl App {
    /// Connects and checks everything that the service needs.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served.
    pub async fn build(
        settings: &Settings,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let secrets = &settings.secrets.dir;
        let application_key = RotatingKey::follow(&secrets.join(APPLICATION_KEY_FILE), &stop)?;
        let lookup_keys = LookupKeys::read(secrets)?;
        let keys = KeyRing::follow(secrets, true, &stop)?;
        let accepted = Accepted::of(&settings.tokens, &settings.revocations, &settings.access)?;
        let access = accepted.access.clone();

        let client = nats::connect(&settings.nats, SERVICE).await?;
        let connection = client.clone();
        let follow = async |subject, views| {
            ViewsPosition::follow(&client, subject, stop.clone())
                .await
                .map(|position| position.watched(metrics, views))
                .map_err(|error| StartError::Views(error.to_string()))
        };
        let user_views = follow(subjects::USER_VIEWS_POSITION, "users").await?;
        let session_views = follow(subjects::SESSION_VIEWS_POSITION, "sessions").await?;
        let open = async |spec: StreamSpec| {
            let log = EventLog::new(client.clone(), spec.name(), Limits::of(settings));
            log.verify(&spec).await.map(|()| log.watched(metrics))
        };
        let reserving = async |spec: StreamSpec| {
            let log = open(spec).await?.reserving(settings.log.reserve_percent, &stop).await;
            log.map_err(ProvisionError::from).map_err(StartError::from)
        };
        let users_log = reserving(users_stream(&settings.log)).await?;
        let sessions_log = reserving(sessions_stream(&settings.log, &settings.sessions)).await?;
        let mails = reserving(mails_stream(&settings.log)).await?;
        let feed = EventLog::new(client.clone(), FEED_STREAM, Limits::of(settings));
        let feed = match feed.reserving(settings.log.reserve_percent, &stop).await {
            Ok(feed) => Some(feed),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "cannot read how full the feed is; going on without: does the NATS user have its new rights?"
                );
                None
            }
        };
        let buckets = Buckets {
            attempts: open(throttle_stream(&settings.log)).await?,
            closed: open(throttle_closed_stream(&settings.log)).await?,
            counts: open(throttle_counts_stream(&settings.log)).await?,
        };
        let address_key = Some(lookup_keys.security.clone());
        let recorder = SecurityRecorder::open(&client, address_key, settings, metrics).await?;
        let trusted_proxies = TrustedProxies::parse(&settings.http.trusted_proxies)
            .map_err(StartError::TrustedProxies)?;
        let verification = Verification::start(keys.clone(), &client, accepted, &stop).await?;
        verification.watched(metrics);
        let (revocations, reached) = (verification.revocations(), Reached::default());
        let streams = (users_log.clone(), sessions_log.clone());
        let keeper = Keeper::new(streams, revocations.clone(), reached.clone());
        keep_lineage(keeper, &stop).await;

        let readiness = verification.check(Readiness::default()).with("event-log", {
            let log = users_log.clone();
            move || {
                let log = log.clone();
                async move { log.end().await.map(drop).map_err(|error| error.to_string()) }
            }
        });
        let tasks = TaskTracker::new();
        let logs = Logs {
            users: users_log,
            sessions: sessions_log,
            mails,
            buckets,
            feed,
            recorder: recorder.clone(),
            lineage: Arc::new(HeardLineage::new(revocations, reached.clone())),
            reached,
        };
        let keys_of_users = KeysOfUsers { application: application_key, lookup: lookup_keys };
        let users = users(settings, keys_of_users, access, logs, metrics, tasks.clone())?;
        let router = routes(AppState {
            users: users.clone(),
            user_views,
            session_views,
            views_wait: Duration::from_millis(settings.views.command_wait_ms),
            issuer: TokenIssuer::new(keys.clone(), settings.tokens.clone()),
            verifier: verification.verifier(),
            trusted_proxies: trusted_proxies.clone(),
        });
        let observed = Observed {
            recorder: recorder.clone(),
            trusted_proxies,
            administrative: ADMINISTRATIVE_ROUTES,
        };
        let router = router.layer(from_fn_with_state(observed, observe));
        Ok(Self { users, router, keys, readiness, tasks, recorder, connection })
    }

    /// The routes, without the layers that every public listener has.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// The route with the public keys, which both sides have.
    pub fn key_routes(&self) -> axum::Router {
        self.keys.clone().routes()
    }

    /// The readiness checks.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Waits until no command is running.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.recorder.finish().await;
        nats::disconnect(&self.connection).await;
    }

    /// Imports lines of newline-delimited JSON, as the operator; `first` is the number of the first one.
    ///
    /// # Errors
    /// A text for the operator: no line was imported.
    pub async fn import(&self, lines: &[&[u8]], first: usize) -> Result<Report, String> {
        import_lines(&self.users, lines, first, Request::of_the_system())
            .await
            .map_err(|error| error.to_string())
    }

    /// Whether there is an administrator.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn has_administrator(&self) -> Result<bool, String> {
        self.users.has_administrator().await.map_err(|error| error.to_string())
    }
}

/// Checks the lineage once before anything is served, and then periodically. Until there is an answer, sessions name
/// no history.
async fn keep_lineage(mut keeper: Keeper, stop: &CancellationToken) {
    if let Err(error) = keeper.look().await {
        tracing::warn!(%error, "cannot look whether the log of users went back; retrying");
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with its stop token, which every caller has"
    )]
    tokio::spawn(keeper.run(stop.clone()));
}

/// The streams that commands use.
pub(crate) struct Logs {
    pub(crate) users: EventLog,
    pub(crate) sessions: EventLog,
    pub(crate) mails: EventLog,
    pub(crate) buckets: Buckets,
    /// Only its fill level is read, if that is allowed.
    pub(crate) feed: Option<EventLog>,
    /// The security record, which is no log of commands.
    pub(crate) recorder: SecurityRecorder,
    /// The current history of the log of users.
    pub(crate) lineage: Arc<dyn LogLineage>,
    /// The positions that the log of users has reached.
    pub(crate) reached: Reached,
}

/// The keys that commands use.
pub(crate) struct KeysOfUsers {
    /// Seals and signs; may be rotated.
    pub(crate) application: RotatingKey,
    /// Derives the names of records.
    pub(crate) lookup: LookupKeys,
}

/// Builds the commands.
pub(crate) fn users(
    settings: &Settings,
    keys: KeysOfUsers,
    access: Access,
    logs: Logs,
    metrics: &Metrics,
    tasks: TaskTracker,
) -> Result<Users, StartError> {
    let KeysOfUsers { application, lookup } = keys;
    let throttle =
        NatsThrottle::new(logs.buckets, lookup.throttle, &settings.throttle).watched(metrics);
    let crypto = |error: &dyn std::error::Error| StartError::Crypto(error.to_string());
    let user_log = NatsUserLog::new(logs.users, logs.feed.clone(), &application, lookup.claims)
        .map_err(StartError::Crypto)?
        .recorded(logs.recorder.clone())
        .noting(logs.reached);
    let jobs =
        MailJobs::new(application.derive(MAIL_KEY_PURPOSE)).map_err(|error| crypto(&error))?;
    let hasher = HashPool::start(&settings.passwords, metrics).map_err(|error| crypto(&error))?;
    Ok(Users::new(Dependencies {
        log: Arc::new(user_log),
        sessions: Arc::new(NatsSessionLog::new(logs.sessions, logs.feed)),
        lineage: logs.lineage,
        throttle: Arc::new(throttle),
        mails: Arc::new(NatsMailQueue::new(logs.mails, jobs)),
        hasher: Arc::new(hasher),
        recorder: logs.recorder,
        rules: PasswordRules {
            length_min: settings.passwords.length_min,
            strength_min: settings.passwords.strength_min,
            context_words: settings.passwords.context_words(),
        },
        session_rules: SessionRules {
            idle_s: settings.sessions.idle_s,
            absolute_s: settings.sessions.absolute_s,
            reuse_window_s: settings.sessions.reuse_window_s,
            per_user_max: settings.sessions.per_user_max,
            login_unverified: settings.registration.login_unverified
                && !settings.registration.conceal_existing,
        },
        refresh_tokens: RefreshTokens::new(application.derive("refresh token v1")),
        links: Links::new(application.derive(LINK_KEY_PURPOSE)),
        undo_link_s: settings.mail.undo_link_s,
        seeds: Arc::new(|| {
            random().map(SessionSeed::from_bytes).map_err(|error| error.to_string())
        }),
        access,
        enumeration: EnumerationPolicy {
            conceal_existing: settings.registration.conceal_existing,
            refusal_step: Duration::from_millis(settings.passwords.refusal_step_ms),
        },
        keys: IdempotencyKeys::new(lookup.idempotency),
        runner: CommandRunner::new(tasks),
    }))
}
