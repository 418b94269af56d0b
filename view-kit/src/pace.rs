//! The pace of a follower: as messages arrive where commands wait for the views, and in large batches with rests in
//! between where they do not.

use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt, stream};
use service_kit::event_log::{FollowError, Followed};
use tokio::time::{sleep, timeout};

use crate::run::Projection;
use crate::target::Target;

/// Size of a batch while views are filled, as a multiple of the usual one. The waits for the disk cost the same
/// whatever the size of a write, but with more than this a busy database does not answer in time.
const BATCHES: usize = 2;
/// Longest rest after a batch: below the silence after which a follower counts as hung.
const REST_MAX: Duration = Duration::from_secs(1);
/// How long to wait for the next message if there is one.
const PATIENCE: Duration = Duration::from_millis(100);

impl<T: Target> Projection<T> {
    /// Leaves the database to others for as long as a batch took, if no command waits for these views.
    pub async fn rest(&self, took: Duration) {
        if self.target.is_filling() {
            sleep(took.min(REST_MAX)).await;
        }
    }

    /// Messages as they arrive. While no command waits, up to a full batch.
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
                            // A message that is erased in the meantime never arrives.
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
