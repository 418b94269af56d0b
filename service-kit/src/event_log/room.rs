//! How full a stream is. When it is full nothing more goes in, and nothing that is in goes out.

use serde_json::{Value, json};

use super::{EventLog, ReadError};
use crate::metrics::Metrics;

/// The room of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that are taken.
    pub bytes: u64,
    /// Bytes that there are.
    pub bytes_max: u64,
}

impl EventLog {
    /// How full the stream is now.
    ///
    /// # Errors
    /// [`ReadError`] when the log does not answer.
    pub async fn room(&self) -> Result<Room, ReadError> {
        let path = format!("STREAM.INFO.{}", self.stream);
        let answer = self.request_json(&path, &json!({})).await?;
        let number = |at: &str| answer.pointer(at).and_then(Value::as_u64);
        match (number("/state/bytes"), number("/config/max_bytes")) {
            (Some(bytes), Some(bytes_max)) => Ok(Room { bytes, bytes_max }),
            _ => Err(ReadError::Refused("no state in the answer".to_owned())),
        }
    }

    /// Lets every scrape see how full the stream is.
    pub fn watch_room(&self, metrics: &Metrics) {
        let (log, watched) = (self.clone(), metrics.stream(&self.stream));
        metrics.sample(move || {
            let (log, watched) = (log.clone(), watched.clone());
            async move {
                // A log that does not answer is told by what it is asked for, not here.
                if let Ok(room) = log.room().await {
                    watched.holds(room);
                }
            }
        });
    }
}
