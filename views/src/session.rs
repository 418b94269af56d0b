//! The view of one session.

use events::{Position, Session, SessionId, Timestamp, UserId};
use mongodb::bson::{self, DateTime, Uuid};
use serde::{Deserialize, Serialize};

use crate::user::{date, signed, timestamp};

/// How long a document outlives its session, in seconds: events of the session may still be on their way, and clocks
/// differ.
const KEPT_S: u64 = 24 * 60 * 60;

/// The stored document. An ended session leaves a tombstone without a device. The database removes both after the time
/// at which the session would have ended anyway (`remove_at`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionDocument {
    /// The session's id.
    #[serde(rename = "_id")]
    pub id: Uuid,
    /// Position of the event that this state comes from: the guard of every write.
    pub position: i64,
    /// Its user.
    pub user_id: Uuid,
    /// When the database removes the document.
    pub remove_at: DateTime,
    /// The members of a session that has not ended.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub open: Option<Open>,
}

/// The members of a session that has not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Open {
    epoch: i64,
    created_at: DateTime,
    last_used_at: DateTime,
    expires_at: DateTime,
    user_agent: Option<String>,
    ip: Option<String>,
}

/// A session as shown to its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// The session's id.
    pub id: SessionId,
    /// The last revocation that it knows of.
    pub epoch: Position,
    /// When it began.
    pub created_at: Timestamp,
    /// When its refresh token was last replaced.
    pub last_used_at: Timestamp,
    /// When it ends: unless it is refreshed, or in any case.
    pub expires_at: Timestamp,
    /// The client's name for itself.
    pub user_agent: Option<String>,
    /// The client's address.
    pub ip: Option<String>,
}

impl SessionDocument {
    /// The document for the state after the event at `position`. Pure.
    #[must_use]
    pub fn project(after: &Session, position: Position) -> Self {
        Self {
            id: Uuid::from_bytes(*after.id.as_uuid().as_bytes()),
            position: signed(position.0),
            user_id: user_key(after.user_id),
            remove_at: date(after.ends_at.plus_seconds(KEPT_S)),
            open: after.ended.is_none().then(|| Open {
                epoch: signed(after.epoch.0),
                created_at: date(after.created_at),
                last_used_at: date(after.refreshed_at),
                expires_at: date(after.expires_at),
                user_agent: after.user_agent.clone(),
                ip: after.ip.clone(),
            }),
        }
    }

    /// The session in the document; `None` if it has ended.
    #[must_use]
    pub fn view(self) -> Option<SessionView> {
        let open = self.open?;
        Some(SessionView {
            id: SessionId::from_uuid(uuid::Uuid::from_bytes(self.id.bytes())),
            epoch: Position(open.epoch.unsigned_abs()),
            created_at: timestamp(open.created_at),
            last_used_at: timestamp(open.last_used_at),
            expires_at: timestamp(open.expires_at),
            user_agent: open.user_agent,
            ip: open.ip,
        })
    }

    /// The document for the driver.
    ///
    /// # Errors
    /// Never for a document made by [`SessionDocument::project`].
    pub fn to_bson(&self) -> Result<bson::Document, bson::error::Error> {
        bson::serialize_to_document(self)
    }
}

/// A user's id as stored in `user_id`.
#[must_use]
pub fn user_key(user: UserId) -> Uuid {
    Uuid::from_bytes(*user.as_uuid().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{EndReason, Ended, Revision, SessionSeed};

    fn session() -> Session {
        let time = |second: i64| Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap();
        Session {
            id: SessionId::from_uuid(uuid::Uuid::from_u128(2)),
            user_id: UserId::from_uuid(uuid::Uuid::from_u128(1)),
            revision: Revision(2),
            epoch: Position(7),
            lineage: None,
            seed: SessionSeed::from_bytes([1; 16]),
            generation: 2,
            created_at: time(0),
            refreshed_at: time(5),
            expires_at: time(50),
            ends_at: time(100),
            user_agent: Some("curl".to_owned()),
            ip: Some("192.0.2.1".to_owned()),
            ended: None,
        }
    }

    #[test]
    fn what_is_projected_is_read_back_and_holds_no_seed() {
        let session = session();
        let document = SessionDocument::project(&session, Position(9));
        let bson = document.to_bson().unwrap();
        assert!(!bson.to_string().contains("seed"));
        let read: SessionDocument = bson::deserialize_from_document(bson).unwrap();
        assert_eq!(read, document);
        let view = read.view().unwrap();
        assert_eq!(
            (view.id, view.epoch, view.last_used_at),
            (session.id, Position(7), session.refreshed_at)
        );
    }

    #[test]
    fn an_ended_session_leaves_no_device() {
        let ended = Ended { reason: EndReason::Logout, at: session().refreshed_at };
        let document =
            SessionDocument::project(&Session { ended: Some(ended), ..session() }, Position(9));
        let bson = document.to_bson().unwrap();
        let mut members: Vec<&str> = bson.keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["_id", "position", "remove_at", "user_id"]);
        assert_eq!(document.view(), None);
    }
}
