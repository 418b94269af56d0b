//! Which events: from where, up to where, of whom and of which types.

use std::fmt;
use std::str::FromStr;

use events::feed::{FEED_STREAM_SUBJECTS, Happened};
use events::{Position, Timestamp, UserId};
use service_kit::event_log::EventLog;

use crate::cli::WrongUse;
use crate::published::{first, users_published_through};

/// Filters that one consumer is made with.
const FILTERS_MAX: usize = 100;

/// A place in the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A position of the log of users, as commands answer it.
    Position(Position),
    /// When it was told.
    Time(Timestamp),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(time) = text.strip_prefix("time:") {
            return Timestamp::parse(time).map(Self::Time).map_err(|why| why.to_string());
        }
        if let Ok(position) = position(text) {
            return Ok(Self::Position(position));
        }
        Timestamp::parse(text).map(Self::Time).map_err(|_| {
            "give a Roster-Position as in position:17 or a time as in time:2026-01-31T12:00:00Z"
                .to_owned()
        })
    }
}

/// Reads a position: `17` or `position:17`.
pub fn position(text: &str) -> Result<Position, String> {
    let number = text.strip_prefix("position:").unwrap_or(text);
    number.parse().map(Position).map_err(|_| "give a position as in position:17".to_owned())
}

/// Checks the name of a type.
pub fn known_kind(text: &str) -> Result<String, String> {
    let is_known = matches!(text, "users" | "sessions")
        || (Happened::KINDS.contains(&text) && text != "users.v1.snapshot");
    match is_known {
        true => Ok(text.to_owned()),
        false => Err("give users, sessions, or a type as users.v1.registered".to_owned()),
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => position.fmt(f),
            Self::Time(time) => time.fmt(f),
        }
    }
}

/// A piece of the feed, by its sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub behind: Position,
    pub end: Position,
}

impl Range {
    /// From one point to another, both included. What comes into the feed from now on is not in it.
    pub async fn of(
        feed: &EventLog,
        from: Option<Point>,
        to: Option<Point>,
    ) -> anyhow::Result<Self> {
        let last = feed.end().await?;
        let before = |next: Position| Position(next.0.saturating_sub(1));
        let behind = match from {
            None => Position(0),
            Some(Point::Position(from)) => before(
                first(feed, last, |event| users_published_through(event) >= Some(from)).await?,
            ),
            Some(Point::Time(from)) => {
                before(first(feed, last, |event| event.stored_at >= from).await?)
            }
        };
        let end = match to {
            None => last,
            Some(Point::Position(to)) => {
                before(first(feed, last, |event| users_published_through(event) > Some(to)).await?)
            }
            Some(Point::Time(to)) => before(first(feed, last, |event| event.stored_at > to).await?),
        };
        if end < behind {
            return Err(WrongUse("--to is before --from".to_owned()).into());
        }
        Ok(Self { behind, end })
    }
}

/// The filters that types and users stand for; without any, everything.
pub fn filters(kinds: &[String], users: &[UserId]) -> anyhow::Result<Vec<String>> {
    let (mut users_too, mut sessions_too) = (kinds.is_empty(), kinds.is_empty());
    let mut heads = Vec::new();
    for named in kinds {
        match named.as_str() {
            "users" => users_too = true,
            "sessions" => sessions_too = true,
            other => heads.push(known_kind(other).map_err(WrongUse)?),
        }
    }
    for (root, wanted) in FEED_STREAM_SUBJECTS.iter().zip([users_too, sessions_too]) {
        if wanted {
            // A filter that another one covers is refused by the server.
            let head = root.trim_end_matches(".*.*");
            heads.retain(|kind| !kind.starts_with(head));
            heads.push(format!("{head}.*"));
        }
    }
    let of_whom: Vec<String> = match users {
        [] => vec!["*".to_owned()],
        users => users.iter().map(UserId::to_string).collect(),
    };
    let mut filters: Vec<String> = heads
        .iter()
        .flat_map(|head| of_whom.iter().map(move |user| format!("{head}.{user}")))
        .collect();
    filters.sort();
    filters.dedup();
    if filters.len() > FILTERS_MAX {
        let count = filters.len();
        return Err(WrongUse(format!(
            "{count} filters at once and at most {FILTERS_MAX}: name fewer users"
        ))
        .into());
    }
    Ok(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_users_become_filters_of_which_none_covers_another() {
        let of = |kinds: &[&str], users: &[UserId]| {
            let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
            filters(&kinds, users)
        };
        let user: UserId = "0190a1b2-c3d4-7000-8000-000000000001".parse().unwrap();
        assert_eq!(of(&[], &[]).unwrap(), ["sessions.v1.*.*", "users.v1.*.*"]);
        assert_eq!(of(&["users.v1.deleted", "users"], &[]).unwrap(), ["users.v1.*.*"]);
        assert_eq!(
            of(&["users.v1.deleted", "sessions"], &[user, user]).unwrap(),
            [format!("sessions.v1.*.{user}"), format!("users.v1.deleted.{user}")]
        );
        for wrong in ["", "users.v1.snapshot", "users.v2.deleted", "user.deleted.v1", "users.v1.*"]
        {
            assert!(of(&[wrong], &[]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_point_is_a_position_or_a_time_and_shows_as_it_was_given() {
        for text in ["17", "2026-01-31T12:00:00.000Z"] {
            assert_eq!(text.parse::<Point>().unwrap().to_string(), text);
        }
        for (named, text) in
            [("position:17", "17"), ("time:2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000Z")]
        {
            assert_eq!(named.parse::<Point>().unwrap().to_string(), text);
        }
        for wrong in ["", "-1", "now", "2026-01-31", "position:", "position:x", "time:17"] {
            assert!(wrong.parse::<Point>().is_err(), "{wrong}");
        }
    }
}
