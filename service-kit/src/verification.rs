//! Verification of access tokens, assembled: keys, claims and revocations. Roster's own services and all others use the
//! same code; the keys come from a folder, or from a URL (feature `remote-keys`).
//!
//! `docs/verifying-tokens.md` is the guide.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::checking_keys::CheckingKeys;
use crate::config::{AccessSettings, Revocations as RevocationsSettings, Tokens};
use crate::event_log::FollowError;
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::revocations::Revocations;
use crate::tokens::TokenVerifier;

/// Time limit for reading the streams of revocations to their end.
const REVOCATIONS_WAIT: Duration = Duration::from_secs(30);
/// Silence after which roles are not trusted, unless a setting says otherwise.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The tokens that are accepted.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// `iss`: the setting `tokens.issuer` of Roster.
    pub issuer: String,
    /// `aud`: the setting `tokens.audience` of Roster.
    pub audience: String,
    /// The permissions of roles in Roster; other services do not need it.
    pub access: Access,
    /// How long revocations may be missing before privileged roles are not trusted.
    pub silence_max: Duration,
}

impl Accepted {
    /// Tokens of one issuer for one audience.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let (issuer, audience) = (issuer.into(), audience.into());
        Self { issuer, audience, access: Access::default(), silence_max: SILENCE_MAX }
    }

    /// The values of the settings.
    ///
    /// # Errors
    /// [`VerificationError::Access`].
    pub fn of(
        tokens: &Tokens,
        revocations: &RevocationsSettings,
        access: &AccessSettings,
    ) -> Result<Self, VerificationError> {
        Ok(Self {
            access: access.roles.parse().map_err(VerificationError::Access)?,
            silence_max: Duration::from_millis(revocations.silence_max_ms),
            ..Self::new(&tokens.issuer, &tokens.audience)
        })
    }
}

/// Tokens cannot be verified, so nothing can be served.
#[derive(Debug, thiserror::Error)]
pub enum VerificationError {
    /// The roles are not valid.
    #[error("access.roles: {0}")]
    Access(String),
    /// The revocations are unknown.
    #[error(
        "the feed of revocations cannot be read to its end: the streams USERS and SESSIONS must be there, \
         and the NATS user must have the right to follow rv.user.* and rv.session.*"
    )]
    Revocations,
    /// The stream accepts no more consumers.
    #[error("the feed of revocations cannot be read: {0}")]
    TooManyConsumers(FollowError),
}

/// Verifies access tokens, and is kept up to date. Cheap to clone.
#[derive(Clone)]
pub struct Verification {
    keys: Arc<dyn CheckingKeys>,
    revocations: Revocations,
    verifier: TokenVerifier,
}

impl Verification {
    /// Follows revocations until `stop`, and returns when all of them are known.
    ///
    /// # Errors
    /// [`VerificationError::Revocations`] if that takes longer than 30 s, and [`VerificationError::TooManyConsumers`]
    /// if the cause is the number of consumers.
    pub async fn start(
        keys: impl CheckingKeys + 'static,
        client: &async_nats::Client,
        accepted: Accepted,
        stop: &CancellationToken,
    ) -> Result<Self, VerificationError> {
        let keys: Arc<dyn CheckingKeys> = Arc::new(keys);
        let revocations = Revocations::follow(client, accepted.silence_max, stop);
        if !revocations.caught_up(REVOCATIONS_WAIT).await {
            return Err(match revocations.too_many_consumers() {
                Some(error) => VerificationError::TooManyConsumers(error),
                None => VerificationError::Revocations,
            });
        }
        let verifier = TokenVerifier::new(Arc::clone(&keys), &accepted.issuer, &accepted.audience)
            .with_access(accepted.access)
            .with_revocations(revocations.clone());
        Ok(Self { keys, revocations, verifier })
    }

    /// The verifier; the state of [`Authenticated`](crate::tokens::Authenticated) and similar extractors.
    #[must_use]
    pub fn verifier(&self) -> TokenVerifier {
        self.verifier.clone()
    }

    /// The revocations, and the current history of the log.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }

    /// Adds the readiness checks: revocations arrive, and keys are trusted.
    #[must_use]
    pub fn check(&self, readiness: Readiness) -> Readiness {
        let keys = Arc::clone(&self.keys);
        self.revocations.check(readiness).with("keys", move || std::future::ready(keys.check()))
    }

    /// Reports at every scrape how old the last message of revocations is, and that of remote keys.
    pub fn watched(&self, metrics: &Metrics) {
        self.revocations.watched(metrics);
        if self.keys.age().is_none() {
            return;
        }
        let (keys, watching) = (Arc::clone(&self.keys), metrics.clone());
        metrics.sample(move || {
            if let Some(age) = keys.age() {
                watching.keys_age(age);
            }
            std::future::ready(())
        });
    }
}
