//! What the operator asks for: which events, and from where.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;
use events::feed::{FEED_STREAM_SUBJECTS, Happened};
use events::{Position, UserId};
use nats_access::SubscriberName;
use service_kit::event_log::EventLog;

use crate::cli::WrongUse;
use crate::published::{first, users_published_through};
use crate::replay::Point;

/// Everything that happens to users.
const USERS: &str = FEED_STREAM_SUBJECTS[0];
/// Everything that happens to sessions.
const SESSIONS: &str = FEED_STREAM_SUBJECTS[1];

/// Where a subscriber wants to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Start,
    Now,
    Snapshot,
    /// With what happened at a position of the log of users, or what was told at a time.
    At(Point),
}

impl FromStr for From {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "start" => Self::Start,
            "now" => Self::Now,
            "snapshot" => Self::Snapshot,
            other => Self::At(
                other.parse().map_err(|why| format!("give start, snapshot or now; or {why}"))?,
            ),
        })
    }
}

impl fmt::Display for From {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::Now => f.write_str("now"),
            Self::Snapshot => f.write_str("snapshot"),
            Self::At(point) => point.fmt(f),
        }
    }
}

/// Checks a filter as the operator says it.
pub fn filter(text: &str) -> Result<String, String> {
    filters(&[text.to_owned()]).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Reads the name of a subscriber.
pub fn name(text: &str) -> Result<SubscriberName, String> {
    SubscriberName::parse(text).map_err(|error| error.to_string())
}

/// The filters that the words of the operator stand for; without any, all about users.
///
/// A word that lets nothing through is most likely a mistake, and is refused.
pub fn filters(words: &[String]) -> anyhow::Result<Vec<String>> {
    let mut filters = Vec::new();
    for word in words {
        filters.push(match word.as_str() {
            "users" | "users.v1.>" | USERS => USERS.to_owned(),
            "sessions" | "sessions.v1.>" | SESSIONS => SESSIONS.to_owned(),
            other => {
                let tokens: Vec<&str> = other.split('.').collect();
                let fits = match tokens.as_slice() {
                    [root, version, event, user] => {
                        let kind = format!("{root}.{version}.{event}");
                        let known = Happened::KINDS.contains(&kind.as_str())
                            || (*event == "*"
                                && matches!(kind.as_str(), "users.v1.*" | "sessions.v1.*"));
                        known && (*user == "*" || user.parse::<UserId>().is_ok())
                    }
                    _ => false,
                };
                if !fits || other.starts_with("users.v1.snapshot") {
                    bail!("give users, sessions, or a subject as in users.v1.registered.*");
                }
                other.to_owned()
            }
        });
    }
    if filters.is_empty() {
        filters.push(USERS.to_owned());
    }
    Ok(filters)
}

/// Whether nothing about users is held back.
pub fn has_all_of_users(filters: &[String]) -> bool {
    filters.iter().any(|filter| filter == USERS)
}

/// Whether it is told of every deletion.
pub fn has_deletions(filters: &[String]) -> bool {
    let deletions = [USERS, "users.v1.deleted.*"];
    filters.iter().any(|filter| deletions.contains(&filter.as_str()))
}

/// The first sequence of the feed that tells of a position of the log of users, or of a later one.
pub async fn sequence_of(
    (feed, end): (&EventLog, Position),
    users: &EventLog,
    position: Position,
) -> anyhow::Result<Position> {
    // Of the log and not of the feed, which may be behind. The one after it is what comes next.
    let last = users.end().await?;
    if position.0 > last.0.saturating_add(1) {
        return Err(WrongUse(format!(
            "--from position:{position} is beyond the end: the log of users is at position {last}. Take --from now for what \
             comes"
        ))
        .into());
    }
    Ok(first(feed, end, |message| users_published_through(message) >= Some(position)).await?)
}

#[cfg(test)]
mod tests {
    use events::Timestamp;

    use super::*;

    #[test]
    fn words_become_filters() {
        let of = |words: &[&str]| {
            filters(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(of(&[]).unwrap(), ["users.v1.*.*"]);
        assert_eq!(of(&["users", "sessions"]).unwrap(), ["users.v1.*.*", "sessions.v1.*.*"]);
        assert_eq!(of(&["users.v1.>"]).unwrap(), ["users.v1.*.*"]);
        let one = "users.v1.deleted.0190a1b2-c3d4-7000-8000-000000000001";
        assert_eq!(of(&["users.v1.registered.*", one]).unwrap(), ["users.v1.registered.*", one]);
        assert_eq!(of(&["sessions.v1.theft_detected.*"]).unwrap().len(), 1);
        for wrong in [
            ">",
            "*",
            "users.v2.>",
            "users.v1.*",
            "users.v1.registerd.*",
            "users.v1.registered.x",
            "sessions.v1.registered.*",
            "snapshot.v1.other.*",
            "users.v1.snapshot.*",
            "ev.user.*",
            "users.v1.registered.>",
            "*.v1.*.*",
            "",
        ] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
        assert!(has_all_of_users(&of(&["sessions", "users"]).unwrap()));
        assert!(!has_all_of_users(&of(&["users.v1.deleted.*"]).unwrap()));
        for told in [&["users"][..], &["sessions", "users.v1.deleted.*"]] {
            assert!(has_deletions(&of(told).unwrap()), "{told:?}");
        }
        for (kept, from_them) in [("users.v1.registered.*", false), (one, false)] {
            assert_eq!(has_deletions(&of(&[kept]).unwrap()), from_them, "{kept}");
        }
    }

    #[test]
    fn a_beginning_is_a_word_a_position_or_a_time() {
        let from = |text: &str| text.parse::<From>();
        assert_eq!(from("start").unwrap(), From::Start);
        assert_eq!(from("snapshot").unwrap(), From::Snapshot);
        assert_eq!(from("now").unwrap(), From::Now);
        for text in ["17", "position:17"] {
            assert_eq!(from(text).unwrap(), From::At(Point::Position(Position(17))));
        }
        let time = Timestamp::parse("2026-01-31T12:00:00.000Z").unwrap();
        for text in ["2026-01-31T12:00:00Z", "time:2026-01-31T12:00:00Z"] {
            assert_eq!(from(text).unwrap(), From::At(Point::Time(time)));
        }
        for wrong in ["", "end", "-1", "2026-01-31", "yesterday", "position:now"] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }
}
