//! The keys that access tokens are checked with, wherever they come from: a folder
//! ([`KeyRing`](crate::signing_keys::KeyRing)) or, with the feature `remote-keys`, a URL.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::DecodingKey;

/// What is known of a key.
#[derive(Clone)]
pub enum Found {
    /// It is taken now.
    Key(Arc<DecodingKey>),
    /// There is none of that id, or it is not taken any more.
    Unknown,
    /// What is known of all keys is too old to be believed.
    Outdated,
}

/// Where keys come from.
#[async_trait]
pub trait CheckingKeys: Send + Sync {
    /// The key of that id, as far as it is known here. A look into memory.
    fn find(&self, kid: &str) -> Found;

    /// The same for a key that is not known here: asks where the keys come from, if that was not done a
    /// moment ago.
    async fn ask_for(&self, kid: &str) -> Found {
        self.find(kid)
    }

    /// Whether the keys are believed, for readiness.
    ///
    /// # Errors
    /// In words, for the operator: tokens are refused, whoever signed them.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// How long ago the keys were heard of; `None` when they are one's own.
    fn age(&self) -> Option<Duration> {
        None
    }
}
