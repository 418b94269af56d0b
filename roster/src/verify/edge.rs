//! The positions as of which everything is compared: the end of the log, once views and feed have reached it.

use std::time::Duration;

use events::{Position, subjects};
use service_kit::event_log::Stored;
use tokio::time::{Instant, sleep};
use views::{Views, sessions_checkpoint, users_checkpoint};

use super::Streams;
use super::report::{Difference, Place, Report};
use crate::told::{Told, untold_of_sessions};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// As of when, and what reached it.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// Position of the last event of a user.
    pub users: Position,
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
    wait: Duration,
    report: &mut Report,
) -> anyhow::Result<Edge> {
    let last = |of: Option<Stored>| of.map_or(Position(0), |of| of.position);
    // An event ends the write it belongs to, so nothing of a command is cut off behind it.
    let users = last(streams.users.last(subjects::USER_EVENTS_FILTER).await?);
    let sessions = last(streams.sessions.last(subjects::SESSION_EVENTS_FILTER).await?);
    let deadline = Instant::now() + wait;
    let mut edge = Edge {
        users,
        sessions,
        feed: Position(0),
        user_views: false,
        session_views: false,
        is_told: false,
    };
    loop {
        let of_users = views.position(&users_checkpoint()).await?;
        let of_sessions = views.position(&sessions_checkpoint()).await?;
        edge.user_views = of_users >= users;
        edge.session_views = of_sessions >= sessions;
        edge.is_told = edge.is_told || is_told(streams, users, sessions).await?;
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
    Ok(edge)
}

/// Whether the feed tells everything up to two positions.
async fn is_told(streams: &Streams, users: Position, sessions: Position) -> anyhow::Result<bool> {
    let told = Told::of(&streams.feed).await?;
    if told.users < users {
        return Ok(false);
    }
    let logs = (&streams.users, &streams.sessions);
    let untold = untold_of_sessions(logs, told.sessions, sessions, 1).await?;
    Ok(untold.count == 0)
}
