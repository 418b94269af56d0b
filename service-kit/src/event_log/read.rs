//! Reads that decide something. All of them ask the stream's leader (`STREAM.MSG.GET`): a direct get may
//! be answered by a follower that is behind.

use async_nats::header::HeaderMap;
use async_nats::{Request, RequestErrorKind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use events::{CommandId, Position, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::foreign::is_foreign;
use super::{COMMAND_ID_HEADER, EventLog, Followed, Guard};

/// Code of "no message found".
const NO_MESSAGE: u64 = 10037;
/// How many messages behind a guard are searched for a command. More would mean that so many other
/// commands changed one aggregate while one append was under way.
const SEARCH_MAX: usize = 64;

/// The log could not be read. Nothing is known about what it holds.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No connection, no leader, or no answer in time: try again.
    #[error("the event log does not answer: {0}")]
    Unavailable(String),
    /// The server refused or its answer made no sense: a fault of configuration or of Roster.
    #[error("the event log refused: {0}")]
    Refused(String),
}

/// A message as it stands in the log.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its place in the log.
    pub position: Position,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// What was written.
    pub payload: Bytes,
    /// The command that wrote it, if one did.
    pub command_id: Option<CommandId>,
    /// What it stands on.
    pub subject: String,
    headers: Vec<u8>,
}

impl Stored {
    /// The guard for the next write to the same subject.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        Guard::behind(self.position)
    }

    /// Whether no writer of the log wrote it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        is_foreign(&self.subject, |name| self.header(name).is_some())
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        header(&self.headers, name)
    }
}

#[derive(Deserialize)]
struct Answer {
    message: RawMessage,
}

#[derive(Deserialize)]
struct RawMessage {
    subject: String,
    seq: u64,
    time: Timestamp,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hdrs: String,
}

impl EventLog {
    /// The last message of a writer on one literal subject. Whoever writes behind it takes the guard of
    /// [`EventLog::top`].
    ///
    /// # Errors
    /// As for [`EventLog::top`].
    pub async fn last(&self, subject: &str) -> Result<Option<Stored>, ReadError> {
        Ok(self.top(subject).await?.last)
    }

    /// The last message that fits a filter, whoever wrote it.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing.
    pub async fn newest_on(&self, filter: &str) -> Result<Option<Stored>, ReadError> {
        self.get(&json!({ "last_by_subj": filter })).await
    }

    /// The message at a position; `None` when it was erased or never was.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing.
    pub async fn at(&self, position: Position) -> Result<Option<Stored>, ReadError> {
        self.get(&json!({ "seq": position.0 })).await
    }

    /// The first message behind a position whose subject fits `filter`, which may have wildcards.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing.
    pub async fn next(&self, filter: &str, after: Position) -> Result<Option<Stored>, ReadError> {
        let from = after.0.saturating_add(1);
        self.get(&json!({ "seq": from, "next_by_subj": filter })).await
    }

    /// The subjects that hold messages and fit `filter`, in no order. A server names at most 100,000 of them.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing.
    pub async fn subjects(&self, filter: &str) -> Result<Vec<String>, ReadError> {
        let path = format!("STREAM.INFO.{}", self.stream);
        let answer = self.request_json(&path, &json!({ "subjects_filter": filter })).await?;
        if let Some(error) = answer.get("error") {
            return Err(refusal(error));
        }
        let subjects = answer.pointer("/state/subjects").and_then(Value::as_object);
        Ok(subjects.map(|subjects| subjects.keys().cloned().collect()).unwrap_or_default())
    }

    /// The messages on some literal subjects behind one position and up to another, in order; the first `max`
    /// of them.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing.
    pub async fn between(
        &self,
        subjects: &[String],
        behind: Position,
        through: Position,
        max: usize,
    ) -> Result<Vec<Followed>, ReadError> {
        let mut heads = Vec::with_capacity(subjects.len());
        for subject in subjects {
            heads.push((subject, self.next(subject, behind).await?));
        }
        let mut messages = Vec::new();
        while messages.len() < max {
            let found = heads
                .iter_mut()
                .filter(|(_, head)| head.as_ref().is_some_and(|head| head.position <= through))
                .min_by_key(|(_, head)| head.as_ref().map(|head| head.position));
            let Some((subject, head)) = found else { break };
            let Some(message) = head.take() else { break };
            let is_foreign = message.is_foreign();
            let Stored { position, stored_at, payload, .. } = message;
            *head = self.next(subject, position).await?;
            let subject = subject.to_owned();
            let pending = 0;
            messages.push(Followed { subject, position, stored_at, pending, payload, is_foreign });
        }
        Ok(messages)
    }

    /// The message that `command` wrote on `subject` behind `guard`.
    pub(super) async fn find(
        &self,
        subject: &str,
        guard: Guard,
        command: CommandId,
    ) -> Result<Search, ReadError> {
        let mut behind = Position(guard.sequence());
        let mut moved = false;
        for _ in 0..SEARCH_MAX {
            let Some(message) = self.next(subject, behind).await? else {
                return Ok(if moved { Search::Overtaken } else { Search::Untouched });
            };
            if message.command_id == Some(command) {
                return Ok(Search::Found(message.position));
            }
            moved = true;
            behind = message.position;
        }
        Ok(Search::Overtaken)
    }

    async fn get(&self, request: &Value) -> Result<Option<Stored>, ReadError> {
        let path = format!("STREAM.MSG.GET.{}", self.stream);
        let answer = self.request_json(&path, request).await?;
        if answer.pointer("/error/err_code").and_then(Value::as_u64) == Some(NO_MESSAGE) {
            return Ok(None);
        }
        if let Some(error) = answer.get("error") {
            return Err(refusal(error));
        }
        let raw = serde_json::from_value::<Answer>(answer)
            .map_err(|e| ReadError::Refused(e.to_string()))?
            .message;
        let decode = |text: &str| {
            STANDARD.decode(text).map_err(|e| ReadError::Refused(format!("base64: {e}")))
        };
        let headers = decode(&raw.hdrs)?;
        Ok(Some(Stored {
            position: Position(raw.seq),
            stored_at: raw.time,
            payload: decode(&raw.data)?.into(),
            command_id: header(&headers, COMMAND_ID_HEADER).and_then(|value| value.parse().ok()),
            subject: raw.subject,
            headers,
        }))
    }

    /// One request to the JetStream API. An `error` in the answer is left to the caller.
    #[expect(
        clippy::disallowed_methods,
        reason = "asks the API of JetStream, and writes nothing to the log"
    )]
    pub(super) async fn request_json(&self, path: &str, body: &Value) -> Result<Value, ReadError> {
        if !self.is_connected() {
            // async-nats would keep the request in its buffer until a server is back.
            return Err(ReadError::Unavailable("not connected".to_owned()));
        }
        let payload = serde_json::to_vec(body).map_err(|e| ReadError::Refused(e.to_string()))?;
        let request =
            Request::new().payload(payload.into()).timeout(Some(self.limits.request_timeout));
        let message = self.client.send_request(format!("$JS.API.{path}"), request).await.map_err(
            |error| match error.kind() {
                RequestErrorKind::TimedOut
                | RequestErrorKind::NoResponders
                | RequestErrorKind::Other => ReadError::Unavailable(error.to_string()),
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    ReadError::Refused(error.to_string())
                }
            },
        )?;
        serde_json::from_slice(&message.payload).map_err(|e| ReadError::Refused(e.to_string()))
    }
}

/// What stands behind a guard.
pub(super) enum Search {
    /// The command's message is there.
    Found(Position),
    /// Other commands wrote; the guarded append can never be stored any more.
    Overtaken,
    /// Nothing was written: a copy of the append may still arrive and be stored.
    Untouched,
}

pub(super) fn refusal(error: &Value) -> ReadError {
    let text = error.get("description").and_then(Value::as_str).unwrap_or("no description");
    match error.get("code").and_then(Value::as_u64) {
        Some(503) => ReadError::Unavailable(text.to_owned()),
        _ => ReadError::Refused(format!("{text} ({})", error["err_code"])),
    }
}

/// One header out of the raw block `NATS/1.0\r\nName: value\r\n…`.
fn header(block: &[u8], name: &str) -> Option<String> {
    let text = std::str::from_utf8(block).ok()?;
    text.split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
}

/// The headers of a message whose author is known.
pub(super) fn command_headers(command: CommandId) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(COMMAND_ID_HEADER, command.to_string().as_str());
    headers
}
