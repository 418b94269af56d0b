//! The positions as of which everything is compared: the end of the log, once views and feed have reached it.

use std::time::Duration;

use events::{Position, subjects};
use projector::View;
use service_kit::event_log::Stored;
use tokio::time::{Instant, sleep};
use views::{Kind, Views};

use super::report::{Difference, Place, Report};
use super::{Compared, Streams};
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
    compared: Compared,
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
        let has = async |view: View, end| -> anyhow::Result<bool> {
            let checkpoint = view.checkpoint(compared.number(view.kind()));
            Ok(views.position(&checkpoint).await? >= end)
        };
        edge.user_views = !compared.has(Kind::Users)
            || has(View::Users, users).await? && has(View::Logins, sessions).await?;
        edge.session_views = !compared.has(Kind::Sessions) || has(View::Sessions, sessions).await?;
        edge.is_told =
            compared.is_views_alone() || edge.is_told || is_told(streams, users, sessions).await?;
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
    edge.user_views &= compared.has(Kind::Users);
    edge.session_views &= compared.has(Kind::Sessions);
    edge.is_told &= !compared.is_views_alone();
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
