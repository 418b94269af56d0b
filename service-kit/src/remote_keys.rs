//! Keys of access tokens from a URL: what a service elsewhere checks tokens with.
//!
//! They are fetched before anything is served, and again when the answer is over (`max-age`, within
//! [`Bounds`]). A token that names a key which is not known leads to a look at once, but never to more than one
//! in [`Bounds::ask_pause`], whatever tokens are sent: those that come in between are refused, or wait for the
//! look that is under way.
//!
//! # When the server does not answer
//! The keys from before are believed for [`Bounds::kept`] from the last good answer on, an hour unless it is
//! set otherwise: no token lives longer, so a longer trust would serve nobody but whoever has a key that was
//! withdrawn and keeps the news from arriving. After that every token is refused as `unavailable`, and the
//! service is not ready.

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

/// So that what the guide shows in Rust is compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/verifying-tokens.md")]
struct Guide;

/// Pause between two tries at the start.
const START_PAUSE: Duration = Duration::from_millis(500);
/// First pause after a failure; it doubles up to [`Bounds::fresh_min`].
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where keys are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySource {
    /// `https://HOST/.well-known/jwks.json` of Roster.
    pub url: String,
    /// Certificates (PEM) of the authority that the server's must be signed by; those of the system when there
    /// is none.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Lets `http://` pass for other hosts than the loopback. Whoever is on the way can then make tokens.
    #[serde(default)]
    pub plain_http: bool,
    /// How often, and for how long.
    #[serde(skip)]
    pub bounds: Bounds,
}

impl KeySource {
    /// The keys at a URL.
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: url.into(), ca_file: None, plain_http: false, bounds: Bounds::default() }
    }
}

/// Bounds of time.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For how long the first answer is waited for before the start fails.
    pub start_wait: Duration,
    /// Shortest time that an answer is taken for fresh, whatever it says.
    pub fresh_min: Duration,
    /// Longest one: a key that was withdrawn is taken no longer than that while the server answers.
    pub fresh_max: Duration,
    /// Shortest pause before the server is asked because of a key that is not known.
    pub ask_pause: Duration,
    /// How long a request waits for such an answer.
    pub ask_wait: Duration,
    /// How long keys are believed without an answer.
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
    /// The source is not one: another URL or file is needed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The server gave none. It may be down: start again.
    #[error("cannot get the keys of access tokens from {url}")]
    Fetch {
        /// Where they should be.
        url: String,
        /// What the last try failed with.
        source: FetchError,
    },
}

/// Looks at the server.
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
    /// [`RemoteKeysError`] when there are none within [`Bounds::start_wait`].
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
        // Whether it came or not: what is known then is what is known.
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
                    // Wanted while the last look was under way.
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
                            "the keys cannot be fetched; those from before go on"
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
