//! How full a stream is. When it is full nothing more goes in, and nothing that is in goes out.
//!
//! So a part of it is reserved ([`EventLog::reserving`]): what can wait is refused before the end, and what ends
//! somebody's access still goes in. Whoever asks gets an answer from memory: the size that the server said at most
//! [`READ_PERIOD`] ago, plus what this process has written since. What other processes wrote since is not in it, so
//! the reserve has to be larger than what they write in that time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{EventLog, Outcome, ReadError};
use crate::metrics::Metrics;

/// How often the server is asked for the size of a stream with a reserve.
const READ_PERIOD: Duration = Duration::from_secs(1);
/// What a message takes beside its payload: subject, headers and the frame of its record, at most.
const MESSAGE_OVERHEAD_BYTES: u64 = 512;

/// What is known about the room of a stream with a reserve. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Headroom {
    room: Arc<Mutex<Room>>,
    reserve_percent: u8,
}

impl Headroom {
    fn is_left(&self) -> bool {
        let Room { bytes, bytes_max } = *self.room();
        let share = 100_u64.saturating_sub(self.reserve_percent.into());
        self.reserve_percent == 0 || bytes < (bytes_max / 100).saturating_mul(share)
    }

    /// Takes note of what an append did to the stream.
    pub(super) fn appended(&self, messages: usize, payload_bytes: usize, outcome: &Outcome) {
        let mut room = self.room();
        if matches!(outcome, Outcome::Stored(_)) {
            let overhead = (messages as u64).saturating_mul(MESSAGE_OVERHEAD_BYTES);
            room.bytes = room.bytes.saturating_add(overhead).saturating_add(payload_bytes as u64);
        } else if matches!(outcome, Outcome::Full) {
            // The server knows better, until it is asked again.
            room.bytes = room.bytes_max;
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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

    /// The same, with the last part of the stream reserved for what cannot wait. The size is read again every
    /// second until `stop`.
    ///
    /// # Errors
    /// [`ReadError`]: the server did not say how full the stream is.
    pub async fn reserving(
        self,
        reserve_percent: u8,
        stop: &CancellationToken,
    ) -> Result<Self, ReadError> {
        let room = Arc::new(Mutex::new(self.room().await?));
        let headroom = Headroom { room, reserve_percent };
        let (log, known, stop) = (self.clone(), headroom.clone(), stop.clone());
        let reading = async move {
            loop {
                tokio::time::sleep(READ_PERIOD).await;
                // Without an answer the size of before counts on: appends fail as well then.
                if let Ok(room) = log.room().await {
                    *known.room() = room;
                }
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its stop token, which every caller has"
        )]
        tokio::spawn(async move { stop.run_until_cancelled(reading).await });
        Ok(Self { headroom: Some(headroom), ..self })
    }

    /// Whether there is room for what can wait; always, without a reserve.
    #[must_use]
    pub fn has_headroom(&self) -> bool {
        self.headroom.as_ref().is_none_or(Headroom::is_left)
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
