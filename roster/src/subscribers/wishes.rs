//! What the operator asks for: which events, and from where.

use std::str::FromStr;

use anyhow::bail;
use events::feed::{FEED_STREAM_SUBJECTS, Happened};
use events::{Position, Timestamp, UserId};
use service_kit::event_log::EventLog;

use crate::told::{first, told_of_users};

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
    /// A position of the log of users, as commands answer it.
    Position(Position),
    Time(Timestamp),
}

impl FromStr for From {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        Ok(match text {
            "start" => Self::Start,
            "now" => Self::Now,
            "snapshot" => Self::Snapshot,
            other => match (other.parse().map(Position), Timestamp::try_from(other.to_owned())) {
                (Ok(position), _) => Self::Position(position),
                (_, Ok(time)) => Self::Time(time),
                (Err(_), Err(_)) => bail!(
                    "--from {other}: give start, snapshot, now, a Roster-Position or a time as in 2026-01-31T12:00:00Z"
                ),
            },
        })
    }
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
                            || (*event == "*" && matches!(kind.as_str(), "users.v1.*" | "sessions.v1.*"));
                        known && (*user == "*" || user.parse::<UserId>().is_ok())
                    }
                    _ => false,
                };
                if !fits || other.starts_with("users.v1.snapshot") {
                    bail!(
                        "--filter {other}: give users, sessions, or a subject as in users.v1.registered.*"
                    );
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
    feed: &EventLog,
    position: Position,
    end: Position,
) -> anyhow::Result<Position> {
    Ok(first(feed, end, |message| told_of_users(message) >= Some(position)).await?)
}

#[cfg(test)]
mod tests {
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
        assert_eq!(from("17").unwrap(), From::Position(Position(17)));
        let time = Timestamp::try_from("2026-01-31T12:00:00.000Z".to_owned()).unwrap();
        assert_eq!(from("2026-01-31T12:00:00Z").unwrap(), From::Time(time));
        for wrong in ["", "end", "-1", "2026-01-31", "yesterday"] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }
}
