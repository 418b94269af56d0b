//! Puts the service together: the only place that knows which adapter stands behind which port.

use std::sync::Arc;
use std::time::Duration;

use events::{Actor, EmailAddress, ROLE_ADMIN, ROLE_USER};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, users_stream};
use service_kit::health::Readiness;
use service_kit::keys::{
    APPLICATION_KEY_FILE, JWKS_FILE, KeySet, SIGNING_KEY_FILE, SecretKey, SigningKey,
};
use service_kit::nats;
use service_kit::tokens::{TokenIssuer, TokenVerifier};
use service_kit::views_position::ViewsPosition;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::adapters::{HashPool, NatsUserLog};
use crate::application::{CommandError, Request, Users};
use crate::domain::{Password, PasswordRules, Register, Roles};
use crate::routes::{AppState, routes};

/// The name of this service towards NATS.
pub const SERVICE: &str = "command-api";

/// The service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key is missing.
    #[error(transparent)]
    Key(#[from] service_kit::keys::KeyError),
    /// A key of the JWK set cannot be used.
    #[error("the JWK set cannot be used")]
    KeySet(#[source] jsonwebtoken::errors::Error),
    /// The signing key is not among the published ones, so nobody could check our tokens.
    #[error("the signing key is missing in the JWK set")]
    SigningKeyNotPublished,
    /// No connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// The event log is not as it must be.
    #[error(transparent)]
    Log(#[from] service_kit::event_log::ProvisionError),
    /// The position of the views cannot be followed.
    #[error("cannot follow the position of the views: {0}")]
    Views(String),
    /// Password hashing or sealing cannot be set up.
    #[error("{0}")]
    Crypto(String),
}

/// A service that is ready to serve.
pub struct App {
    users: Users,
    router: axum::Router,
    readiness: Readiness,
    tasks: TaskTracker,
}

impl App {
    /// Connects and checks everything the service needs.
    ///
    /// # Errors
    /// [`StartError`]: nothing is served.
    pub async fn build(settings: &Settings, stop: CancellationToken) -> Result<Self, StartError> {
        let secrets = &settings.secrets.dir;
        let application_key = SecretKey::read(&secrets.join(APPLICATION_KEY_FILE))?;
        let signing_key = SigningKey::read(&secrets.join(SIGNING_KEY_FILE))?;
        let key_set = KeySet::read(&secrets.join(JWKS_FILE))?;
        if !key_set.keys.iter().any(|key| key.kid == signing_key.id) {
            return Err(StartError::SigningKeyNotPublished);
        }
        let verifier =
            TokenVerifier::new(&key_set, &settings.tokens).map_err(StartError::KeySet)?;

        let client = nats::connect(&settings.nats, SERVICE).await?;
        let views = ViewsPosition::follow(client.clone(), stop)
            .await
            .map_err(|error| StartError::Views(error.to_string()))?;
        let log = EventLog::new(client, events::subjects::USERS_STREAM, Limits::of(settings));
        log.verify(&users_stream(&settings.log)).await?;

        let readiness = Readiness::default().with("event-log", {
            let log = log.clone();
            move || {
                let log = log.clone();
                async move { log.end().await.map(drop).map_err(|error| error.to_string()) }
            }
        });
        let user_log = NatsUserLog::new(log, &application_key).map_err(StartError::Crypto)?;
        let hasher =
            HashPool::start(&settings.passwords).map_err(|e| StartError::Crypto(e.to_string()))?;
        let tasks = TaskTracker::new();
        let rules = PasswordRules { length_min: settings.passwords.length_min };
        let users = Users::new(Arc::new(user_log), Arc::new(hasher), rules, tasks.clone());
        let router = routes(AppState {
            users: users.clone(),
            views: Arc::new(views),
            views_wait: Duration::from_millis(settings.views.command_wait_ms),
            issuer: TokenIssuer::new(signing_key, settings.tokens.clone()),
            verifier,
            key_set: Arc::new(key_set),
        });
        Ok(Self { users, router, readiness, tasks })
    }

    /// The routes, without the layers that every public listener has.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// What must hold for the service to take requests.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Waits until no command is under way any more.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Creates an administrator, as the operator. `false` when somebody has the address already: nothing
    /// is changed then.
    ///
    /// # Errors
    /// In words, for the operator.
    pub async fn create_administrator(&self, email: &str, password: &str) -> Result<bool, String> {
        let email =
            EmailAddress::parse(email).map_err(|why| format!("the e-mail address {why}"))?;
        let password = Password::new(password, self.users.password_rules())
            .map_err(|(_, why)| format!("the password {why}"))?;
        let roles = Roles::parse(vec![ROLE_ADMIN.to_owned(), ROLE_USER.to_owned()])
            .map_err(|(_, why)| why)?;
        let register = Register {
            email,
            full_name: None,
            metadata: events::Metadata::new(),
            roles: Some(roles),
            email_verified: true,
        };
        let request =
            Request { actor: Actor::System, correlation_id: None, traceparent: None, key: None };
        match self.users.register(register, password, request).await {
            Ok(_) => Ok(true),
            Err(CommandError::EmailTaken) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether there is an administrator.
    ///
    /// # Errors
    /// In words, for the operator.
    pub async fn has_administrator(&self) -> Result<bool, String> {
        self.users.has_administrator().await.map_err(|error| error.to_string())
    }
}
