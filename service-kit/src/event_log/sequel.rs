//! Writing a stream with one writer: each message behind the last one of the whole stream.
//!
//! The log is guarded subject by subject, because many write to it. A stream that one process derives from
//! another is guarded as a whole: a writer that does not know the last message writes nothing. So a second
//! writer, a copy that was held up in a buffer, or a retry of what is stored already cannot put anything in
//! twice or out of order.

use std::time::Duration;

use async_nats::header::HeaderMap;
use bytes::Bytes;
use events::Position;

use super::append::{APPEND_MESSAGES_MAX, Attempt, Outgoing};
use super::{EventLog, Outcome, ReadError, Stored};

/// Messages that can be written at once.
pub const SEQUEL_MESSAGES_MAX: usize = APPEND_MESSAGES_MAX;

/// The end of a stream.
#[derive(Debug, Clone)]
pub struct Tail {
    /// Sequence of the last message that was ever written; 0 when none was.
    pub end: Position,
    /// The last message of the writer that is still there, beneath what others had stored.
    pub last: Option<Stored>,
}

/// One message to be written behind the last.
#[derive(Debug, Clone)]
pub struct Sequel {
    /// Where it goes.
    pub subject: String,
    /// What it says.
    pub payload: Bytes,
    /// Headers of its own.
    pub headers: Vec<(&'static str, String)>,
    /// When the server may drop it (whole seconds); never when it is not given.
    pub kept: Option<Duration>,
}

impl EventLog {
    /// Where a stream ends that takes in `subjects`.
    ///
    /// # Errors
    /// [`ReadError`]: write nothing.
    pub async fn tail(&self, subjects: &[&str]) -> Result<Tail, ReadError> {
        loop {
            let end = self.end().await?;
            let last = if end.0 == 0 { None } else { self.newest(subjects).await? };
            // Something was written between the two questions: ask again.
            if last.as_ref().is_none_or(|last| last.position <= end) {
                return Ok(Tail { end, last: self.beneath_the_end(last).await? });
            }
        }
    }

    /// The last message that is still there. Asked for the last on `>` the server looks at the end of the
    /// stream alone and finds nothing when that message is gone (2.15.1, tried); under any other filter it
    /// searches.
    async fn newest(&self, subjects: &[&str]) -> Result<Option<Stored>, ReadError> {
        let mut newest = self.newest_on(">").await?;
        if newest.is_none() {
            for subject in subjects {
                let last = self.newest_on(subject).await?;
                let position = |of: &Option<Stored>| of.as_ref().map(|stored| stored.position);
                if position(&last) > position(&newest) {
                    newest = last;
                }
            }
        }
        Ok(newest)
    }

    /// Writes messages behind `end`, all or none, and answers the position of the last one. Never tries
    /// again: after anything but [`Outcome::Stored`] the writer looks at [`EventLog::tail`] and goes on from
    /// there.
    pub async fn append_behind(&self, end: Position, messages: &[Sequel]) -> Outcome {
        if messages.len() > SEQUEL_MESSAGES_MAX {
            return Outcome::Refused(0, format!("more than {SEQUEL_MESSAGES_MAX} messages"));
        }
        if !self.is_connected() {
            // Nothing is put into the client's buffer, so nothing can arrive later.
            return Outcome::Unavailable;
        }
        let outgoing = messages.iter().enumerate().map(|(n, message)| {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Expected-Stream", &*self.stream);
            headers.insert("Content-Type", events::CONTENT_TYPE);
            if n == 0 {
                // The first guard covers a whole batch; the server takes no other in it.
                headers.insert("Nats-Expected-Last-Sequence", end.0.to_string().as_str());
            }
            for (name, value) in &message.headers {
                headers.insert(*name, value.as_str());
            }
            if let Some(kept) = message.kept {
                headers.insert("Nats-TTL", format!("{}s", kept.as_secs().max(1)).as_str());
            }
            let (subject, payload) = (message.subject.clone(), message.payload.clone());
            Outgoing { headers, subject, payload }
        });
        match self.publish(outgoing.collect()).await {
            Attempt::Done(outcome) => outcome,
            Attempt::NoSlot => Outcome::Unavailable,
        }
    }
}
