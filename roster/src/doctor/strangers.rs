//! What is in the streams and not Roster's: messages that no service wrote, and consumers that stay.

use async_nats::Client;
use events::Position;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, OPERATIONS_STREAM};

use super::report::{Level, Report};
use crate::prune::{READ_BY_OTHERS, WRITTEN_BY_ROSTER, foreign_messages, strange_consumers};

/// So many messages from the end of each stream are looked at.
const LOOKED_AT_MAX: u64 = 5_000;
/// A stream with more consumers than that has readers who do not clear theirs away. Each process that follows the log has
/// one or two, and a stream takes 1,000.
const CONSUMERS_MAX: usize = 500;

/// Looks.
pub async fn look(settings: &Settings, client: &Client, report: &mut Report) {
    for stream in WRITTEN_BY_ROSTER {
        let log = EventLog::new(client.clone(), stream, Limits::of(settings));
        match messages(&log).await {
            Ok(0) => report.ok("messages", format!("the last messages of {stream} are Roster's")),
            Ok(count) => foreign(stream, count, report),
            // A stream that is missing is named elsewhere.
            Err(error) => tracing::debug!(%error, stream, "a stream cannot be looked at"),
        }
    }
    for stream in READ_BY_OTHERS {
        let log = EventLog::new(client.clone(), stream, Limits::of(settings));
        if let Err(error) = consumers(&log, report).await {
            tracing::debug!(%error, stream, "the consumers of a stream cannot be looked at");
        }
    }
}

async fn messages(log: &EventLog) -> anyhow::Result<usize> {
    let end = log.end().await?;
    let behind = Position(end.0.saturating_sub(LOOKED_AT_MAX));
    Ok(foreign_messages(log, behind, end).await?.len())
}

fn foreign(stream: &str, count: usize, report: &mut Report) {
    let finding = format!(
        "{count} of the last {LOOKED_AT_MAX} messages of {stream} were not written by Roster; everybody passes them over"
    );
    let who = "somebody uses the NATS credentials of one of Roster's services: find out who and revoke them \
               (docs/services.md)";
    let advice = if stream == OPERATIONS_STREAM {
        format!("{who}; they stay until audit.kept_s is over, and audit.bytes_max makes room")
    } else {
        format!("{who}, then run `roster prune messages`")
    };
    report.point("messages", Level::Warning, finding, advice);
}

async fn consumers(log: &EventLog, report: &mut Report) -> anyhow::Result<()> {
    let stream = log.stream();
    let (all, strange) = (log.consumers().await?.len(), strange_consumers(log).await?.len());
    let level = if all > CONSUMERS_MAX { Level::Fault } else { Level::Warning };
    if strange > 0 {
        report.point(
            "consumers",
            level,
            format!(
                "{strange} of {all} consumers of {stream} are not Roster's and stay when nobody reads from them: when a \
                 stream has 1,000 no service can start"
            ),
            "find the verifier or service that made them; if they are too many revoke its credentials (docs/services.md), \
             then run `roster prune consumers`",
        );
    } else if all > CONSUMERS_MAX {
        report.point(
            "consumers",
            level,
            format!("{stream} has {all} consumers, and no service can start when it has 1,000"),
            "find the verifier or service that makes so many and revoke its credentials (docs/services.md); each goes within \
             a minute of its reader",
        );
    } else {
        report.ok(
            "consumers",
            format!("{stream} has {all} consumers, all of them known or short-lived"),
        );
    }
    Ok(())
}
