//! The states of all users as the feed tells them up to a point, for a subscriber that begins there.
//!
//! The feed is read twice: once for the last event of each user, and once for the states. So what is held in
//! memory is a few dozen bytes for each user, and not the users.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use events::feed::{
    FEED_STREAM_SUBJECTS, FeedEvent, Happened, SNAPSHOT, SNAPSHOTS_STREAM, UserData, snapshot,
};
use events::{CommandId, Position, UserId};
use indicatif::{ProgressBar, ProgressStyle};
use nats_access::SubscriberName;
use service_kit::ambient;
use service_kit::event_log::{Append, EventLog, Followed, Guard, Limits, Outcome, Write};
use service_kit::nats;

use super::Operator;
use crate::reading::Reading;

/// States in one write.
const WRITE_STATES_MAX: usize = 500;
/// What happens to users, and nothing else.
const USERS: &str = FEED_STREAM_SUBJECTS[0];
/// The last event of a user.
const DELETIONS: &str = "users.v1.deleted.*";

/// Writes them, and makes the consumer that gives them out.
pub async fn write(
    operator: &Operator<'_>,
    name: &SubscriberName,
    end: Position,
    ack_wait: Duration,
) -> anyhow::Result<()> {
    let client = nats::connect(&operator.settings.nats, "operator").await?;
    let snapshots = EventLog::new(client, SNAPSHOTS_STREAM, Limits::of(operator.settings));
    // What an earlier try may have left.
    operator.feed.drop_snapshots(name.as_str()).await?;

    let bar = ProgressBar::new(end.0 * 2).with_style(ProgressStyle::with_template(
        "{wide_bar} {percent}%  {per_sec}  {eta} left  {msg}",
    )?);
    let mut last: HashMap<UserId, Position> = HashMap::new();
    each(&operator.feed, USERS, Position(0), end, async |message| {
        bar.set_position(message.position.0);
        let user = user_in(&message)?;
        match message.subject.starts_with("users.v1.deleted.") {
            true => last.remove(&user),
            false => last.insert(user, message.position),
        };
        Ok(())
    })
    .await?;

    let mut writes = Vec::with_capacity(WRITE_STATES_MAX);
    each(&operator.feed, USERS, Position(0), end, async |message| {
        bar.set_position(end.0 + message.position.0);
        let user = user_in(&message)?;
        if last.get(&user) == Some(&message.position) {
            let payload = state(&message)?;
            writes.push(Write::new(snapshot(name.as_str(), user), Guard::absent(), payload));
        }
        if writes.len() == WRITE_STATES_MAX {
            store(&snapshots, std::mem::take(&mut writes)).await?;
        }
        Ok(())
    })
    .await?;
    store(&snapshots, writes).await?;

    // Who was deleted while the states were written may have been erased before theirs was.
    let now = operator.feed.end().await?;
    each(&operator.feed, DELETIONS, end, now, async |message| {
        let user = user_in(&message)?;
        if let Some(stored) = snapshots.last(&snapshot(name.as_str(), user)).await? {
            snapshots.erase(stored.position).await?;
        }
        Ok(())
    })
    .await?;
    snapshots.add_snapshot_consumer(name.as_str(), ack_wait).await?;
    bar.finish_and_clear();
    Ok(())
}

/// Every message on `filter` behind one position and up to another.
async fn each(
    feed: &EventLog,
    filter: &str,
    behind: Position,
    end: Position,
    mut work: impl AsyncFnMut(Followed) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut messages = Reading::new(feed, &[filter], behind, end);
    while let Some(message) = messages.next().await? {
        if !message.is_foreign {
            work(message).await?;
        }
    }
    Ok(())
}

fn user_in(message: &Followed) -> anyhow::Result<UserId> {
    let user = message.subject.rsplit('.').next().unwrap_or_default();
    user.parse().with_context(|| format!("message {} of the feed names nobody", message.position))
}

/// The state after an event, as an event of its own.
fn state(message: &Followed) -> anyhow::Result<Vec<u8>> {
    let at = || format!("message {} of the feed cannot be read", message.position);
    let event = FeedEvent::from_json(&message.payload).with_context(at)?;
    let user = event.happened.user().cloned().with_context(at)?;
    let state = FeedEvent {
        id: ambient::new_uuid(),
        causation_id: Some(event.id.to_string()),
        data_schema: event.data_schema_of(SNAPSHOT),
        happened: Happened::Snapshot(UserData { user }),
        ..event
    };
    Ok(state.to_json()?)
}

async fn store(snapshots: &EventLog, mut writes: Vec<Write>) -> anyhow::Result<()> {
    let Some(last) = writes.pop() else { return Ok(()) };
    let command = CommandId::from_uuid(ambient::new_uuid());
    let append = writes.into_iter().fold(Append::new(command, last), Append::with);
    match snapshots.append(&append).await {
        Outcome::Stored(_) => Ok(()),
        Outcome::Full => bail!(
            "the stream of snapshots is full: raise feed.snapshots_bytes_max and run `roster provision`"
        ),
        failed @ (Outcome::Conflict
        | Outcome::Duplicate
        | Outcome::Unknown
        | Outcome::Unavailable
        | Outcome::Refused(..)) => bail!("the states were not stored: {failed:?}"),
    }
}
