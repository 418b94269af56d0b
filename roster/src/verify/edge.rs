//! The positions as of which everything is compared: the end of the log, once views and feed have reached it.

use std::time::Duration;

use events::{Position, subjects};
use projector::View;
use projector::feed::project;
use service_kit::event_log::{Followed, Stored};
use tokio::time::{Instant, sleep};
use views::{ViewSet, Views};

use super::report::{Difference, Place, Report};
use super::{Compared, Streams};
use crate::published::{PublishedThrough, unpublished_session_events};
use crate::reading::Reading;

/// Claims on addresses and records of who holds a role.
const RECORDS_FILTER: &str = "uq.>";
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// As of when, and what reached it.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// Position of the last event or revocation of a user.
    pub users: Position,
    /// Position of the last record of any kind in the log of users.
    pub records: Position,
    /// Position of the last event of a session.
    pub sessions: Position,
    /// Sequence of the last message of the feed that is looked at.
    pub feed: Position,
    /// Whether the documents of users can be compared.
    pub user_views: bool,
    /// Whether those of sessions can be.
    pub session_views: bool,
    /// Whether the feed can be.
    pub is_told: bool,
}

/// Waits for views and feed, up to `wait`. What does not come is reported, and not compared.
pub async fn reached(
    streams: &Streams,
    views: &Views,
    compared: Compared,
    wait: Duration,
    report: &mut Report,
) -> anyhow::Result<Edge> {
    let last = |of: Option<Stored>| of.map_or(Position(0), |of| of.position);
    // The event comes last in the write that it belongs to, and is asked for last: a record that stands behind it then
    // belongs to no command that is cut off. Claims and the record of administrators are written with events alone, so
    // one that comes behind the last event is false, or its user changes right now.
    let mut records = last(streams.users.newest_on(RECORDS_FILTER).await?);
    // What no service wrote is read as well, to be reported.
    for filter in [subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER] {
        records = records.max(last(streams.users.newest_on(filter).await?));
    }
    let revocations = last(streams.users.last(subjects::USER_REVOCATIONS_FILTER).await?);
    let events = last(streams.users.last(subjects::USER_EVENTS_FILTER).await?);
    let users = events.max(revocations);
    let sessions = last(streams.sessions.last(subjects::SESSION_EVENTS_FILTER).await?);
    let deadline = Instant::now() + wait;
    let mut edge = Edge {
        users,
        records: users.max(records),
        sessions,
        feed: Position(0),
        user_views: false,
        session_views: false,
        is_told: false,
    };
    loop {
        let has = async |view: View, end| -> anyhow::Result<bool> {
            let checkpoint = view.checkpoint(compared.number(view.set()));
            Ok(views.position(&checkpoint).await? >= end)
        };
        edge.user_views = !compared.has(ViewSet::Users)
            || has(View::Users, users).await? && has(View::Logins, sessions).await?;
        edge.session_views =
            !compared.has(ViewSet::Sessions) || has(View::Sessions, sessions).await?;
        edge.is_told = compared.is_views_alone()
            || edge.is_told
            || is_told(streams, events, users, sessions).await?;
        if edge.user_views && edge.session_views && edge.is_told {
            break;
        }
        if Instant::now() >= deadline {
            let behind = "does not reach the end of the log and was not compared";
            for (place, position, fine) in [
                (Place::UserView, users, edge.user_views),
                (Place::SessionView, sessions, edge.session_views),
                (Place::Feed, users, edge.is_told),
            ] {
                if !fine {
                    report.add(Difference::new(place, behind).at(position));
                }
            }
            break;
        }
        sleep(PAUSE).await;
    }
    edge.feed = streams.feed.end().await?;
    // What is not asked for is not compared.
    edge.user_views &= compared.has(ViewSet::Users);
    edge.session_views &= compared.has(ViewSet::Sessions);
    edge.is_told &= !compared.is_views_alone();
    Ok(edge)
}

/// Whether the feed tells everything up to two positions.
async fn is_told(
    streams: &Streams,
    events: Position,
    users: Position,
    sessions: Position,
) -> anyhow::Result<bool> {
    let told = PublishedThrough::of(&streams.feed).await?;
    if told.users < events {
        return Ok(false);
    }
    // Not every revocation leads to a message that could say that it is told.
    let filter = [subjects::USER_REVOCATIONS_FILTER];
    let mut revocations = Reading::new(&streams.users, &filter, told.users, users);
    while let Some(message) = revocations.next().await? {
        if must_be_told(&message) {
            return Ok(false);
        }
    }
    let logs = (&streams.users, &streams.sessions);
    let untold = unpublished_session_events(logs, told.sessions, sessions, 1).await?;
    Ok(untold.count == 0)
}

fn must_be_told(message: &Followed) -> bool {
    let user = message.subject.rsplit('.').next().and_then(|id| id.parse().ok());
    let stored = serde_json::from_slice(&message.payload).ok();
    let expected = user.zip(stored).and_then(|(user, stored)| {
        project::of_revocation(user, &stored, message.position, message.stored_at)
    });
    expected.is_some()
}
