//! Restarting what dies, as long as that helps.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, interval};

/// How often it is looked whether something still runs.
const WATCH_EVERY: Duration = Duration::from_millis(200);
/// Deaths in a row after which nothing is restarted any more.
const FAILURES_MAX: u32 = 5;
/// What ran this long has recovered: its next death counts as the first.
const RECOVERED_AFTER: Duration = Duration::from_secs(30);

/// A process that can be looked at and started again. Both may block.
pub trait Supervised: Send + Sync + 'static {
    /// What it is called.
    fn name(&self) -> &str;
    /// Whether it runs.
    fn is_running(&self) -> bool;
    /// Starts it again.
    fn restart(&self) -> anyhow::Result<()>;
}

/// Restarts a process whenever it dies; ends with its name when it keeps dying.
pub async fn supervise(process: Arc<impl Supervised>) -> String {
    let mut failures = 0;
    let mut died_at: Option<Instant> = None;
    let mut look = interval(WATCH_EVERY);
    loop {
        look.tick().await;
        let asked = Arc::clone(&process);
        if spawn_blocking(move || asked.is_running()).await.unwrap_or(true) {
            continue;
        }
        if died_at.is_some_and(|died_at| died_at.elapsed() > RECOVERED_AFTER) {
            failures = 0;
        }
        died_at = Some(Instant::now());
        failures += 1;
        if failures > FAILURES_MAX {
            return process.name().to_owned();
        }
        let name = process.name();
        tracing::warn!(process = name, failures, "it died and is restarted");
        let asked = Arc::clone(&process);
        if let Ok(Err(error)) = spawn_blocking(move || asked.restart()).await {
            tracing::warn!(process = name, error = %format!("{error:#}"), "the restart failed");
        }
    }
}
