//! Working on what a consumer gives, whatever happens to the bus.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{ConsumerSpec, EventLog, Task, WorkError};

/// Pause after the bus failed; doubled up to the maximum.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest pause after the bus failed.
const PAUSE_MAX: Duration = Duration::from_secs(2);

impl EventLog {
    /// Takes tasks from a consumer until `stop`, `at_once_max` of them at once, and has each worked on. What was
    /// begun goes on to its end.
    pub async fn work_off<F>(
        &self,
        consumer: &ConsumerSpec,
        at_once_max: usize,
        stop: &CancellationToken,
        work: impl Fn(Task) -> F + Sync,
    ) where
        F: Future<Output = ()> + Send,
    {
        let mut pause = PAUSE_FIRST;
        while !stop.is_cancelled() {
            match self.work_off_once(consumer, at_once_max, stop, &work).await {
                Ok(()) => pause = PAUSE_FIRST,
                Err(error) => {
                    let name = consumer.name();
                    tracing::warn!(%error, consumer = %name, "work is asked for again");
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                    }
                }
            }
        }
    }

    async fn work_off_once<F>(
        &self,
        consumer: &ConsumerSpec,
        at_once_max: usize,
        stop: &CancellationToken,
        work: &(impl Fn(Task) -> F + Sync),
    ) -> Result<(), WorkError>
    where
        F: Future<Output = ()> + Send,
    {
        let tasks = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            tasks = self.take(consumer, at_once_max) => tasks?,
        };
        let mut results = tasks
            .take_until(stop.cancelled())
            .map(|task| {
                async move {
                    let task = task?;
                    if task.is_foreign() {
                        self.passes_over(task.subject(), task.position);
                        return task.ack().await;
                    }
                    work(task).await;
                    Ok(())
                }
                .boxed()
            })
            .buffer_unordered(at_once_max)
            .boxed();
        // What was begun goes on to its end when something else fails.
        let mut ended = Ok(());
        while let Some(result) = results.next().await {
            ended = ended.and(result);
        }
        ended
    }
}
