//! The projector of a service with one kind of view: everything that keeps it following its log.

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
    /// It was given another log than the views are made from.
    #[error("the views are made from the stream {wanted}, and this is {found}")]
    AnotherStream {
        /// What the fold is made from.
        wanted: &'static str,
        /// What was given.
        found: String,
    },
    /// Nobody would hear that what is parked is to be tried again.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
}

/// Keeps one kind of view at the end of its log.
pub struct ViewFollower<V: View> {
    projection: Projection<OneView<V>>,
    wishes: RetryRequests,
}

impl<V: View> ViewFollower<V> {
    /// Over a log that was verified, and a database that may come later.
    ///
    /// # Errors
    /// [`BuildError`]: nothing runs.
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

    /// Lets every scrape see how old the oldest event is that the views lack.
    fn watch(&self, metrics: &Metrics) {
        let Projection { log, progress, metrics: watched, .. } = &self.projection;
        let (log, progress, watched) = (log.clone(), progress.clone(), watched.clone());
        metrics.sample(move || {
            let (log, progress, watched) = (log.clone(), progress.clone(), watched.clone());
            async move {
                // A log that does not answer is told by what it is asked for, not here.
                if progress.trouble().is_none()
                    && let Ok(age) = age_of_missing(&log, V::FILTERS, progress.position()).await
                {
                    watched.lags(age);
                }
            }
        });
    }

    /// What must hold for the views to follow the log: they do not stand still, have caught up with it once, lack no
    /// event that is too old, and nothing is parked.
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

    /// Runs until `stop`. Whatever fails is tried again, from the checkpoint.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(supervised(&self.projection, &stop), self.wishes.run(&stop));
    }
}
