//! The envelope: CloudEvents 1.0 in JSON (`application/cloudevents+json`).

use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Actor, CommandId, Revision, SessionFact, Timestamp, UserFact, UserId};

/// Media type of an event on the wire.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Largest event in bytes. Roster's own events are far smaller. Larger ones were not written by Roster and are not
/// applied to views and feed, whose stores have limits of their own.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;
/// CloudEvents `source` of everything that Roster itself writes.
pub const SOURCE: &str = "/roster";

const SPEC_VERSION: &str = "1.0";
const DATA_CONTENT_TYPE: &str = "application/json";

/// A fact about one type of aggregate, and its place in the envelope.
pub trait Fact: Sized + PartialEq {
    /// The state after the fact, as an event carries it.
    type After: Serialize + DeserializeOwned + Clone + Debug + PartialEq;
    /// The name of that state in `data`.
    const STATE: &'static str;
    /// CloudEvents `source`: the service that decides.
    const SOURCE: &'static str = SOURCE;

    /// The event type on the wire, with its version. Written by hand and never reused.
    fn wire_type(&self) -> &'static str;

    /// The changed members. An absent member did not change; `null` means that it was removed.
    ///
    /// # Errors
    /// Only when a value cannot be JSON.
    fn changed(&self) -> Result<Map<String, Value>, serde_json::Error>;

    /// Parses the result of [`Fact::changed`].
    ///
    /// # Errors
    /// [`DecodeError`] for a type that this version does not know, or members that do not fit it.
    fn read(kind: &str, changed: Map<String, Value>) -> Result<Self, DecodeError>;

    /// The id of the aggregate, as text.
    fn subject(after: &Self::After) -> String;

    /// The number of its events so far.
    fn revision(after: &Self::After) -> Revision;

    /// Whether the state after the fact shows what it changed. The state before is not known here: missing events are
    /// detected when events are folded one by one.
    fn explains(&self, after: &Self::After, time: Timestamp) -> bool;
}

/// One event of one user.
pub type Event = Envelope<UserFact>;
/// One event of one session.
pub type SessionEvent = Envelope<SessionFact>;

/// One event in the log.
///
/// On the wire:
/// `{specversion, id, source, type, subject, time, datacontenttype, revision, actor, commandid,
/// correlationid?, causationid?, traceparent?, data: {changed?, user | session}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<F: Fact> {
    /// Unique per event (UUIDv7).
    pub id: Uuid,
    /// The time of the decision.
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// The command that caused it; the same for all events of one command.
    pub command_id: CommandId,
    /// The request id by which the caller can follow the request through the system.
    pub correlation_id: Option<String>,
    /// The event this one is a reaction to.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The fact.
    pub fact: F,
    /// The state after the fact.
    pub after: F::After,
}

/// The bytes are not an event that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON shape of an event.
    #[error("not an event: {}", without_values(.0))]
    Json(#[from] serde_json::Error),
    /// Larger than any event.
    #[error("{0} bytes are too many for an event")]
    TooLarge(usize),
    /// A type (or version of one) this reader does not know.
    #[error("unknown event type {0:?}")]
    UnknownType(String),
    /// Contradictory parts.
    #[error("{0}")]
    Inconsistent(&'static str),
}

/// An event that must not be written, because no reader could decode it.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value cannot be JSON.
    #[error("no JSON: {}", without_values(.0))]
    Json(#[from] serde_json::Error),
    /// It can be encoded and not decoded.
    #[error("it could not be read back: {0}")]
    Unreadable(#[from] DecodeError),
    /// It can be encoded and decodes to another event.
    #[error("it would be read back as another event")]
    Altered,
}

/// What is wrong with the JSON, without its values: they are personal data, and errors are logged.
fn without_values(error: &serde_json::Error) -> String {
    let text = error.to_string();
    // Strings are in quotes, other values after "unknown" and "invalid" in backticks.
    let quote = match text.starts_with("unknown") || text.starts_with("invalid") {
        true => ['"', '`'],
        false => ['"', '"'],
    };
    let Some(first) = text.find(quote) else { return text };
    let last = text.rfind(quote).unwrap_or(first);
    format!(
        "{}…{}",
        text.get(..first).unwrap_or_default(),
        text.get(last + 1..).unwrap_or_default()
    )
}

#[derive(Serialize, Deserialize)]
struct Wire {
    specversion: String,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: Timestamp,
    datacontenttype: String,
    revision: Revision,
    actor: Actor,
    commandid: CommandId,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    correlationid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    causationid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    traceparent: Option<String>,
    data: Map<String, Value>,
}

/// The origin of an event, read without the rest of it.
#[derive(Debug, Clone, Deserialize)]
pub struct Cause {
    /// The event type on the wire.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request.
    #[serde(rename = "correlationid")]
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

impl Cause {
    /// Parses it; `None` if the bytes are not an event.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

const CHANGED: &str = "changed";

impl Envelope<UserFact> {
    /// The user the event is about.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        self.after.user_id()
    }
}

impl<F: Fact> Envelope<F> {
    /// Revision of the aggregate after the event.
    #[must_use]
    pub fn revision(&self) -> Revision {
        F::revision(&self.after)
    }

    /// Encodes the event for the log. The result is decoded once as a check, because an event that readers cannot
    /// decode would stop the views and the feed of every user.
    ///
    /// # Errors
    /// [`EncodeError`]: write nothing.
    pub fn to_json(&self) -> Result<Vec<u8>, EncodeError> {
        let bytes = self.encode()?;
        if Self::from_json(&bytes)? == *self { Ok(bytes) } else { Err(EncodeError::Altered) }
    }

    fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut data = Map::new();
        let changed = self.fact.changed()?;
        if !changed.is_empty() {
            data.insert(CHANGED.to_owned(), Value::Object(changed));
        }
        data.insert(F::STATE.to_owned(), serde_json::to_value(&self.after)?);
        serde_json::to_vec(&Wire {
            specversion: SPEC_VERSION.to_owned(),
            id: self.id,
            source: F::SOURCE.to_owned(),
            kind: self.fact.wire_type().to_owned(),
            subject: F::subject(&self.after),
            time: self.time,
            datacontenttype: DATA_CONTENT_TYPE.to_owned(),
            revision: self.revision(),
            actor: self.actor,
            commandid: self.command_id,
            correlationid: self.correlation_id.clone(),
            causationid: self.causation_id.clone(),
            traceparent: self.traceparent.clone(),
            data,
        })
    }

    /// Decodes an event of the log.
    ///
    /// # Errors
    /// [`DecodeError`]: the reader must stop (or park the aggregate), never skip.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > EVENT_BYTES_MAX {
            return Err(DecodeError::TooLarge(bytes.len()));
        }
        let mut wire: Wire = serde_json::from_slice(bytes)?;
        if wire.specversion != SPEC_VERSION {
            return Err(DecodeError::Inconsistent("specversion is not 1.0"));
        }
        let state = wire.data.remove(F::STATE).ok_or(DecodeError::Inconsistent("no state"))?;
        let after: F::After = serde_json::from_value(state)?;
        if wire.subject != F::subject(&after) {
            return Err(DecodeError::Inconsistent("subject and state name different aggregates"));
        }
        if wire.revision != F::revision(&after) {
            return Err(DecodeError::Inconsistent("envelope and state differ in revision"));
        }
        let changed = match wire.data.remove(CHANGED) {
            None => Map::new(),
            Some(Value::Object(changed)) => changed,
            Some(_) => return Err(DecodeError::Inconsistent("changed is no object")),
        };
        let fact = F::read(&wire.kind, changed)?;
        if !fact.explains(&after, wire.time) {
            return Err(DecodeError::Inconsistent("the state does not follow from what changed"));
        }
        Ok(Self {
            id: wire.id,
            time: wire.time,
            actor: wire.actor,
            command_id: wire.commandid,
            correlation_id: wire.correlationid,
            causation_id: wire.causationid,
            traceparent: wire.traceparent,
            fact,
            after,
        })
    }
}
