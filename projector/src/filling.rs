//! Filling a standby generation of the users.
//!
//! The current state of a user needs only the last event, and the history needs all of them. So the documents of users
//! are written first, from the last message of each subject. Then the events are read in order as usual, and states
//! that are already stored are not written again. With five events per user that saves four of five writes to the
//! collection with nine indexes.

use std::time::Duration;

use events::Position;
use futures::StreamExt;
use service_kit::event_log::{Followed, Start, Stored};
use tokio::time::{Instant, timeout};
use view_kit::store::checkpoint;
use view_kit::{Projection, RunError, Target};
use views::{states_begun_checkpoint, states_checkpoint};

use crate::fold::IntoView;
use crate::generations::View;
use crate::target::InGeneration;

/// How long a message that the log holds may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// The position up to which a generation has the states. A new, empty generation gets them now.
pub(crate) async fn states<F: IntoView>(
    projection: &Projection<InGeneration<F>>,
    position: Position,
) -> Result<Position, RunError> {
    if F::VIEW != View::Users {
        return Ok(Position(0));
    }
    let target = &projection.target;
    let name = states_checkpoint(target.generation);
    let known = projection.position(&name).await?;
    if known > Position(0) || position > Position(0) || !target.is_filling() {
        return Ok(known);
    }
    // Anything stored after this arrives later anyway.
    let end = projection.log.end().await?;
    if write_states(projection).await? {
        projection.bounded(checkpoint(&target.views, &name, end, None)).await?;
    }
    projection.position(&name).await
}

/// Whether all of them are written: the generation may be removed in the meantime. States are written in the order of
/// the log, so after a restart those up to the last checkpoint need not be written again: if a subject was written to
/// since, its last message has a later position.
async fn write_states<F: IntoView>(
    projection: &Projection<InGeneration<F>>,
) -> Result<bool, RunError> {
    let target = &projection.target;
    let name = states_begun_checkpoint(target.generation);
    let written = projection.position(&name).await?;
    let following = projection.log.follow(F::FILTERS, Start::LastOfEach).await?;
    let mut pending = following.pending;
    let mut chunks = Box::pin(projection.chunks(following.messages));
    let mut last = Position(0);
    while pending > 0 {
        let chunk = timeout(ARRIVAL_MAX, chunks.next()).await;
        let chunk = chunk.ok().flatten().ok_or(RunError::Missing)?;
        let mut states = F::default();
        for next in chunk {
            let message = next?;
            pending = message.pending;
            if message.position < last {
                return Err(RunError::Disordered(last, message.position));
            }
            last = message.position;
            if last <= written {
                continue;
            }
            // An unreadable message is met again in order, and parked there.
            let Some(message) = of_a_writer(projection, message).await? else { continue };
            let _ = states.add(&message);
        }
        let began = Instant::now();
        states.keep_states();
        projection.bounded(target.write(&states)).await?;
        if target.is_over() {
            return Ok(false);
        }
        projection.bounded(checkpoint(&target.views, &name, last, None)).await?;
        projection.rest(began.elapsed()).await;
    }
    Ok(true)
}

/// The message, or the one before it on its subject if no writer of the log stored it.
async fn of_a_writer<F: IntoView>(
    projection: &Projection<InGeneration<F>>,
    message: Followed,
) -> Result<Option<Followed>, RunError> {
    if !message.is_foreign {
        return Ok(Some(message));
    }
    let beneath = projection.log.last(&message.subject).await?;
    Ok(beneath.map(|Stored { position, stored_at, payload, .. }| Followed {
        position,
        stored_at,
        payload,
        is_foreign: false,
        ..message
    }))
}
