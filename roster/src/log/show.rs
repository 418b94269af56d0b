//! `roster events show`: one message of a stream, without what is secret in it.

use std::process::ExitCode;

use events::Position;
use serde_json::{Value, json};
use service_kit::event_log::{EventLog, Stored};

use super::Stream;
use crate::cli::{failed, say};

/// What may be shown. A root that is not here is not: a new kind of message may hold a secret.
const SHOWN: [&str; 10] = [
    "ev.user.",
    "ev.session.",
    "rv.user.",
    "rv.session.",
    "uq.email.",
    "uq.role.",
    "ik.",
    "er.session.",
    "users.v1.",
    "sessions.v1.",
];
/// What stands in the place of a secret.
const HIDDEN: &str = "hidden";

/// Shows it. Exit code 1 when there is none, or it is not shown to anybody.
pub async fn run(log: &EventLog, stream: Stream, position: Position) -> anyhow::Result<ExitCode> {
    let Some(stored) = log.at(position).await? else {
        let name = stream.name();
        return Ok(failed(&format!("{name} has no message at {position}: erased, or never there")));
    };
    if !SHOWN.iter().any(|root| stored.subject.starts_with(root)) {
        let root = stored.subject.split('.').next().unwrap_or_default();
        return Ok(failed(&format!("position {position} holds {root}.*, which is not shown")));
    }
    say(&serde_json::to_string_pretty(&shown(stream, &stored))?);
    Ok(ExitCode::SUCCESS)
}

fn shown(stream: Stream, stored: &Stored) -> Value {
    // What is no JSON is not shown: nobody knows what it is.
    let mut message = serde_json::from_slice(&stored.payload).unwrap_or(Value::Null);
    if stored.subject.starts_with("ev.session.") {
        hide_seed(&mut message);
    }
    json!({
        "stream": stream.name(),
        "position": stored.position,
        "stored_at": stored.stored_at,
        "subject": stored.subject,
        "command_id": stored.command_id,
        "bytes": stored.payload.len(),
        "message": message,
    })
}

/// The seed of a session makes refresh tokens, with a key that is not in the log.
fn hide_seed(message: &mut Value) {
    for place in ["/data/changed/seed", "/data/session/seed"] {
        if let Some(seed) = message.pointer_mut(place) {
            *seed = json!(HIDDEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_of_a_session_hides_its_seed() {
        let all = [
            include_str!("../../../events/golden/session.started.v1.json"),
            include_str!("../../../events/golden/session.refreshed.v1.json"),
            include_str!("../../../events/golden/session.ended.v1.json"),
            include_str!("../../../events/golden/session.theft_detected.v1.json"),
        ];
        for event in all {
            let mut message: Value = serde_json::from_str(event).unwrap();
            let seed = message["data"]["session"]["seed"].as_str().unwrap().to_owned();
            hide_seed(&mut message);
            assert!(!message.to_string().contains(&seed), "{message}");
        }
    }
}
