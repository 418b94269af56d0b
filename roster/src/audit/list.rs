//! `roster audit list`: what operators did.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::Context;
use events::{Position, Timestamp};
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, OPERATIONS_STREAM, OPERATIONS_SUBJECT_PREFIX};
use service_kit::nats;

use super::{Event, Stage};
use crate::cli::{AuditAction, AuditArgs, say};
use crate::reading::Reading;

/// Shows the events, oldest first.
pub async fn run(settings: Settings, args: AuditArgs) -> anyhow::Result<ExitCode> {
    let AuditAction::List { since, command } = args.action;
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = EventLog::new(client, OPERATIONS_STREAM, Limits::of(&settings));
    let filter = format!("{OPERATIONS_SUBJECT_PREFIX}{}", command.as_deref().unwrap_or("*"));
    let end = log.end().await.context("`roster provision` makes the stream OPERATIONS")?;
    let mut events = Vec::new();
    if log.next(&filter, Position(0)).await?.is_some() {
        let mut messages = Reading::new(&log, &[&filter], Position(0), end).of_roster();
        while let Some(message) = messages.next().await? {
            if since.is_none_or(|since| message.stored_at >= since) {
                let event: Value = serde_json::from_slice(&message.payload).with_context(|| {
                    format!("message {} of {OPERATIONS_STREAM}", message.position)
                })?;
                events.push(event);
            }
        }
    }
    if args.json {
        say(&json!({ "items": events }).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    show(events)?;
    Ok(ExitCode::SUCCESS)
}

fn show(events: Vec<Value>) -> anyhow::Result<()> {
    let events: Vec<Event> =
        events.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    let ended: HashSet<_> = events
        .iter()
        .filter(|event| event.data.outcome != Stage::Begun)
        .map(|event| event.correlationid)
        .collect();
    for Event { subject, time, correlationid, data, .. } in &events {
        let who = &data.who;
        let (user, host) = (&who.os_user, &who.host);
        let nats_user = who.nats_user.as_deref().unwrap_or("unknown");
        let outcome = match data.outcome {
            Stage::Begun if !ended.contains(correlationid) => "begun, no end is known",
            Stage::Begun => "begun",
            Stage::Done => "done",
            Stage::Failed => "failed",
            Stage::Interrupted => "interrupted",
        };
        let told = data.result.as_ref().unwrap_or(&data.arguments);
        say(&format!(
            "{time}  {subject}  {outcome}  {told}  by {user}@{host}  nats {nats_user}  run {correlationid}"
        ));
    }
    if events.is_empty() {
        say("nothing is written down");
    }
    Ok(())
}

/// A time for the command line.
pub fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::try_from(text.to_owned())
        .map_err(|_| "give a time as in 2026-01-31T12:00:00Z".to_owned())
}
