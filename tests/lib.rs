//! What end-to-end tests and benchmarks need: Roster's own processes on real servers, an HTTP client,
//! and the event log as an operator sees it.
//!
//! There is no link to service code. What is compared with is the contract in `events`, and what is
//! asked is asked over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "support of tests: one that cannot go on has failed"
)]

mod beside;
mod client;
mod cluster;
mod digest;
pub mod examples;
mod feed;
mod feed_bus;
mod log;
mod mail;
mod metrics;
mod otlp;
mod pair;
mod process;
mod read;
mod secured;
mod site;
mod subscriber;
mod system;
mod times;
mod verifier;

pub use client::{Answer, Client, PASSWORD};
pub use cluster::Cluster;
pub use digest::{Digest, digest};
pub use feed_bus::FeedBus;
pub use log::{Fold, Logged, list_all, rename, without_login};
pub use mail::{Mail, MailedLink, all_in as mails_in};
pub use metrics::Scrape;
pub use otlp::{OtlpReceiver, Received};
pub use pair::Pair;
pub use process::{Process, binary};
pub use read::read_stream;
pub use secured::Secured;
pub use site::Site;
pub use subscriber::{Subscriber, Told};
pub use system::{ADMIN_EMAIL, ADMIN_PASSWORD, LINK_BASE, Servers, System};
pub use times::Times;
pub use verifier::{KeysOverTls, Verifier, Verifying, forge, jwks, parts};

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Longest wait for a state that must come.
pub const STATE_WAIT_MAX: Duration = Duration::from_secs(60);

/// Waits for a state; fails with the reason when it does not come.
pub async fn wait_for<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + STATE_WAIT_MAX;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
