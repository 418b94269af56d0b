//! The view of a user's history: one document per event.

use events::{Actor, Event, Fact, Position, Revision, Timestamp};
use mongodb::bson::{self, DateTime, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::user::{date, signed, timestamp};
use crate::{DamagedView, user_key};

/// The stored document. Its id is the position of the event, so an event that is delivered again is written to the same
/// place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryDocument {
    /// Position of the event.
    #[serde(rename = "_id")]
    pub position: i64,
    /// The user.
    pub user_id: Uuid,
    revision: i64,
    #[serde(rename = "type")]
    kind: String,
    time: DateTime,
    actor: String,
    /// JSON as text, as the metadata of a user.
    changed: String,
}

/// One event of a user, as the views have it.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// Its position in the log.
    pub position: Position,
    /// Number of the user's events, including it.
    pub revision: Revision,
    /// Its type on the wire.
    pub kind: String,
    /// When it was decided.
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What changed, member by member.
    pub changed: Map<String, Value>,
}

impl HistoryDocument {
    /// The document of an event. Pure.
    ///
    /// # Errors
    /// Only when a value cannot be JSON, which no event read from the log has.
    pub fn project(event: &Event, position: Position) -> Result<Self, serde_json::Error> {
        Ok(Self {
            position: signed(position.0),
            user_id: user_key(event.user_id()),
            revision: signed(event.revision().0),
            kind: event.fact.wire_type().to_owned(),
            time: date(event.time),
            actor: event.actor.to_string(),
            changed: Value::Object(event.fact.changed()?).to_string(),
        })
    }

    /// The event in the document.
    ///
    /// # Errors
    /// [`DamagedView`]: rebuild the views.
    pub fn view(self) -> Result<HistoryEntry, DamagedView> {
        Ok(HistoryEntry {
            position: self.position(),
            revision: Revision(self.revision.unsigned_abs()),
            kind: self.kind,
            time: timestamp(self.time),
            actor: self.actor.try_into().map_err(|_| DamagedView("the actor is nobody"))?,
            changed: serde_json::from_str(&self.changed)
                .map_err(|_| DamagedView("changed is not JSON"))?,
        })
    }

    /// Position of the event.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position(self.position.unsigned_abs())
    }

    /// The document for the driver.
    ///
    /// # Errors
    /// Never for a document made by [`HistoryDocument::project`].
    pub fn to_bson(&self) -> Result<bson::Document, bson::error::Error> {
        bson::serialize_to_document(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{CommandId, DeletedUser, Snapshot, UserFact, UserId};

    fn event(fact: UserFact) -> Event {
        let time = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        let id = UserId::from_uuid(uuid::Uuid::from_u128(1));
        Event {
            id: uuid::Uuid::from_u128(2),
            time,
            actor: Actor::User(UserId::from_uuid(uuid::Uuid::from_u128(3))),
            command_id: CommandId::from_uuid(uuid::Uuid::from_u128(4)),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            fact,
            after: Snapshot::Deleted(DeletedUser { id, revision: Revision(2), deleted_at: time }),
        }
    }

    #[test]
    fn what_is_projected_is_read_back() {
        let metadata = serde_json::json!({"$set": 1, "a.b": ["\u{0}"]});
        let Value::Object(metadata) = metadata else { panic!("an object") };
        let fact =
            UserFact::ProfileChanged { full_name: Some(None), metadata: Some(metadata.clone()) };
        let event = event(fact);
        let bson = HistoryDocument::project(&event, Position(7)).unwrap().to_bson().unwrap();
        let read: HistoryDocument = bson::deserialize_from_document(bson).unwrap();
        let entry = read.view().unwrap();
        assert_eq!((entry.position, entry.revision), (Position(7), Revision(2)));
        assert_eq!((entry.time, entry.actor), (event.time, event.actor));
        assert_eq!(entry.kind, "user.profile_changed.v1");
        let changed = serde_json::json!({"full_name": null, "metadata": metadata});
        assert_eq!(Value::Object(entry.changed), changed);
    }

    #[test]
    fn a_deletion_says_nothing_about_a_person() {
        let entry =
            HistoryDocument::project(&event(UserFact::Deleted), Position(7)).unwrap().view();
        assert_eq!(entry.unwrap().changed, Map::new());
    }
}
