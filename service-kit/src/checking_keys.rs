//! The public keys that verify access tokens, from a folder ([`KeyRing`](crate::signing_keys::KeyRing)) or, with the
//! feature `remote-keys`, from a URL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::DecodingKey;

/// The result of looking up a key.
#[derive(Clone)]
pub enum Found {
    /// The key, which is accepted now.
    Key(Arc<DecodingKey>),
    /// No key has this id, or it is no longer accepted.
    Unknown,
    /// The known keys are too old to be trusted.
    Outdated,
}

/// A source of keys.
#[async_trait]
pub trait CheckingKeys: Send + Sync {
    /// Looks up a key by its id, in memory.
    fn find(&self, kid: &str) -> Found;

    /// The same for a key that is not known in memory: asks the source, unless it was asked a moment ago.
    async fn ask_for(&self, kid: &str) -> Found {
        self.find(kid)
    }

    /// Whether the keys can be trusted, for readiness.
    ///
    /// # Errors
    /// A text for the operator: all tokens are rejected.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// The age of the last answer of the source; `None` for local keys.
    fn age(&self) -> Option<Duration> {
        None
    }
}
