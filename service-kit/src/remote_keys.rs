//! Keys of access tokens from a URL, for services elsewhere that verify tokens.
//!
//! They are fetched before anything is served, and again when the answer expires (`max-age`, within [`Bounds`]). A
//! token with an unknown key causes a fetch at once, but never more than one per [`Bounds::ask_pause`], whatever tokens
//! are sent: tokens in between are rejected, or wait for the fetch in progress.
//!
//! # When the server does not answer
//! The known keys are trusted for [`Bounds::kept`] after the last good answer, by default for an hour: no token lives
//! longer, so more trust would only help an attacker who has a revoked key and blocks the connection. After that every
//! token is rejected as `unavailable`, and the service is not ready.

mod fetch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::checking_keys::{CheckingKeys, Found};
use crate::problem::chain;
use crate::tokens::ACCESS_LIFETIME_MAX_S;
pub use fetch::{FetchError, SourceError};
use fetch::{Fetched, Server};

/// Compiles the Rust code of the guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/verifying-tokens.md")]
struct Guide;

/// Pause between two attempts at the start.
const START_PAUSE: Duration = Duration::from_millis(500);
/// First pause after a failure; doubles up to [`Bounds::fresh_min`].
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where the keys are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySource {
    /// `https://HOST/.well-known/jwks.json` of Roster.
    pub url: String,
    /// Certificates (PEM) of the authority that must have signed the server's certificate; the system's authorities if
    /// there are none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Permits `http://` for hosts other than the loopback. Anybody on the network path can then forge tokens.
    #[serde(default)]
    pub plain_http: bool,
    /// Time limits.
    #[serde(skip)]
    pub bounds: Bounds,
}

impl KeySource {
    /// Keys at a URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca_file: None, plain_http: false, bounds: Bounds::default() }
    }
}

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long the first answer is waited for before the start fails.
    pub start_wait: Duration,
    /// Shortest time for which an answer counts as fresh, whatever it says.
    pub fresh_min: Duration,
    /// Longest time: while the server answers, a revoked key is accepted no longer than this.
    pub fresh_max: Duration,
    /// Shortest pause between fetches because of unknown keys.
    pub ask_pause: Duration,
    /// How long a request waits for such a fetch.
    pub ask_wait: Duration,
    /// How long keys are trusted without an answer.
    pub kept: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            start_wait: Duration::from_secs(10),
            fresh_min: Duration::from_secs(30),
            fresh_max: Duration::from_secs(900),
            ask_pause: Duration::from_secs(5),
            ask_wait: Duration::from_secs(2),
            kept: Duration::from_secs(ACCESS_LIFETIME_MAX_S),
        }
    }
}

/// There are no keys to start with.
#[derive(Debug, thiserror::Error)]
pub enum RemoteKeysError {
    /// The source is invalid: another URL or file is needed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server returned none. It may be down: start again.
    #[error("cannot get the keys of access tokens from {url}")]
    Fetch {
        /// The URL.
        url: String,
        /// The failure of the last attempt.
        source: FetchError,
    },
}

/// Fetches from the server.
#[derive(Clone, Copy)]
struct Look {
    number: u64,
    began: Instant,
    under_way: bool,
}

struct Known {
    keys: HashMap<String, Arc<DecodingKey>>,
    at: Instant,
}

struct Shared {
    known: RwLock<Known>,
    wanted: Notify,
    look: watch::Sender<Look>,
    bounds: Bounds,
}

/// The keys of a URL, kept up to date. Cheap to clone.
#[derive(Clone)]
pub struct RemoteKeys {
    shared: Arc<Shared>,
}

impl RemoteKeys {
    /// Fetches the keys, and again until `stop`.
    ///
    /// # Errors
    /// [`RemoteKeysError`] if there are none within [`Bounds::start_wait`].
    pub async fn fetch(
        source: &KeySource,
        stop: &CancellationToken,
    ) -> Result<Self, RemoteKeysError> {
        let (server, bounds) = (Server::new(source)?, source.bounds);
        let began = Instant::now();
        let Fetched { keys, fresh_for } = loop {
            match server.fetch().await {
                Ok(fetched) => break fetched,
                Err(error) if began.elapsed() + START_PAUSE < bounds.start_wait => {
                    tracing::debug!(error = chain(&error), "no keys of access tokens yet");
                    sleep(START_PAUSE).await;
                }
                Err(error) => {
                    return Err(RemoteKeysError::Fetch { url: source.url.clone(), source: error });
                }
            }
        };
        let now = Instant::now();
        let shared = Arc::new(Shared {
            known: RwLock::new(Known { keys, at: now }),
            wanted: Notify::new(),
            look: watch::Sender::new(Look { number: 0, began: now, under_way: false }),
            bounds,
        });
        let first = now + bounds.fresh(fresh_for);
        let looking = Arc::clone(&shared).keep_looking(server, first);
        let stop = stop.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its stop token, which every caller has"
        )]
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = looking => {}
            }
        });
        Ok(Self { shared })
    }
}

#[async_trait]
impl CheckingKeys for RemoteKeys {
    fn find(&self, kid: &str) -> Found {
        let known = self.shared.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.at.elapsed() >= self.shared.bounds.kept {
            return Found::Outdated;
        }
        known.keys.get(kid).map_or(Found::Unknown, |key| Found::Key(Arc::clone(key)))
    }

    async fn ask_for(&self, kid: &str) -> Found {
        let mut look = self.shared.look.subscribe();
        let last = *look.borrow_and_update();
        if !last.under_way {
            if last.began.elapsed() < self.shared.bounds.ask_pause {
                return self.find(kid);
            }
            self.shared.wanted.notify_one();
        }
        let wanted = if last.under_way { last.number } else { last.number + 1 };
        let ended = look.wait_for(|look| look.number >= wanted && !look.under_way);
        // Whether it succeeded or not: the known keys decide.
        let _ = timeout(self.shared.bounds.ask_wait, ended).await;
        self.find(kid)
    }

    fn check(&self) -> Result<(), String> {
        let age = self.shared.age();
        if age < self.shared.bounds.kept {
            return Ok(());
        }
        Err(format!("the keys of access tokens were fetched {} s ago", age.as_secs()))
    }

    fn age(&self) -> Option<Duration> {
        Some(self.shared.age())
    }
}

impl Bounds {
    fn fresh(&self, said: Duration) -> Duration {
        said.min(self.fresh_max).max(self.fresh_min)
    }
}

impl Shared {
    fn age(&self) -> Duration {
        self.known.read().unwrap_or_else(PoisonError::into_inner).at.elapsed()
    }

    async fn keep_looking(self: Arc<Self>, server: Server, mut due: Instant) {
        let mut pause = RETRY_PAUSE;
        let mut failing = false;
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.wanted.notified() => {
                    // Requested while the last fetch was in progress.
                    if self.look.borrow().began.elapsed() < self.bounds.ask_pause {
                        continue;
                    }
                }
            }
            self.look.send_modify(|look| {
                let number = look.number + 1;
                *look = Look { number, began: Instant::now(), under_way: true };
            });
            match server.fetch().await {
                Ok(Fetched { keys, fresh_for }) => {
                    if failing {
                        tracing::info!("the keys of access tokens can be fetched again");
                    }
                    (failing, pause) = (false, RETRY_PAUSE);
                    let now = Instant::now();
                    due = now + self.bounds.fresh(fresh_for);
                    let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                    *known = Known { keys, at: now };
                }
                Err(error) => {
                    if !failing {
                        let error = chain(&error);
                        tracing::warn!(
                            error,
                            "cannot fetch the keys of access tokens; keeping the known ones"
                        );
                    }
                    failing = true;
                    due = Instant::now() + pause;
                    pause = (2 * pause).min(self.bounds.fresh_min);
                }
            }
            self.look.send_modify(|look| look.under_way = false);
        }
    }
}
