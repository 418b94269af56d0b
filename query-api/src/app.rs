//! Assembles the service.

use std::time::Duration;

use axum::middleware::from_fn_with_state;
use events::subjects;
use service_kit::config::Settings;
use service_kit::health::Readiness;
use service_kit::http::TrustedProxies;
use service_kit::keys::{CURSOR_KEY_FILE, SecretKey};
use service_kit::metrics::Metrics;
use service_kit::nats;
use service_kit::security::{Observed, SecurityRecorder, SecurityStreamError, observe};
use service_kit::signing_keys::KeyRing;
use service_kit::verification::{Accepted, Verification, VerificationError};
use service_kit::views_position::ViewsPosition;
use tokio_util::sync::CancellationToken;
use view_kit::{OpenError, ReadLimits, Reads};
use views::Views;

use crate::live::Live;
use crate::reader::Reader;
use crate::routes::{AppState, routes};

/// The name of this service towards NATS.
pub const SERVICE: &str = "query-api";
/// Prefix of the routes about other users.
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
    /// The stream of security records is not provisioned as required.
    #[error(transparent)]
    Security(#[from] SecurityStreamError),
    /// The networks of trusted proxies are not valid.
    #[error("http.trusted_proxies: {0}")]
    TrustedProxies(String),
    /// The position of the views cannot be followed.
    #[error("cannot follow the position of the views: {0}")]
    Views(String),
    /// Access tokens cannot be verified.
    #[error(transparent)]
    Verification(#[from] VerificationError),
    /// The database of the views cannot be opened.
    #[error(transparent)]
    Database(#[from] OpenError),
}

/// A service that is ready to serve.
pub struct App {
    router: axum::Router,
    keys: KeyRing,
    readiness: Readiness,
    reader: Reader,
    recorder: SecurityRecorder,
    connection: nats::Client,
}

impl App {
    /// Connects and reads the keys. The database may become available later.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served.
    pub async fn build(
        settings: &Settings,
        metrics: &Metrics,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let secrets = &settings.secrets.dir;
        let cursor_key = SecretKey::read(&secrets.join(CURSOR_KEY_FILE))?;
        let keys = KeyRing::follow(secrets, false, &stop)?;
        let client = nats::connect(&settings.nats, SERVICE).await?;
        let connection = client.clone();
        let recorder = SecurityRecorder::open(&client, None, settings, metrics).await?;
        let trusted_proxies = TrustedProxies::parse(&settings.http.trusted_proxies)
            .map_err(StartError::TrustedProxies)?;
        let follow = async |subject, views| {
            ViewsPosition::follow(&client, subject, stop.clone())
                .await
                .map(|position| position.watched(metrics, views))
                .map_err(|error| StartError::Views(error.to_string()))
        };
        let position = follow(subjects::USER_VIEWS_POSITION, "users").await?;
        let sessions = follow(subjects::SESSION_VIEWS_POSITION, "sessions").await?;
        let accepted = Accepted::of(&settings.tokens, &settings.revocations, &settings.access)?;
        let verification = Verification::start(keys.clone(), &client, accepted, &stop).await?;
        verification.watched(metrics);
        let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;
        let limits = ReadLimits {
            operation_timeout: Duration::from_millis(settings.mongodb.operation_timeout_ms),
            list_work: Duration::from_millis(settings.views.list_work_ms),
            total_max: settings.views.list_total_max,
        };
        let known_for = Duration::from_secs(settings.views.generations_known_s);
        let live = Live::follow(views.clone(), metrics, known_for, stop);
        let reads = Reads::new(position.clone(), limits);
        let reader = Reader::new(views, live, reads, Reads::new(sessions, limits));

        let readiness = verification
            .check(Readiness::default())
            .with("database", {
                let reader = reader.clone();
                move || {
                    let reader = reader.clone();
                    async move { reader.ping().await.map_err(|error| error.to_string()) }
                }
            })
            .with("views", move || {
                let alive = position.is_alive();
                async move {
                    if alive { Ok(()) } else { Err("nothing heard of the projector".to_owned()) }
                }
            });
        let router = routes(AppState {
            reader: reader.clone(),
            verifier: verification.verifier(),
            cursor_key: cursor_key.derive("list cursor v2"),
            query_wait: Duration::from_millis(settings.views.query_wait_ms),
        });
        let observed = Observed {
            recorder: recorder.clone(),
            trusted_proxies,
            administrative: ADMINISTRATIVE_ROUTES,
        };
        let router = router.layer(from_fn_with_state(observed, observe));
        Ok(Self { router, keys, readiness, reader, recorder, connection })
    }

    /// The routes, without the layers of public listeners.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// The route of the public keys, which both APIs have.
    pub fn key_routes(&self) -> axum::Router {
        self.keys.clone().routes()
    }

    /// Adds the readiness checks.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Waits until no operation on the database is running.
    pub async fn finished(&self) {
        self.reader.finished().await;
        self.recorder.finish().await;
        nats::disconnect(&self.connection).await;
    }
}
