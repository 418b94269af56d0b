//! `roster prune`: takes out of the streams what is not Roster's. Messages that no service wrote, which the server stored
//! as answers to somebody's question, and consumers of the log that stay when nobody reads from them any more.
//!
//! Everybody who reads passes such messages over, so this gives room back and does not repair anything. The consumers do
//! keep services from starting once a stream has as many as it may have (ADR 28).

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use async_nats::Client;
use events::feed::{FEED_STREAM, SNAPSHOTS_STREAM};
use events::{Position, subjects};
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{ConsumerState, EventLog, Limits, OPERATIONS_STREAM};
use service_kit::nats;
use service_kit::security::SECURITY_STREAM;

use crate::audit::{self, Ended, Operation};
use crate::cli::{PruneArgs, PruneWhat, say};
use crate::provision;
use crate::reading::Reading;

/// The streams that anybody but Roster's own services may make consumers on.
pub const READ_BY_OTHERS: [&str; 2] = [subjects::USERS_STREAM, subjects::SESSIONS_STREAM];
/// The streams whose messages say by their headers that Roster wrote them.
pub const WRITTEN_BY_ROSTER: [&str; 7] = [
    subjects::USERS_STREAM,
    subjects::SESSIONS_STREAM,
    FEED_STREAM,
    SNAPSHOTS_STREAM,
    subjects::MAILS_STREAM,
    SECURITY_STREAM,
    OPERATIONS_STREAM,
];
/// Queues, on which no second consumer can be made: they are read message by message.
const QUEUES: [&str; 2] = [SNAPSHOTS_STREAM, subjects::MAILS_STREAM];

/// Removes them. Exit code 0 also when there was nothing to remove.
pub async fn run(settings: Settings, args: PruneArgs) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let removing = async {
        let removed = match args.what {
            PruneWhat::Consumers => consumers(&settings, &client, args.dry_run).await?,
            PruneWhat::Messages => messages(&settings, &client, args.dry_run).await?,
        };
        answer(&args, &removed);
        Ok(Ended { code: ExitCode::SUCCESS, result: json!(removed) })
    };
    if args.dry_run {
        return Ok(removing.await?.code);
    }
    let operation = match args.what {
        PruneWhat::Consumers => Operation::PruneConsumers,
        PruneWhat::Messages => Operation::PruneMessages,
    };
    audit::over(&settings, &client, operation, json!({}), removing).await
}

/// How many there were in each stream.
type Removed = BTreeMap<String, u64>;

fn answer(args: &PruneArgs, removed: &Removed) {
    let what = match args.what {
        PruneWhat::Consumers => "consumers that are not Roster's",
        PruneWhat::Messages => "messages that Roster did not write",
    };
    let done = if args.dry_run { "would remove" } else { "removed" };
    if args.json {
        let items: Vec<Value> = removed
            .iter()
            .map(|(stream, count)| json!({ "stream": stream, "count": count }))
            .collect();
        say(&json!({ "dry_run": args.dry_run, "items": items }).to_string());
    } else if removed.is_empty() {
        say(&format!("there are no {what}"));
    } else {
        removed.iter().for_each(|(stream, count)| say(&format!("{stream}: {done} {count} {what}")));
    }
}

/// The consumers of a stream that stay although Roster did not provision them.
pub async fn strange_consumers(log: &EventLog) -> anyhow::Result<Vec<ConsumerState>> {
    let own = provision::consumer_names(log.stream());
    let mut found = log.consumers().await?;
    found.retain(|consumer| consumer.stays() && !own.contains(&consumer.name));
    Ok(found)
}

async fn consumers(settings: &Settings, client: &Client, dry_run: bool) -> anyhow::Result<Removed> {
    let mut removed = Removed::new();
    for stream in READ_BY_OTHERS {
        let log = EventLog::new(client.clone(), stream, Limits::of(settings));
        for consumer in strange_consumers(&log).await? {
            if dry_run || log.remove_consumer(&consumer.name).await? {
                *removed.entry(stream.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(removed)
}

async fn messages(settings: &Settings, client: &Client, dry_run: bool) -> anyhow::Result<Removed> {
    let mut removed = Removed::new();
    // Nothing is ever deleted from the audit.
    for stream in WRITTEN_BY_ROSTER.into_iter().filter(|stream| *stream != OPERATIONS_STREAM) {
        let log = EventLog::new(client.clone(), stream, Limits::of(settings));
        let end = log.end().await?;
        for position in foreign_messages(&log, Position(0), end).await? {
            // The last message of a stream stays: without it the end could not be found in one question.
            if position < end && (dry_run || log.erase(position).await?) {
                *removed.entry(stream.to_owned()).or_default() += 1;
            }
        }
    }
    Ok(removed)
}

/// Where messages are that Roster did not write, behind one position and up to another.
pub async fn foreign_messages(
    log: &EventLog,
    behind: Position,
    end: Position,
) -> anyhow::Result<BTreeSet<Position>> {
    let mut found = BTreeSet::new();
    if QUEUES.contains(&log.stream()) {
        let mut behind = behind;
        while let Some(message) = log.next(">", behind).await?.filter(|next| next.position <= end) {
            behind = message.position;
            if message.is_foreign() {
                found.insert(behind);
            }
        }
    } else {
        let mut messages = Reading::new(log, &[">"], behind, end);
        while let Some(message) = messages.next().await? {
            if message.is_foreign {
                found.insert(message.position);
            }
        }
    }
    Ok(found)
}
