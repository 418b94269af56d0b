//! Calling the handler, again and again for a while.

use std::fmt::Display;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Settings;
use crate::feed::FeedEvent;

/// What came of an event.
#[derive(Debug)]
pub(super) enum Outcome {
    Handled,
    /// It was tried for long enough; why it failed the last time.
    Failed(String),
    /// The subscriber stops, and the event has not been handled.
    PutOff,
}

/// Calls the handler until it succeeds, time is over, or the subscriber stops between two attempts.
pub(super) async fn persist<H, F, E>(
    settings: &Settings,
    stop: &CancellationToken,
    handler: &H,
    event: &FeedEvent,
) -> Outcome
where
    H: Fn(FeedEvent) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let end = Instant::now() + settings.retry_for;
    let mut pause = settings.retry_first;
    loop {
        let failure = match attempt(settings, handler, event).await {
            Ok(()) => return Outcome::Handled,
            Err(failure) => failure,
        };
        if Instant::now() + pause > end {
            return Outcome::Failed(failure);
        }
        tracing::warn!(
            kind = event.happened.kind(),
            revision = event.revision.0,
            error = failure,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "an event could not be handled, and is tried again"
        );
        tokio::select! {
            () = stop.cancelled() => return Outcome::PutOff,
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(settings.retry_pause_max).max(Duration::from_millis(1));
    }
}

/// Calls the handler once. A panic is a failure like others: it must not stop everybody else's events.
pub(super) async fn attempt<H, F, E>(
    settings: &Settings,
    handler: &H,
    event: &FeedEvent,
) -> Result<(), String>
where
    H: Fn(FeedEvent) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    // Within the guarded future, as the call itself may panic too.
    let call = async { handler(event.clone()).await };
    match timeout(settings.attempt_max, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(Ok(()))) => Ok(()),
        Ok(Ok(Err(error))) => Err(error.to_string()),
        Ok(Err(_)) => Err("the handler panicked".to_owned()),
        Err(_) => Err(format!("the handler took more than {:?}", settings.attempt_max)),
    }
}
