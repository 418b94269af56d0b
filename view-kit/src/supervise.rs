//! Keeps a loop running: it retries after any failure, and readiness reports why it stopped.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use service_kit::metrics::ProjectorMetrics;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Pause after a failure; doubles up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The state of a follower, for readiness. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Progress<P>(Arc<Mutex<State<P>>>);

#[derive(Debug)]
struct State<P> {
    /// The position that it reached, as far as this process knows.
    position: P,
    /// Why it stopped, if it did.
    trouble: Option<String>,
    /// Aggregates that are parked.
    parked: usize,
    pause: Duration,
}

impl<P: Default> Default for Progress<P> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            position: P::default(),
            trouble: Some("not started".to_owned()),
            parked: 0,
            pause: PAUSE_FIRST,
        })))
    }
}

impl<P: Clone> Progress<P> {
    /// The position that it reached.
    #[must_use]
    pub fn position(&self) -> P {
        self.lock().position.clone()
    }

    /// Why it stopped, if it did.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// The number of parked aggregates.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.lock().parked
    }

    /// Sets the number of parked aggregates.
    pub fn has_parked(&self, aggregates: usize) {
        self.lock().parked = aggregates;
    }

    /// It starts at a position, and is not healthy yet.
    pub fn starts_at(&self, position: P) {
        self.lock().position = position;
    }

    /// It is running and reached a position.
    pub fn reached(&self, position: P) {
        let mut state = self.lock();
        state.position = position;
        state.trouble = None;
        state.pause = PAUSE_FIRST;
    }

    fn failed(&self, error: &impl Display) {
        self.lock().trouble = Some(error.to_string());
    }

    fn pause(&self) -> Duration {
        let mut state = self.lock();
        let pause = state.pause;
        state.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A loop that runs until something fails, and is started again from where its data says it is.
pub trait Follower: Sync {
    /// The type of its position.
    type Position: Clone + Send;
    /// The type of its failures.
    type Error: Display + Send;

    /// The stream that names it.
    fn stream(&self) -> &'static str;
    /// Its state for readiness.
    fn progress(&self) -> &Progress<Self::Position>;
    /// Its counters.
    fn metrics(&self) -> &ProjectorMetrics;
    /// Whether there is nothing to follow any more.
    fn is_over(&self) -> bool {
        false
    }
    /// One run.
    fn run_once(&self) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Runs it again and again until `stop`, or until there is nothing to follow.
pub async fn supervised(follower: &impl Follower, stop: &CancellationToken) {
    while !stop.is_cancelled() && !follower.is_over() {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = follower.run_once() => ended,
        };
        if let Err(error) = ended {
            let stream = follower.stream();
            tracing::warn!(stream, %error, "the follower failed; restarting from its checkpoint");
            follower.progress().failed(&error);
            follower.metrics().restarted();
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(follower.progress().pause()) => {}
        }
    }
}

/// The readiness check on parked aggregates. `see` names the place that lists them.
///
/// # Errors
/// There are any.
pub fn none_parked(aggregates: usize, see: &str) -> Result<(), String> {
    match aggregates {
        0 => Ok(()),
        some => Err(format!("{some} parked: see {see}")),
    }
}
