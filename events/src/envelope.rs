//! The envelope: CloudEvents 1.0 in JSON (`application/cloudevents+json`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{Actor, CommandId, Metadata, Revision, Snapshot, Timestamp, UserFact, UserId};

/// Media type of an event on the wire.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// CloudEvents `source` of everything Roster writes.
pub const SOURCE: &str = "/roster";

const SPEC_VERSION: &str = "1.0";
const DATA_CONTENT_TYPE: &str = "application/json";

/// One event of one user as it stands in the log.
///
/// On the wire:
/// `{specversion, id, source, type, subject, time, datacontenttype, revision, actor, commandid,
/// correlationid?, causationid?, traceparent?, data: {changed?, user}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique per event (UUIDv7).
    pub id: Uuid,
    /// When it was decided.
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// The command that led to it; the same for all events of one command.
    pub command_id: CommandId,
    /// The request the caller wants to follow through the system.
    pub correlation_id: Option<String>,
    /// The event this one is a reaction to.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What happened.
    pub fact: UserFact,
    /// The public state after it.
    pub after: Snapshot,
}

/// Bytes that are not an event this version can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON shape of an event.
    #[error("not an event: {0}")]
    Json(#[from] serde_json::Error),
    /// A type (or version of one) this reader does not know.
    #[error("unknown event type {0:?}")]
    UnknownType(String),
    /// Parts that contradict each other.
    #[error("{0}")]
    Inconsistent(&'static str),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    specversion: String,
    id: Uuid,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: UserId,
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
    data: WireData,
}

#[derive(Serialize, Deserialize)]
struct WireData {
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    changed: Map<String, Value>,
    user: Snapshot,
}

#[derive(Serialize, Deserialize)]
struct WireRegistered {
    email: String,
    email_verified: bool,
    full_name: Option<String>,
    roles: Vec<String>,
    metadata: Metadata,
}

impl Event {
    /// The user the event is about.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        self.after.user_id()
    }

    /// Revision of the user after the event.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.after.revision()
    }

    /// The event as it is written to the log.
    ///
    /// # Errors
    /// Only when a value cannot be JSON, which no value made by this crate is.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Wire {
            specversion: SPEC_VERSION.to_owned(),
            id: self.id,
            source: SOURCE.to_owned(),
            kind: self.fact.wire_type().to_owned(),
            subject: self.user_id(),
            time: self.time,
            datacontenttype: DATA_CONTENT_TYPE.to_owned(),
            revision: self.revision(),
            actor: self.actor,
            commandid: self.command_id,
            correlationid: self.correlation_id.clone(),
            causationid: self.causation_id.clone(),
            traceparent: self.traceparent.clone(),
            data: WireData { changed: changed(&self.fact)?, user: self.after.clone() },
        })
    }

    /// Reads an event from the log.
    ///
    /// # Errors
    /// [`DecodeError`]: the reader must stop (or park the aggregate), never skip.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire = serde_json::from_slice(bytes)?;
        if wire.specversion != SPEC_VERSION {
            return Err(DecodeError::Inconsistent("specversion is not 1.0"));
        }
        if wire.subject != wire.data.user.user_id() {
            return Err(DecodeError::Inconsistent("subject and state name different users"));
        }
        if wire.revision != wire.data.user.revision() {
            return Err(DecodeError::Inconsistent("envelope and state differ in revision"));
        }
        Ok(Self {
            id: wire.id,
            time: wire.time,
            actor: wire.actor,
            command_id: wire.commandid,
            correlation_id: wire.correlationid,
            causation_id: wire.causationid,
            traceparent: wire.traceparent,
            fact: fact(&wire.kind, wire.data.changed)?,
            after: wire.data.user,
        })
    }
}

/// What changed, member by member. A member that is absent did not change; `null` removed it.
fn changed(fact: &UserFact) -> Result<Map<String, Value>, serde_json::Error> {
    let mut members = Map::new();
    match fact {
        UserFact::Registered { email, email_verified, full_name, roles, metadata } => {
            members.insert("email".to_owned(), email.clone().into());
            members.insert("email_verified".to_owned(), (*email_verified).into());
            members.insert("full_name".to_owned(), serde_json::to_value(full_name)?);
            members.insert("roles".to_owned(), serde_json::to_value(roles)?);
            members.insert("metadata".to_owned(), Value::Object(metadata.clone()));
        }
        UserFact::ProfileChanged { full_name, metadata } => {
            if let Some(full_name) = full_name {
                members.insert("full_name".to_owned(), serde_json::to_value(full_name)?);
            }
            if let Some(metadata) = metadata {
                members.insert("metadata".to_owned(), Value::Object(metadata.clone()));
            }
        }
        UserFact::RolesChanged { roles } => {
            members.insert("roles".to_owned(), serde_json::to_value(roles)?);
        }
        UserFact::Disabled => {
            members.insert("status".to_owned(), "disabled".into());
        }
        UserFact::Enabled => {
            members.insert("status".to_owned(), "active".into());
        }
        UserFact::Deleted => {}
    }
    Ok(members)
}

fn fact(kind: &str, mut changed: Map<String, Value>) -> Result<UserFact, DecodeError> {
    match kind {
        "user.registered.v1" => {
            let wire: WireRegistered = serde_json::from_value(Value::Object(changed))?;
            Ok(UserFact::Registered {
                email: wire.email,
                email_verified: wire.email_verified,
                full_name: wire.full_name,
                roles: wire.roles,
                metadata: wire.metadata,
            })
        }
        "user.profile_changed.v1" => Ok(UserFact::ProfileChanged {
            full_name: changed.remove("full_name").map(serde_json::from_value).transpose()?,
            metadata: changed.remove("metadata").map(serde_json::from_value).transpose()?,
        }),
        "user.roles_changed.v1" => {
            let roles =
                changed.remove("roles").ok_or(DecodeError::Inconsistent("roles missing"))?;
            Ok(UserFact::RolesChanged { roles: serde_json::from_value(roles)? })
        }
        "user.disabled.v1" => Ok(UserFact::Disabled),
        "user.enabled.v1" => Ok(UserFact::Enabled),
        "user.deleted.v1" => Ok(UserFact::Deleted),
        other => Err(DecodeError::UnknownType(other.to_owned())),
    }
}
