//! `roster security list`: who tried to get in, from where, and what came of it.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use events::{Actor, Position, Timestamp, UserId};
use serde_json::json;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Followed, Limits};
use service_kit::nats;
use service_kit::security::{Kind, SECURITY_STREAM, SECURITY_STREAM_SUBJECTS, SecurityRecord};

use crate::cli::{SecurityAction, SecurityArgs, say};
use crate::reading::{Reading, follow};

/// Which records.
struct Wanted {
    user: Option<UserId>,
    kind: Option<String>,
    since: Option<Timestamp>,
}

/// Shows the records, oldest first.
pub async fn run(settings: Settings, args: SecurityArgs) -> anyhow::Result<ExitCode> {
    let SecurityAction::List { user, kind, since, follow: is_endless } = args.action;
    let wanted = Wanted { user, kind, since };
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = EventLog::new(client, SECURITY_STREAM, Limits::of(&settings));
    let end = log.end().await.context("`roster provision` makes the stream SECURITY")?;
    let mut messages = Reading::new(&log, &SECURITY_STREAM_SUBJECTS, Position(0), end).of_roster();
    let mut records = Vec::new();
    while let Some(message) = messages.next().await? {
        let Some(record) = wanted.take(&message)? else { continue };
        if args.json && !is_endless {
            records.push(record);
        } else if !show(&record, args.json) {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if is_endless {
        return follow(&log, &SECURITY_STREAM_SUBJECTS, end, |message| {
            match wanted.take(message) {
                Ok(Some(record)) => show(&record, args.json),
                Ok(None) => true,
                Err(error) => {
                    crate::cli::progress(&format!("{error:#}"));
                    true
                }
            }
        })
        .await;
    }
    if args.json {
        say(&json!({ "items": records }).to_string());
    }
    Ok(ExitCode::SUCCESS)
}

impl Wanted {
    /// The record of a message, if it is wanted.
    fn take(&self, message: &Followed) -> anyhow::Result<Option<SecurityRecord>> {
        let record: SecurityRecord = serde_json::from_slice(&message.payload)
            .with_context(|| format!("message {} of {SECURITY_STREAM}", message.position))?;
        Ok(self.is(&record).then_some(record))
    }

    fn is(&self, record: &SecurityRecord) -> bool {
        let concerns =
            |user: UserId| record.user_id == Some(user) || record.actor == Actor::User(user);
        self.user.is_none_or(concerns)
            && self.kind.as_deref().is_none_or(|kind| kind == record.kind.name())
            && self.since.is_none_or(|since| record.time >= since)
    }
}

/// Shows a record; `false` when nobody reads any more.
fn show(record: &SecurityRecord, as_json: bool) -> bool {
    let line = if as_json { json!(record).to_string() } else { line(record) };
    writeln!(std::io::stdout().lock(), "{line}").is_ok()
}

fn line(record: &SecurityRecord) -> String {
    let mut line = format!("{}  {}  {}", record.time, record.kind.name(), record.outcome.name());
    if let Some(reason) = &record.reason {
        line.push_str(&format!(" ({reason})"));
    }
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.push_str(&format!("  {name}={value}"));
        }
    };
    add("call", record.operation.as_ref().map(|call| format!("{call:?}")));
    add("user", record.user_id.map(|user| user.to_string()));
    add("address", record.address_key.clone());
    add("actor", Some(record.actor.to_string()));
    add("session", record.session_id.map(|session| session.to_string()));
    add("ip", record.ip.map(|ip| ip.to_string()));
    // Whatever the client calls itself: quoted, and without control characters.
    add("agent", record.user_agent.as_ref().map(|agent| format!("{agent:?}")));
    add("request", record.request_id.clone());
    add("count", (record.count > 1).then(|| record.count.to_string()));
    line
}

/// The kinds of records, for the command line.
pub fn kinds() -> Vec<&'static str> {
    Kind::ALL.iter().map(|kind| kind.name()).collect()
}
