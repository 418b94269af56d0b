//! What operators changed: one event when a command begins and one when it ends, in the stream `OPERATIONS`.
//!
//! A command that cannot write the first does not begin. Whoever is killed in between leaves a beginning without
//! an end, and that says what there is to say. An event holds ids and numbers alone: no secret, no address, no
//! name of a file, and no text of an error, since a server may quote in one what it was given.

mod list;
mod operation;
mod who;

use std::process::ExitCode;

use anyhow::{Context, bail};
use async_nats::Client;
use events::{CommandId, SOURCE, Timestamp};
use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    Append, EventLog, Guard, Limits, OPERATIONS_STREAM, OPERATIONS_SUBJECT_PREFIX, Outcome, Write,
};
use service_kit::running::stop_on_signal;
use uuid::Uuid;

use crate::cli::failed;
pub use list::{run, time};
pub use operation::{Operation, names};
use who::Who;

/// How often an event is written anew because another operator's came first.
const TRIES_MAX: u32 = 20;

/// How far a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stage {
    Begun,
    Done,
    Failed,
    Interrupted,
}

/// An event of this stream: CloudEvents 1.0.
#[derive(Debug, Serialize, Deserialize)]
struct Event {
    specversion: String,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    /// The command, as in the subject of the message.
    subject: String,
    time: Timestamp,
    datacontenttype: String,
    /// The same in all events of one run.
    correlationid: Uuid,
    data: Data,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Data {
    outcome: Stage,
    who: Who,
    /// What was asked for.
    arguments: Value,
    /// What came of it; only in the event of the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    result: Option<Value>,
}

/// A command that has begun.
pub struct Audit {
    log: EventLog,
    operation: Operation,
    run: Uuid,
    who: Who,
    arguments: Value,
}

/// What a command ends with: its exit code, and what of its result is written down.
pub struct Ended {
    /// For the caller.
    pub code: ExitCode,
    /// For the audit: ids and numbers.
    pub result: Value,
}

/// Runs a command and writes down that it begins and how it ends. SIGINT and SIGTERM end it too: it is one that
/// may be killed anywhere.
///
/// # Errors
/// Those of the command; and that it could not be written down, in which case it did not begin or is over.
pub fn over<'a>(
    settings: &'a Settings,
    client: &'a Client,
    operation: Operation,
    arguments: Value,
    command: impl Future<Output = anyhow::Result<Ended>> + 'a,
) -> LocalBoxFuture<'a, anyhow::Result<ExitCode>> {
    Box::pin(async move {
        let stop = stop_on_signal()?;
        let audit = Audit::begin(settings, client, operation, arguments).await?;
        let ended = tokio::select! {
            ended = Box::pin(command) => ended,
            () = stop.cancelled() => {
                audit.interrupted().await?;
                return Ok(failed("interrupted; start it again to go on"));
            }
        };
        match ended {
            Ok(Ended { code, result }) => {
                audit.done(result).await?;
                Ok(code)
            }
            Err(error) => match audit.failed().await {
                Ok(()) => Err(error),
                Err(unwritten) => Err(error.context(format!("{unwritten:#}, and"))),
            },
        }
    })
}

impl Audit {
    /// Writes that a command begins, before it changes anything.
    ///
    /// # Errors
    /// It is not written: do not begin.
    pub async fn begin(
        settings: &Settings,
        client: &Client,
        operation: Operation,
        arguments: Value,
    ) -> anyhow::Result<Self> {
        let log = EventLog::new(client.clone(), OPERATIONS_STREAM, Limits::of(settings));
        let who = Who::of(client).await;
        let audit = Self { log, operation, run: ambient::new_uuid(), who, arguments };
        let written = audit.write(Stage::Begun, None).await;
        written.context("nothing was begun: it cannot be written down who does it")?;
        Ok(audit)
    }

    /// Writes that it is done.
    ///
    /// # Errors
    /// It is not written.
    pub async fn done(self, result: Value) -> anyhow::Result<()> {
        self.end(Stage::Done, Some(result)).await
    }

    /// Writes that it failed.
    ///
    /// # Errors
    /// It is not written.
    pub async fn failed(self) -> anyhow::Result<()> {
        self.end(Stage::Failed, None).await
    }

    /// Writes that it was interrupted.
    ///
    /// # Errors
    /// It is not written.
    pub async fn interrupted(self) -> anyhow::Result<()> {
        self.end(Stage::Interrupted, None).await
    }

    async fn end(self, outcome: Stage, result: Option<Value>) -> anyhow::Result<()> {
        let written = self.write(outcome, result).await;
        written.context("the command is over, but its end could not be written down")
    }

    async fn write(&self, outcome: Stage, result: Option<Value>) -> anyhow::Result<()> {
        let id = ambient::new_uuid();
        let (name, kind) = (self.operation.name(), self.operation.kind());
        let subject = format!("{OPERATIONS_SUBJECT_PREFIX}{name}");
        let event = Event {
            specversion: "1.0".to_owned(),
            id,
            source: format!("{SOURCE}/operator"),
            kind: kind.to_owned(),
            subject: name.to_owned(),
            time: ambient::now(),
            datacontenttype: "application/json".to_owned(),
            correlationid: self.run,
            data: Data {
                outcome,
                who: self.who.clone(),
                arguments: self.arguments.clone(),
                result,
            },
        };
        let payload = serde_json::to_vec(&event)?;
        for _ in 0..TRIES_MAX {
            // Behind whatever is there, a foreign message too.
            let newest = self
                .log
                .newest_on(&subject)
                .await
                .context("ask for its stream OPERATIONS with `roster provision --check`")?;
            let guard = newest.map_or(Guard::absent(), |newest| newest.guard());
            let write = Write::new(subject.clone(), guard, payload.clone()).event(id, kind);
            match self.log.append(&Append::new(CommandId::from_uuid(id), write)).await {
                Outcome::Stored(_) => return Ok(()),
                Outcome::Conflict => {}
                Outcome::Full => bail!(
                    "the stream {OPERATIONS_STREAM} is full: raise audit.bytes_max and run `roster provision`"
                ),
                Outcome::Unavailable => bail!(
                    "the stream {OPERATIONS_STREAM} does not answer: `roster provision` makes it when it is missing"
                ),
                other @ (Outcome::Duplicate | Outcome::Unknown | Outcome::Refused(..)) => {
                    bail!("the stream {OPERATIONS_STREAM} answered {other:?}")
                }
            }
        }
        bail!("too many operators write to {OPERATIONS_STREAM} at once")
    }
}
