//! How much is taken in at once, and how long is rested after it: as it comes where somebody waits for the views, and
//! in large batches with rests between where nobody does.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use service_kit::event_log::{FollowError, Followed};
use tokio::time::{sleep, timeout};

use crate::run::Projection;
use crate::target::Target;

/// How many batches' worth views that are being filled take in at once. The waits for the disk cost the same
/// whatever stands in a write; but with more of them a busy database does not answer in time.
const BATCHES: usize = 2;
/// Longest rest after a batch: below the silence by which a follower counts as hung.
const REST_MAX: Duration = Duration::from_secs(1);
/// How long the next message is waited for when there is one.
const PATIENCE: Duration = Duration::from_millis(100);

impl<T: Target> Projection<T> {
    /// Leaves the database to others for as long as a batch took, while nobody waits for these views.
    pub async fn rest(&self, took: Duration) {
        if self.target.is_filling() {
            sleep(took.min(REST_MAX)).await;
        }
    }

    /// Messages as they come, as many as are there. Where nobody waits, as many as there will be.
    pub fn chunks(
        &self,
        messages: BoxStream<'static, Result<Followed, FollowError>>,
    ) -> impl Stream<Item = Vec<Result<Followed, FollowError>>> + use<T> {
        let (target, batch_max) = (self.target.clone(), self.limits.batch_events_max);
        stream::unfold(messages, move |mut messages| {
            let patient = target.is_filling();
            let max = if patient { batch_max * BATCHES } else { batch_max };
            async move {
                let mut chunk = Vec::new();
                while chunk.len() < max {
                    let next = match chunk.last() {
                        None => messages.next().await,
                        Some(Ok(Followed { pending, .. })) if patient && *pending > 0 => {
                            // One that is erased under way never comes.
                            timeout(PATIENCE, messages.next()).await.ok().flatten()
                        }
                        Some(_) => messages.next().now_or_never().flatten(),
                    };
                    let Some(next) = next else { break };
                    chunk.push(next);
                }
                (!chunk.is_empty()).then_some((chunk, messages))
            }
        })
    }
}
