//! The projector of a service with one view: everything that keeps it following its log.

use std::sync::Arc;

use async_nats::{Client, SubscribeError};
use service_kit::event_log::EventLog;
use service_kit::health::Readiness;
use service_kit::metrics::Metrics;
use service_kit::telemetry::Telemetry;
use tokio_util::sync::CancellationToken;

use crate::database::ViewDatabase;
use crate::lag::{age_of_missing, keeps_up};
use crate::one_view::{OneView, View};
use crate::retry::{RetryRequests, retry_subject};
use crate::run::{FollowLimits, Projection};
use crate::supervise::{Progress, none_parked, supervised};
use crate::target::Target;

/// The views cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The log that was passed is not the one that the views are built from.
    #[error("the views are built from the stream {wanted}, and this is {found}")]
    AnotherStream {
        /// The stream of the fold.
        wanted: &'static str,
        /// The stream that was passed.
        found: String,
    },
    /// Requests to retry parked aggregates cannot be received.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
}

/// Keeps one view up to date with its log.
pub struct ViewFollower<V: View> {
    projection: Projection<OneView<V>>,
    wishes: RetryRequests,
}

impl<V: View> ViewFollower<V> {
    /// For a verified log. The database may become available later.
    ///
    /// # Errors
    /// [`BuildError`]: nothing was started.
    pub async fn build(
        client: &Client,
        log: EventLog,
        database: ViewDatabase,
        limits: FollowLimits,
        watch: &Telemetry,
    ) -> Result<Self, BuildError> {
        if log.stream() != V::STREAM {
            let found = log.stream().to_owned();
            return Err(BuildError::AnotherStream { wanted: V::STREAM, found });
        }
        let wishes = RetryRequests::listen(client, retry_subject(V::NAME)).await?;
        let projection = Projection {
            log,
            target: Arc::new(OneView::new(client, database)),
            limits,
            progress: Progress::default(),
            metrics: watch.metrics.projector(V::STREAM),
            tracer: watch.tracer.clone(),
            retries: wishes.heard(),
        };
        let follower = Self { projection, wishes };
        follower.watch(&watch.metrics);
        Ok(follower)
    }

    /// Reports the age of the oldest event that the views lack, at every scrape of the metrics.
    fn watch(&self, metrics: &Metrics) {
        let Projection { log, progress, metrics: watched, .. } = &self.projection;
        let (log, progress, watched) = (log.clone(), progress.clone(), watched.clone());
        metrics.sample(move || {
            let (log, progress, watched) = (log.clone(), progress.clone(), watched.clone());
            async move {
                // A log that does not answer is reported where it is read, not here.
                if progress.trouble().is_none()
                    && let Ok(age) = age_of_missing(&log, V::FILTERS, progress.position()).await
                {
                    watched.lags(age);
                }
            }
        });
    }

    /// Adds the readiness checks: the views have caught up with the log once and have not stopped, the oldest event
    /// that they lack is not too old, and nothing is parked.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let Projection { log, progress, target, limits, .. } = &self.projection;
        let (log, progress, target) = (log.clone(), progress.clone(), target.clone());
        let lag_max = limits.lag_max;
        Readiness::default().with(V::NAME, move || {
            let (log, progress, target) = (log.clone(), progress.clone(), target.clone());
            async move {
                if let Some(trouble) = progress.trouble() {
                    return Err(trouble);
                }
                if target.is_filling() {
                    return Err("the views are being filled from the start of the log".to_owned());
                }
                keeps_up(&log, V::FILTERS, progress.position(), lag_max).await?;
                none_parked(progress.parked(), "the collection `parked` of the database")
            }
        })
    }

    /// Runs until `stop`. After any failure it retries from the checkpoint.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(supervised(&self.projection, &stop), self.wishes.run(&stop));
    }
}
