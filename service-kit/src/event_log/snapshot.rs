//! Snapshots: a whole stream as the server itself gives it out and takes it back, with every message at its
//! position and time. Needs the operator's rights.
//!
//! A snapshot ends with the last message that the stream had when it was asked for, while writes go on. So the
//! batch that was being stored at that moment may be in it by half: [`EventLog::drop_half_batch`].

use std::time::Duration;

use async_nats::{Request, StatusCode};
use bytes::Bytes;
use events::{Position, Timestamp};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::provision::{LINEAGE, STREAM_NOT_FOUND, UNFINISHED};
use super::read::refusal;
use super::{EventLog, ReadError, StreamSpec};

/// How long the next piece of a snapshot may take, and the answer to a piece that is taken back.
const PIECE_MAX: Duration = Duration::from_secs(60);
/// How long the server may take over a snapshot that it has whole.
const END_MAX: Duration = Duration::from_mins(60);

/// Oldest server whose snapshots are of one moment. An older one copies its files one after the other, and the note of
/// what must be in them last.
const SNAPSHOT_SERVER_MIN: (i64, i64, i64) = (2, 15, 0);

/// What a snapshot is of, in the words of the server, which wants to hear them again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// The configuration of the stream.
    pub config: Value,
    /// What was in it.
    pub state: Value,
}

impl SnapshotHead {
    /// The last position that is in it.
    #[must_use]
    pub fn last(&self) -> Position {
        Position(self.number("last_seq"))
    }

    /// The first position that is in it.
    #[must_use]
    pub fn first(&self) -> Position {
        Position(self.number("first_seq"))
    }

    /// How many messages.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.number("messages")
    }

    fn number(&self, name: &str) -> u64 {
        self.state.get(name).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// A snapshot that is being given out.
pub struct Snapshot {
    client: async_nats::Client,
    pieces: async_nats::Subscriber,
    /// What it is of.
    pub head: SnapshotHead,
}

/// A snapshot that is being taken back.
pub struct Restoring {
    client: async_nats::Client,
    subject: String,
}

/// A stream as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The last position that was ever given.
    pub end: Position,
    /// Messages that are there.
    pub messages: u64,
    /// Which log it is; `None` for one that was made before logs had a name.
    pub lineage: Option<String>,
    /// Whether a restore of it was begun and not ended.
    pub unfinished: bool,
}

impl EventLog {
    /// How the stream stands; `None` when there is none.
    ///
    /// # Errors
    /// [`ReadError`]: nobody knows.
    pub async fn standing(&self) -> Result<Option<Standing>, ReadError> {
        let answer = self.request_json(&format!("STREAM.INFO.{}", self.stream), &json!({})).await?;
        match answer.get("error") {
            Some(error) if error["err_code"] == STREAM_NOT_FOUND => return Ok(None),
            Some(error) => return Err(refusal(error)),
            None => {}
        }
        let number = |path: &str| answer.pointer(path).and_then(Value::as_u64);
        let metadata = |key: &str| {
            let value = answer.pointer("/config/metadata").and_then(|metadata| metadata.get(key));
            value.and_then(Value::as_str).map(str::to_owned)
        };
        let end = number("/state/last_seq")
            .ok_or_else(|| ReadError::Refused("no state in the answer".to_owned()))?;
        Ok(Some(Standing {
            end: Position(end),
            messages: number("/state/messages").unwrap_or(0),
            lineage: metadata(LINEAGE),
            unfinished: metadata(UNFINISHED).is_some(),
        }))
    }

    fn check_snapshots(&self) -> Result<(), ReadError> {
        let (major, minor, patch) = SNAPSHOT_SERVER_MIN;
        if self.client.is_server_compatible(major, minor, patch) {
            return Ok(());
        }
        let found = self.client.server_info().version;
        Err(ReadError::Refused(format!(
            "snapshots need nats-server {major}.{minor}.{patch} or later, and this is {found}"
        )))
    }

    /// Asks for a snapshot without consumers: they would be of a later moment than the messages.
    ///
    /// # Errors
    /// [`ReadError`]: there is none.
    pub async fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.check_snapshots()?;
        let inbox = self.client.new_inbox();
        let pieces = self.client.subscribe(inbox.clone()).await;
        let pieces = pieces.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        let path = format!("STREAM.SNAPSHOT.{}", self.stream);
        let request = json!({ "deliver_subject": inbox, "no_consumers": true });
        let answer = self.request_json(&path, &request).await?;
        if let Some(error) = answer.get("error") {
            return Err(refusal(error));
        }
        let head = serde_json::from_value(answer).map_err(|e| ReadError::Refused(e.to_string()))?;
        Ok(Snapshot { client: self.client.clone(), pieces, head })
    }

    /// Begins to take a snapshot back, into a stream that there is none of, configured as `spec` says. The stream
    /// has another lineage than the one that the snapshot is of, and is marked as unfinished from its first moment
    /// on, by which every service refuses it, until [`EventLog::finish_restore`].
    ///
    /// # Errors
    /// [`ReadError`]: nothing was begun.
    pub async fn restore(
        &self,
        spec: &StreamSpec,
        head: &SnapshotHead,
        begun_at: Timestamp,
    ) -> Result<Restoring, ReadError> {
        self.check_snapshots()?;
        let mut config = spec.config().clone();
        // A log that was given more room than the settings say needs it.
        let had = head.config.get("max_bytes").and_then(Value::as_i64);
        if had > config.get("max_bytes").and_then(Value::as_i64) {
            config.insert("max_bytes".to_owned(), json!(had));
        }
        let lineage = crate::ambient::new_uuid().to_string();
        let metadata = json!({ LINEAGE: lineage, UNFINISHED: begun_at.to_string() });
        config.insert("metadata".to_owned(), metadata);
        let path = format!("STREAM.RESTORE.{}", self.stream);
        let answer =
            self.request_json(&path, &json!({ "config": config, "state": head.state })).await?;
        if let Some(error) = answer.get("error") {
            return Err(refusal(error));
        }
        match answer.get("deliver_subject").and_then(Value::as_str) {
            Some(subject) => {
                Ok(Restoring { client: self.client.clone(), subject: subject.to_owned() })
            }
            None => Err(ReadError::Refused("no subject for the snapshot".to_owned())),
        }
    }

    /// Takes the mark of an unfinished restore away.
    ///
    /// # Errors
    /// [`ReadError`]: it may be there still.
    pub async fn finish_restore(&self) -> Result<(), ReadError> {
        let answer = self.request_json(&format!("STREAM.INFO.{}", self.stream), &json!({})).await?;
        let Some(config) = answer.get("config").and_then(Value::as_object) else {
            return Err(refusal(answer.get("error").unwrap_or(&Value::Null)));
        };
        let mut config = config.clone();
        let mut metadata = super::provision::own_metadata(&config);
        metadata.remove(UNFINISHED);
        config.insert("metadata".to_owned(), Value::Object(metadata));
        let path = format!("STREAM.UPDATE.{}", self.stream);
        let answer = self.request_json(&path, &Value::Object(config)).await?;
        answer.get("error").map_or(Ok(()), |error| Err(refusal(error)))
    }

    /// Removes the stream with everything in it. `false` when there was none.
    ///
    /// # Errors
    /// [`ReadError`]: it may be there still.
    pub async fn remove(&self) -> Result<bool, ReadError> {
        let path = format!("STREAM.DELETE.{}", self.stream);
        let answer = self.request_json(&path, &json!({})).await?;
        match answer.get("error") {
            None => Ok(true),
            Some(error) if error["err_code"] == STREAM_NOT_FOUND => Ok(false),
            Some(error) => Err(refusal(error)),
        }
    }

    /// Takes away what there is at the end of a batch that is not whole, and says how many messages it was. The
    /// guards of their subjects are then what they were before the batch. For a stream that nobody writes to.
    ///
    /// # Errors
    /// [`ReadError`]: some of it may be there still; do it again.
    pub async fn drop_half_batch(&self) -> Result<u64, ReadError> {
        let mut position = self.end().await?;
        let mut half = None;
        let mut dropped = 0;
        // An empty stream has no position to ask for.
        while position.0 > 0 {
            let Some(last) = self.at(position).await? else { break };
            let Some(batch) = last.header("Nats-Batch-Id") else { break };
            let is_of_it = match &half {
                None => last.header("Nats-Batch-Commit").is_none(),
                Some(half) => *half == batch,
            };
            if !is_of_it {
                break;
            }
            half = Some(batch);
            self.erase(position).await?;
            dropped += 1;
            position = Position(position.0.saturating_sub(1));
        }
        Ok(dropped)
    }
}

impl Snapshot {
    /// The next piece; `None` behind the last one.
    ///
    /// # Errors
    /// [`ReadError`]: what was had so far is worth nothing.
    #[expect(clippy::disallowed_methods, reason = "acknowledges a piece, and writes no log")]
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        let silent = || ReadError::Unavailable("the snapshot does not come".to_owned());
        let piece = timeout(PIECE_MAX, self.pieces.next()).await.map_err(|_| silent())?;
        let piece = piece.ok_or_else(silent)?;
        if piece.payload.is_empty() {
            return match piece.status {
                None | Some(StatusCode::OK) => Ok(None),
                Some(status) if status.as_u16() == 204 => Ok(None),
                Some(status) => {
                    let why = piece.description.as_deref().unwrap_or("no description").to_owned();
                    Err(ReadError::Refused(format!("the snapshot broke off: {why} ({status})")))
                }
            };
        }
        // The server sends so many pieces ahead and no more.
        if let Some(reply) = piece.reply {
            let told = self.client.publish(reply, Bytes::new()).await;
            told.map_err(|error| ReadError::Unavailable(error.to_string()))?;
        }
        Ok(Some(piece.payload))
    }
}

impl Restoring {
    /// Sends the next piece, which must not be empty.
    ///
    /// # Errors
    /// [`ReadError`]: begin again with a stream that there is none of.
    pub async fn send(&self, piece: Vec<u8>) -> Result<(), ReadError> {
        let answer = self.ask(piece, PIECE_MAX).await?;
        if answer.is_empty() { Ok(()) } else { Err(refused(&answer)) }
    }

    /// Says that this was all, and waits until the stream is there.
    ///
    /// # Errors
    /// [`ReadError`], as for [`Restoring::send`].
    pub async fn end(self) -> Result<(), ReadError> {
        let answer = self.ask(Vec::new(), END_MAX).await?;
        let value: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if value.get("config").is_some() { Ok(()) } else { Err(refused(&answer)) }
    }

    #[expect(clippy::disallowed_methods, reason = "sends a snapshot, which is no write to a log")]
    async fn ask(&self, piece: Vec<u8>, limit: Duration) -> Result<Bytes, ReadError> {
        let request = Request::new().payload(piece.into()).timeout(Some(limit));
        let answer = self.client.send_request(self.subject.clone(), request).await;
        Ok(answer.map_err(|error| ReadError::Unavailable(error.to_string()))?.payload)
    }
}

fn refused(answer: &[u8]) -> ReadError {
    let value: Value = serde_json::from_slice(answer).unwrap_or_default();
    refusal(value.get("error").unwrap_or(&Value::Null))
}
