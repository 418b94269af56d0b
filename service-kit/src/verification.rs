//! Whether an access token is good, put together: keys, claims, and what has ended meanwhile. Roster's own
//! services and any other do it in the same way; the keys are those of a folder, or of a URL (feature
//! `remote-keys`).
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

/// Time for the feed of revocations to be read to its end.
const REVOCATIONS_WAIT: Duration = Duration::from_secs(30);
/// Silence of the feed after which roles are not believed, unless a setting says otherwise.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// Whose tokens are good here.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// `iss`: the setting `tokens.issuer` of Roster.
    pub issuer: String,
    /// `aud`: the setting `tokens.audience` of Roster.
    pub audience: String,
    /// What roles allow in Roster itself; nothing that another service needs.
    pub access: Access,
    /// For how long what has ended may have been unknown before nobody is taken for more than a user.
    pub silence_max: Duration,
}

impl Accepted {
    /// Tokens of one issuer for one audience.
    pub fn new(issuer: impl Into<String>, audience: impl Into<String>) -> Self {
        let (issuer, audience) = (issuer.into(), audience.into());
        Self { issuer, audience, access: Access::default(), silence_max: SILENCE_MAX }
    }

    /// As the configuration says.
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
    /// What has ended is not known.
    #[error(
        "the feed of revocations cannot be read to its end: the streams USERS and SESSIONS must be there, \
         and the NATS user must have the right to follow rv.user.* and rv.session.*"
    )]
    Revocations,
    /// The stream takes no more readers.
    #[error("the feed of revocations cannot be read: {0}")]
    TooManyConsumers(FollowError),
}

/// What verifies access tokens, and is kept up to date. Cheap to clone.
#[derive(Clone)]
pub struct Verification {
    keys: Arc<dyn CheckingKeys>,
    revocations: Revocations,
    verifier: TokenVerifier,
}

impl Verification {
    /// Follows what ends, until `stop`, and returns when everything that has ended is known.
    ///
    /// # Errors
    /// [`VerificationError::Revocations`] when that takes longer than 30 s, and [`VerificationError::TooManyConsumers`]
    /// when that is because of others.
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

    /// Checks tokens; the state that [`Authenticated`](crate::tokens::Authenticated) and its like take from.
    #[must_use]
    pub fn verifier(&self) -> TokenVerifier {
        self.verifier.clone()
    }

    /// What has ended, and the history that the log is in.
    #[must_use]
    pub fn revocations(&self) -> Revocations {
        self.revocations.clone()
    }

    /// Adds the checks that revocations are heard and that keys are believed.
    #[must_use]
    pub fn check(&self, readiness: Readiness) -> Readiness {
        let keys = Arc::clone(&self.keys);
        self.revocations.check(readiness).with("keys", move || std::future::ready(keys.check()))
    }

    /// Lets every scrape see for how long nothing was heard of what ended, and of keys that come from elsewhere.
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
