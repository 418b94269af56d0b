//! Filling a new generation of the users.
//!
//! Current state needs the last event of each user alone, and the history needs all. So the documents of users
//! are written first, from the last message of each subject; then the events are read in order as always, and
//! what they say of a state that is there already is not written again. With five events for each user that
//! saves four of five writes to the collection that has nine indexes.

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

/// How long a message may take to come that the log holds.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// The position up to which a generation has the states. A new one that has nothing is given them now.
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
    // What is stored from here on comes later in any case.
    let end = projection.log.end().await?;
    if write_states(projection).await? {
        projection.bounded(checkpoint(&target.views, &name, end, None)).await?;
    }
    projection.position(&name).await
}

/// Whether all of them are written: the generation may be removed meanwhile. They come in the order of the log. So
/// those up to a position need not be written again by whoever begins anew: the last message of a subject that was
/// written to since stands behind it.
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
            // What cannot be read is met again in its place, and parked there.
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

/// The message, or what is beneath it when no writer of the log wrote it.
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
