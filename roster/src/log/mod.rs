//! `roster events`: looking at the log and at the feed. Nothing is written, and nothing secret is shown.

mod show;
mod stats;
mod tail;

use std::io::Write;
use std::process::ExitCode;

use clap::ValueEnum;
use events::feed::{FEED_STREAM, Happened};
use events::{Position, SessionId, UserId, subjects};
use serde::{Deserialize, Serialize};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::nats;

use crate::cli::{EventsAction, EventsArgs, WrongUse};
pub use stats::By;

/// Which events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// What happens to users: the stream USERS
    Users,
    /// What happens to sessions: the stream SESSIONS
    Sessions,
    /// What other services are told: the stream USER_EVENTS
    Feed,
}

impl Stream {
    const fn name(self) -> &'static str {
        match self {
            Self::Users => subjects::USERS_STREAM,
            Self::Sessions => subjects::SESSIONS_STREAM,
            Self::Feed => FEED_STREAM,
        }
    }

    /// The subjects of its events, of all users or of one.
    fn filters(self, user: Option<UserId>) -> Vec<String> {
        let user = user.map_or_else(|| "*".to_owned(), |user| user.to_string());
        match self {
            Self::Users => vec![format!("ev.user.{user}")],
            Self::Sessions => vec![format!("ev.session.{user}.*")],
            Self::Feed => vec![format!("users.v1.*.{user}"), format!("sessions.v1.*.{user}")],
        }
    }

    /// A type as its events name it, out of the name that log or feed have for it.
    fn kind(self, text: &str) -> Result<String, String> {
        let other = || {
            let known: Vec<String> = self.kinds();
            format!("--type {text}: {} has {}", self.name(), known.join(", "))
        };
        let parts: Vec<&str> = text.split('.').collect();
        let event = match parts.as_slice() {
            [root, "v1", event] if matches!(*root, "users" | "sessions") => {
                Some((root.trim_end_matches('s'), *event))
            }
            [root, event] | [root, event, "v1"] if matches!(*root, "user" | "session") => {
                Some((*root, *event))
            }
            _ => None,
        };
        let (root, event) = event.ok_or_else(other)?;
        let named = match self {
            Self::Users | Self::Sessions => format!("{root}.{event}"),
            Self::Feed => format!("{root}s.v1.{event}"),
        };
        if self.kinds().contains(&named) { Ok(named) } else { Err(other()) }
    }

    /// The types of its events; those of the log without their version.
    fn kinds(self) -> Vec<String> {
        let of = |root: &str| {
            let root = format!("{root}s.v1.");
            let kinds = Happened::KINDS.iter().filter_map(move |kind| kind.strip_prefix(&*root));
            kinds.filter(|event| *event != "snapshot").collect::<Vec<_>>()
        };
        match self {
            Self::Users => of("user").iter().map(|event| format!("user.{event}")).collect(),
            // All of them ended is what the feed makes of a revocation; a refresh is not told.
            Self::Sessions => of("session")
                .iter()
                .filter(|event| **event != "all_ended")
                .chain(&["refreshed"])
                .map(|event| format!("session.{event}"))
                .collect(),
            Self::Feed => {
                let kinds = Happened::KINDS.iter().filter(|kind| !kind.ends_with(".snapshot"));
                kinds.map(|kind| (*kind).to_owned()).collect()
            }
        }
    }

    /// User and session that a subject of an event names.
    fn whom(self, subject: &str) -> (Option<UserId>, Option<SessionId>) {
        let mut parts = subject.split('.');
        match self {
            Self::Users => (parts.nth(2).and_then(|id| id.parse().ok()), None),
            Self::Sessions => {
                let user = parts.nth(2).and_then(|id| id.parse().ok());
                (user, parts.next().and_then(|id| id.parse().ok()))
            }
            Self::Feed => (parts.nth(3).and_then(|id| id.parse().ok()), None),
        }
    }
}

/// The envelope without what it holds: nothing of a person stands in it.
#[derive(Debug, Deserialize, Serialize)]
struct Heading {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    time: String,
    revision: u64,
    actor: String,
    #[serde(rename = "correlationid")]
    correlation_id: Option<String>,
}

impl Heading {
    fn of(payload: &[u8]) -> Option<Self> {
        serde_json::from_slice(payload).ok()
    }
}

/// Runs one look.
pub async fn run(settings: Settings, args: EventsArgs) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream: Stream| EventLog::new(client.clone(), stream.name(), Limits::of(&settings));
    match args.action {
        EventsAction::Tail { stream, user, kind, from, no_follow } => {
            let kind = kind.map(|kind| stream.kind(&kind)).transpose().map_err(WrongUse)?;
            let wanted = tail::Wanted { stream, user, kind, from, is_endless: !no_follow };
            tail::run(&log(stream), &wanted, args.json).await
        }
        EventsAction::Show { position, stream } => {
            show::run(&log(stream), stream, Position(position)).await
        }
        EventsAction::Stats { stream, by } => {
            let streams = match stream {
                Some(stream) => vec![stream],
                None => vec![Stream::Users, Stream::Sessions],
            };
            stats::run(&log, &streams, by, args.json).await
        }
    }
}

/// Says a line; `false` when nobody reads any more, as behind `head`.
fn is_read(line: &str) -> bool {
    writeln!(std::io::stdout().lock(), "{line}").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_known_by_the_name_that_log_or_feed_have_for_it() {
        for text in ["user.deleted", "user.deleted.v1", "users.v1.deleted"] {
            assert_eq!(Stream::Users.kind(text).unwrap(), "user.deleted");
            assert_eq!(Stream::Feed.kind(text).unwrap(), "users.v1.deleted");
        }
        assert_eq!(Stream::Sessions.kind("session.refreshed").unwrap(), "session.refreshed");
        assert_eq!(Stream::Feed.kind("sessions.v1.started").unwrap(), "sessions.v1.started");
        for (stream, text) in [
            (Stream::Users, "user.registerd"),
            (Stream::Users, "sessions.v1.started"),
            (Stream::Sessions, "user.deleted"),
            (Stream::Feed, "session.refreshed"),
            (Stream::Users, "users.v1.snapshot"),
            (Stream::Users, "user.deleted.v2"),
            (Stream::Users, ""),
        ] {
            assert!(stream.kind(text).is_err(), "{text}");
        }
    }
}
