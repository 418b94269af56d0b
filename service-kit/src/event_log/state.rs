//! What the server says of a stream: its clock, its room, its copies. For whoever looks after a system.

use events::Timestamp;
use serde_json::{Value, json};

use super::read::refusal;
use super::{EventLog, ReadError};

/// A stream at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    /// The time on the server's clock.
    pub server_time: Option<Timestamp>,
    /// Bytes that are taken.
    pub bytes: u64,
    /// Bytes that there are.
    pub bytes_max: u64,
    /// Whether its oldest messages give way when it is full.
    pub drops_oldest: bool,
    /// Copies that there are to be.
    pub copies: u64,
    /// Names of the nodes whose copy is away or behind.
    pub away: Vec<String>,
}

impl EventLog {
    /// What the server says of the stream now.
    ///
    /// # Errors
    /// [`ReadError`] when the log does not answer.
    pub async fn state(&self) -> Result<StreamState, ReadError> {
        let path = format!("STREAM.INFO.{}", self.stream);
        let answer = self.request_json(&path, &json!({})).await?;
        if let Some(error) = answer.get("error") {
            return Err(refusal(error));
        }
        let number = |at: &str| answer.pointer(at).and_then(Value::as_u64).unwrap_or_default();
        let time = answer.get("ts").and_then(Value::as_str).map(str::to_owned);
        let copies = answer.pointer("/cluster/replicas").and_then(Value::as_array);
        let is_away = |copy: &&Value| {
            let is = |name: &str| copy.get(name).and_then(Value::as_bool);
            is("offline") == Some(true) || is("current") == Some(false)
        };
        let name = |copy: &Value| {
            copy.get("name").and_then(Value::as_str).unwrap_or("a node without a name").to_owned()
        };
        Ok(StreamState {
            server_time: time.and_then(|time| Timestamp::try_from(time).ok()),
            bytes: number("/state/bytes"),
            bytes_max: number("/config/max_bytes"),
            drops_oldest: answer.pointer("/config/discard").and_then(Value::as_str) == Some("old"),
            copies: number("/config/num_replicas"),
            away: copies.into_iter().flatten().filter(is_away).map(name).collect(),
        })
    }
}
