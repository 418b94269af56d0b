//! `roster events tail`: what happens, as it happens.

use std::process::ExitCode;

use events::{Position, UserId};
use serde_json::json;
use service_kit::event_log::{EventLog, Followed};

use super::{Heading, Stream, is_read};
use crate::reading::{Reading, follow};

/// Which events.
pub struct Wanted {
    pub stream: Stream,
    pub user: Option<UserId>,
    /// With its version or without.
    pub kind: Option<String>,
    /// The first position.
    pub from: Option<Position>,
    pub is_endless: bool,
}

/// Follows until it is interrupted, or to the end of the log.
pub async fn run(log: &EventLog, wanted: &Wanted, as_json: bool) -> anyhow::Result<ExitCode> {
    let filters = wanted.stream.filters(wanted.user);
    let end = log.end().await?;
    let behind = match (wanted.from, wanted.is_endless) {
        (Some(from), _) => Position(from.0.saturating_sub(1)),
        (None, true) => end,
        (None, false) => Position(0),
    };
    if !wanted.is_endless {
        let mut events = Reading::new(log, &filters, behind, end).of_roster();
        while let Some(event) = events.next().await? {
            if !wanted.show(&event, as_json) {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    follow(log, &filters, behind, |event| wanted.show(event, as_json)).await
}

impl Wanted {
    /// Shows an event if it is wanted; `false` when nobody reads any more.
    fn show(&self, event: &Followed, as_json: bool) -> bool {
        let heading = Heading::of(&event.payload);
        let kind = heading.as_ref().map_or("unreadable", |heading| &heading.kind);
        if !self.kind.as_ref().is_none_or(|wanted| is_of(kind, wanted)) {
            return true;
        }
        let (user, session) = self.stream.whom(&event.subject);
        if as_json {
            let line = json!({
                "stream": self.stream.name(),
                "position": event.position,
                "stored_at": event.stored_at,
                "user_id": user,
                "session_id": session,
                "event": heading,
            });
            return is_read(&line.to_string());
        }
        let mut line = format!("{}  {}  {kind}", event.position, event.stored_at);
        if let Some(user) = user {
            line.push_str(&format!("  user={user}"));
        }
        if let Some(session) = session {
            line.push_str(&format!("  session={session}"));
        }
        if let Some(heading) = &heading {
            line.push_str(&format!("  revision={} actor={}", heading.revision, heading.actor));
            if let Some(request) = &heading.correlation_id {
                line.push_str(&format!(" request={request}"));
            }
        }
        is_read(&line)
    }
}

/// Whether a type is the one that is wanted, whatever its version.
fn is_of(kind: &str, wanted: &str) -> bool {
    kind == wanted || kind.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(".v"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_wanted_with_or_without_its_version() {
        assert!(
            is_of("user.deleted.v1", "user.deleted") && is_of("user.deleted.v1", "user.deleted.v1")
        );
        assert!(!is_of("user.deleted.v1", "user") && !is_of("user.email_changed.v1", "user.email"));
    }
}
