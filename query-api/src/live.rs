//! The live generation of the views.
//!
//! One document in the database names it, and is read every second. An old reading is not used: a generation that is no
//! longer live is kept up to date for a limited time, and afterwards no command waits for it (ADR 16).

use std::sync::Arc;
use std::time::Duration;

use service_kit::metrics::{GenerationMetrics, Metrics};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use view_kit::ReadError;
use views::{Generations, ViewSet, Views};

/// Pause between two reads.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time limit of one read.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// The generations that are live. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    known: watch::Receiver<Option<Known>>,
    /// Age from which on a reading is not used any more. `roster rebuild` keeps a generation that was live for three
    /// times as long.
    known_for: Duration,
}

#[derive(Clone)]
struct Known {
    generations: Arc<Generations>,
    /// When the read was sent.
    at: Instant,
}

impl Live {
    /// Reads until `stop`. The database may become available later.
    pub fn follow(
        views: Views,
        metrics: &Metrics,
        known_for: Duration,
        stop: CancellationToken,
    ) -> Self {
        let (tell, known) = watch::channel(None);
        let metrics = ViewSet::ALL.map(|set| (set, of(metrics, set)));
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its stop token, which every caller has"
        )]
        tokio::spawn(async move {
            let mut ticks = interval(LOOK_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => {}
                }
                let at = Instant::now();
                // Readiness reports a database that does not answer, and so does every query.
                let Ok(Ok(generations)) = timeout(LOOK_MAX, views.generations()).await else {
                    continue;
                };
                for (set, metrics) in &metrics {
                    metrics.is_live(generations.state(*set).live);
                }
                tell.send_replace(Some(Known { generations: Arc::new(generations), at }));
            }
        });
        Self { known, known_for }
    }

    /// The number of the live generation.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`]: the last reading is too old.
    pub fn number(&self, set: ViewSet) -> Result<u32, ReadError> {
        let known = self.known.borrow();
        match known.as_ref().filter(|known| known.at.elapsed() < self.known_for) {
            Some(known) => Ok(known.generations.state(set).live),
            None => Err(ReadError::Unavailable(
                "the live generation of the views is unknown".to_owned(),
            )),
        }
    }
}

fn of(metrics: &Metrics, set: ViewSet) -> GenerationMetrics {
    metrics.generation(match set {
        ViewSet::Users => "users",
        ViewSet::Sessions => "sessions",
    })
}
