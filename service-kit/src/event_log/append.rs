//! Guarded writes: one message, or several as one atomic batch.

use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{PublishErrorKind, Request, RequestErrorKind, StatusCode};
use bytes::Bytes;
use events::{CommandId, Position};
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::read::{Search, command_headers};
use super::{EVENT_TYPE_HEADER, EventLog};

/// First pause before a batch that found no free slot is sent again; doubled each time.
const BATCH_RETRY_FIRST: Duration = Duration::from_millis(5);
/// Longest such pause.
const BATCH_RETRY_MAX: Duration = Duration::from_millis(160);
/// Pause between look-ups of an append whose outcome is unknown.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(100);
/// Messages in one append: the server takes 1,000 in a batch.
pub(super) const APPEND_MESSAGES_MAX: usize = 1_000;

/// What a subject must hold for a write to be let in: its last sequence, or nothing at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard(u64);

impl Guard {
    /// The subject must be empty.
    #[must_use]
    pub const fn absent() -> Self {
        Self(0)
    }

    pub(super) const fn behind(position: Position) -> Self {
        Self(position.0)
    }

    pub(super) const fn sequence(self) -> u64 {
        self.0
    }
}

/// One guarded message.
#[derive(Debug, Clone)]
pub struct Write {
    subject: String,
    guard: Guard,
    payload: Bytes,
    event: Option<(Uuid, &'static str)>,
    ttl: Option<Duration>,
}

impl Write {
    /// A message on a literal subject.
    #[must_use]
    pub fn new(subject: String, guard: Guard, payload: impl Into<Bytes>) -> Self {
        Self { subject, guard, payload: payload.into(), event: None, ttl: None }
    }

    /// Marks the message as an event: its type goes into a header, its id becomes the message id.
    #[must_use]
    pub const fn event(mut self, id: Uuid, wire_type: &'static str) -> Self {
        self.event = Some((id, wire_type));
        self
    }

    /// Lets the server drop the message after a while (whole seconds). Idempotency records do, and the
    /// records of the throttle.
    #[must_use]
    pub const fn expiring_after(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    fn headers(&self, stream: &str, command: CommandId) -> HeaderMap {
        let mut headers = headers(stream, command, self.event);
        headers.insert("Nats-Expected-Last-Subject-Sequence", self.guard.0.to_string().as_str());
        if let Some(ttl) = self.ttl {
            headers.insert("Nats-TTL", format!("{}s", ttl.as_secs()).as_str());
        }
        headers
    }
}

fn headers(stream: &str, command: CommandId, event: Option<(Uuid, &'static str)>) -> HeaderMap {
    let mut headers = command_headers(command);
    headers.insert("Nats-Expected-Stream", stream);
    if let Some((id, wire_type)) = event {
        headers.insert("Nats-Msg-Id", id.to_string().as_str());
        headers.insert(EVENT_TYPE_HEADER, wire_type);
        headers.insert("Content-Type", events::CONTENT_TYPE);
    }
    headers
}

/// What one command writes: all of it or nothing. The last message is the one whose position counts.
#[derive(Debug, Clone)]
pub struct Append {
    command: CommandId,
    before: Vec<Write>,
    last: Write,
    more: Vec<Unguarded>,
}

/// A further message on the subject of [`Append::new`]'s write. The server refuses a second guard on one
/// subject within a batch (10164), and needs none: the first message's guard covers the whole batch.
#[derive(Debug, Clone)]
struct Unguarded {
    payload: Bytes,
    event: (Uuid, &'static str),
}

impl Append {
    /// An append of one message; more go before it with [`Append::with`] and behind it with
    /// [`Append::then`].
    #[must_use]
    pub const fn new(command: CommandId, last: Write) -> Self {
        Self { command, before: Vec::new(), last, more: Vec::new() }
    }

    /// Adds an event behind the last message, on the same subject and under its guard.
    #[must_use]
    pub fn then(mut self, payload: impl Into<Bytes>, id: Uuid, wire_type: &'static str) -> Self {
        self.more.push(Unguarded { payload: payload.into(), event: (id, wire_type) });
        self
    }

    /// Adds a message that is stored together with the last one, before it.
    #[must_use]
    pub fn with(mut self, write: Write) -> Self {
        self.before.push(write);
        self
    }

    /// Number of messages.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.before.len() + 1 + self.more.len()
    }

    fn payload_bytes(&self) -> usize {
        let guarded = self.before.iter().chain([&self.last]).map(|write| write.payload.len());
        guarded.chain(self.more.iter().map(|more| more.payload.len())).sum()
    }

    /// Never: an append has at least its last message.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// What came of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Stored whole; the position of its last message.
    Stored(Position),
    /// A guard did not hold: nothing was stored. Load again and decide again.
    Conflict,
    /// The server knows the message id from another write and stored nothing now.
    Duplicate,
    /// Nobody can say. Asking again with the same idempotency key tells.
    Unknown,
    /// The stream is at its limit: nothing was stored.
    Full,
    /// No connection or no leader: nothing was stored.
    Unavailable,
    /// The server refused for another reason (code, text): nothing was stored. A fault of configuration
    /// or of Roster.
    Refused(u64, String),
}

/// The answer of the server to a message of a batch or to a single one.
#[derive(Deserialize)]
struct PubAck {
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct ApiError {
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// A message as it goes to the server.
pub(super) struct Outgoing {
    pub(super) headers: HeaderMap,
    pub(super) subject: String,
    pub(super) payload: Bytes,
}

/// What one attempt told.
pub(super) enum Attempt {
    Done(Outcome),
    /// All slots for batches are taken: nothing was stored.
    NoSlot,
}

impl ApiError {
    fn attempt(self) -> Attempt {
        Attempt::Done(match self.err_code {
            // 10071: wrong last sequence. 10164: the same, found out while another write to the subject
            // was still in flight (clustered streams only).
            10071 | 10164 => Outcome::Conflict,
            // A batch with a message id the stream has seen. A single write is acknowledged as duplicate.
            10201 => Outcome::Duplicate,
            // Maximum bytes or messages, and the account's or server's storage.
            10077 | 10047 | 10023 | 10122 => Outcome::Full,
            10210 => return Attempt::NoSlot,
            // The first message of the batch was dropped or timed out before the commit came.
            10176 => Outcome::Unavailable,
            _ if self.code == 503 => Outcome::Unavailable,
            code => Outcome::Refused(code, self.description),
        })
    }
}

impl EventLog {
    /// Writes all of an append or nothing, and finds out which.
    ///
    /// Safe to be dropped only before it is polled: run it in a task of its own, so that a client that
    /// hangs up cannot stop it half-way.
    pub async fn append(&self, append: &Append) -> Outcome {
        let started = Instant::now();
        let outcome = self.append_within(append, started + self.limits.append_deadline).await;
        if let Some(metrics) = &self.metrics {
            metrics.appended(&outcome, started.elapsed());
        }
        if let Some(headroom) = &self.headroom {
            headroom.appended(append.len(), append.payload_bytes(), &outcome);
        }
        outcome
    }

    async fn append_within(&self, append: &Append, deadline: Instant) -> Outcome {
        if append.len() > APPEND_MESSAGES_MAX {
            return Outcome::Refused(0, format!("more than {APPEND_MESSAGES_MAX} messages"));
        }
        let mut pause = BATCH_RETRY_FIRST;
        // Once one attempt ended without an answer, a later "nothing stored" speaks for itself alone.
        let mut in_doubt = false;
        loop {
            match self.attempt(append).await {
                Attempt::Done(stored @ Outcome::Stored(_)) => return stored,
                Attempt::Done(Outcome::Full | Outcome::Unavailable | Outcome::Refused(..))
                | Attempt::NoSlot
                    if in_doubt => {}
                Attempt::Done(
                    certain @ (Outcome::Full | Outcome::Unavailable | Outcome::Refused(..)),
                ) => return certain,
                Attempt::NoSlot => {}
                Attempt::Done(Outcome::Unknown) => in_doubt = true,
                Attempt::Done(seen @ (Outcome::Conflict | Outcome::Duplicate)) => {
                    match self.look_up(append).await {
                        Some(Search::Found(position)) => return Outcome::Stored(position),
                        Some(Search::Overtaken) => return Outcome::Conflict,
                        // The only copy was refused: nothing of ours is on its way.
                        Some(Search::Untouched) | None if !in_doubt => return seen,
                        // The refusal may come from our own earlier copy, still in flight.
                        Some(Search::Untouched) | None => pause = LOOK_UP_PAUSE,
                    }
                }
            }
            if in_doubt {
                match self.look_up(append).await {
                    Some(Search::Found(position)) => return Outcome::Stored(position),
                    Some(Search::Overtaken) => return Outcome::Conflict,
                    Some(Search::Untouched) | None => pause = LOOK_UP_PAUSE,
                }
            }
            if Instant::now() + pause >= deadline {
                return if in_doubt { Outcome::Unknown } else { Outcome::Unavailable };
            }
            sleep(pause).await;
            pause = (pause * 2).min(BATCH_RETRY_MAX);
            if let Some(metrics) = &self.metrics {
                metrics.sent_again();
            }
        }
    }

    /// Looks whether the append is stored, can no longer be stored, or neither. `None`: no answer.
    async fn look_up(&self, append: &Append) -> Option<Search> {
        match self.find_append(append).await? {
            Search::Untouched => {}
            known @ (Search::Found(_) | Search::Overtaken) => return Some(known),
        }
        for write in &append.before {
            let now = self.newest_on(&write.subject).await.ok()?;
            let now = now.map_or(Guard::absent(), |message| message.guard());
            if now != write.guard {
                // Someone moved another subject of the batch, or our own batch landed just now.
                return match self.find_append(append).await? {
                    Search::Untouched => Some(Search::Overtaken),
                    known @ (Search::Found(_) | Search::Overtaken) => Some(known),
                };
            }
        }
        Some(Search::Untouched)
    }

    async fn find_append(&self, append: &Append) -> Option<Search> {
        let last = &append.last;
        let found = self.find(&last.subject, last.guard, append.command).await.ok()?;
        Some(match found {
            // The messages of a batch stand one behind the other.
            Search::Found(first) => Search::Found(Position(first.0 + append.more.len() as u64)),
            Search::Overtaken | Search::Untouched => found,
        })
    }

    async fn attempt(&self, append: &Append) -> Attempt {
        if !self.is_connected() {
            // Nothing is put into the client's buffer, so nothing can arrive later.
            return Attempt::Done(Outcome::Unavailable);
        }
        let guarded = append.before.iter().chain([&append.last]).map(|write| Outgoing {
            headers: write.headers(&self.stream, append.command),
            subject: write.subject.clone(),
            payload: write.payload.clone(),
        });
        let unguarded = append.more.iter().map(|more| Outgoing {
            headers: headers(&self.stream, append.command, Some(more.event)),
            subject: append.last.subject.clone(),
            payload: more.payload.clone(),
        });
        self.publish(guarded.chain(unguarded).collect()).await
    }

    /// Sends guarded messages: one, or several as a batch that is stored whole or not at all.
    pub(super) async fn publish(&self, mut messages: Vec<Outgoing>) -> Attempt {
        match messages.pop() {
            None => Attempt::Done(Outcome::Refused(0, "nothing to write".to_owned())),
            Some(one) if messages.is_empty() => self.publish_one(one).await,
            Some(last) => {
                messages.push(last);
                self.publish_batch(messages).await
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the guarded write the ban points to")]
    async fn publish_one(&self, message: Outgoing) -> Attempt {
        let request = Request::new()
            .headers(message.headers)
            .payload(message.payload)
            .timeout(Some(self.limits.request_timeout));
        match self.client.send_request(message.subject, request).await {
            Ok(message) => acknowledgement(&message.payload),
            Err(error) => Attempt::Done(match error.kind() {
                RequestErrorKind::NoResponders => Outcome::Unavailable,
                RequestErrorKind::TimedOut | RequestErrorKind::Other => Outcome::Unknown,
                RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                    Outcome::Refused(0, error.to_string())
                }
            }),
        }
    }

    /// ADR-50 of NATS: every message names the batch and its number in it, the last one commits. Only
    /// the answer to the commit tells the outcome; an answer to an earlier message tells why.
    #[expect(clippy::disallowed_methods, reason = "this is the guarded write the ban points to")]
    async fn publish_batch(&self, messages: Vec<Outgoing>) -> Attempt {
        let Ok(_slot) = self.open_batches.acquire().await else {
            return Attempt::Done(Outcome::Unavailable);
        };
        let batch = crate::ambient::new_uuid().simple().to_string();
        let inbox = self.client.new_inbox();
        let Ok(mut answers) = self.client.subscribe(format!("{inbox}.*")).await else {
            return Attempt::Done(Outcome::Unavailable);
        };
        let commit_reply = format!("{inbox}.commit");
        let commit = messages.len();
        for (n, Outgoing { mut headers, subject, payload }) in messages.into_iter().enumerate() {
            let number = n + 1;
            headers.insert("Nats-Batch-Id", batch.as_str());
            headers.insert("Nats-Batch-Sequence", number.to_string().as_str());
            let mut reply = format!("{inbox}.{number}");
            if number == commit {
                headers.insert("Nats-Batch-Commit", "1");
                reply.clone_from(&commit_reply);
            }
            let sent =
                self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
            if let Err(error) = sent {
                // Without its commit a batch is dropped by the server: nothing can be stored.
                return Attempt::Done(match error.kind() {
                    PublishErrorKind::MaxPayloadExceeded | PublishErrorKind::InvalidSubject => {
                        Outcome::Refused(0, error.to_string())
                    }
                    PublishErrorKind::Send => Outcome::Unavailable,
                });
            }
        }
        let deadline = Instant::now() + self.limits.request_timeout;
        let mut reason = None;
        loop {
            let Ok(Some(message)) = timeout_at(deadline, answers.next()).await else {
                return Attempt::Done(Outcome::Unknown);
            };
            let is_commit = message.subject.as_str() == commit_reply;
            let attempt = if message.status == Some(StatusCode::NO_RESPONDERS) {
                Attempt::Done(Outcome::Unavailable)
            } else if message.payload.is_empty() && !is_commit {
                continue;
            } else {
                acknowledgement(&message.payload)
            };
            match (is_commit, attempt) {
                (true, stored @ Attempt::Done(Outcome::Stored(_))) => return stored,
                (true, refused) => return reason.unwrap_or(refused),
                (false, refused) => {
                    reason.get_or_insert(refused);
                }
            }
        }
    }
}

fn acknowledgement(payload: &[u8]) -> Attempt {
    match serde_json::from_slice::<PubAck>(payload) {
        Ok(PubAck { error: Some(error), .. }) => error.attempt(),
        Ok(PubAck { duplicate: true, .. }) => Attempt::Done(Outcome::Duplicate),
        Ok(PubAck { seq: Some(seq), .. }) => Attempt::Done(Outcome::Stored(Position(seq))),
        // Something answered, and not in the words of a stream: nothing can be said.
        Ok(PubAck { seq: None, .. }) | Err(_) => Attempt::Done(Outcome::Unknown),
    }
}
