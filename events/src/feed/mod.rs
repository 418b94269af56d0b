//! The feed: what Roster publishes for other services, as a contract of its own.
//!
//! The event log may change with Roster; the feed may not (ADR 14). So nothing here is one of the types of
//! the log: the projector maps those to these. Within version 1 there come only further event types and
//! further optional members, and a reader must let both pass: [`FeedEvent::from_json`] gives an event of
//! a type it does not know as [`Happened::Other`].
//!
//! Every event carries the whole public state after it. Whoever needs the current state alone keeps the
//! event with the highest [`FeedEvent::revision`] of each user and forgets the rest.

#[cfg(feature = "schema")]
pub mod contract;
mod data;
mod data_schema;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

pub use data::{
    AllEnded, AllEndedReason, DeletedUser, DeletedUserData, EmailChange, EmailVerification,
    EndReason, EndedSessions, ProfileChange, PublicSession, PublicUser, Registration, RolesChange,
    SessionData, SessionEnd, Status, StatusChange, UserChanged, UserData,
};
pub use data_schema::DataSchemas;

use crate::{
    Actor, CommandId, DecodeError, Position, Revision, SOURCE, SessionId, Timestamp, UserId,
};

/// The stream of the feed.
pub const FEED_STREAM: &str = "USER_EVENTS";
/// The subjects of [`FEED_STREAM`]: `users.v1.<event>.<user id>` and `sessions.v1.<event>.<user id>`.
pub const FEED_STREAM_SUBJECTS: [&str; 2] = ["users.v1.*.*", "sessions.v1.*.*"];
/// The stream with the states that a subscriber begins with who does not want the whole history.
pub const SNAPSHOTS_STREAM: &str = "USER_SNAPSHOTS";
/// The subjects of [`SNAPSHOTS_STREAM`]: `snapshot.v1.<subscriber>.<user id>`.
pub const SNAPSHOTS_STREAM_SUBJECTS: [&str; 1] = ["snapshot.v1.*.*"];

/// The type of the last event of a user.
pub const DELETED: &str = "users.v1.deleted";
/// The type of the state that a subscriber begins with.
pub const SNAPSHOT: &str = "users.v1.snapshot";

/// Header of every message of the feed: the position in `USERS` up to which the feed tells everything.
pub const USERS_POSITION_HEADER: &str = "Roster-Users-Position";
/// The same of `SESSIONS`.
pub const SESSIONS_POSITION_HEADER: &str = "Roster-Sessions-Position";

/// Header of a message of the feed while something is parked: of which users and sessions nothing is told from which
/// position on, since an event of theirs cannot be read. `STREAM:position:aggregate`, and spaces between them.
pub const PARKED_HEADER: &str = "Roster-Parked";

const SPEC_VERSION: &str = "1.0";
const DATA_CONTENT_TYPE: &str = "application/json";

/// Whether a text can be the name of a subscriber: `[a-z][a-z0-9-]{1,31}`. It stands in subjects, in the
/// name of a consumer and in that of a file.
#[must_use]
pub fn is_subscriber_name(text: &str) -> bool {
    crate::is_role(text)
}

/// Every message of the feed about one user.
#[must_use]
pub fn of_user(user: UserId) -> [String; 2] {
    [format!("users.v1.*.{user}"), format!("sessions.v1.*.{user}")]
}

/// The message that says that a user is gone: the last one about them.
#[must_use]
pub fn deletion_of(user: UserId) -> String {
    format!("{DELETED}.{user}")
}

/// The state of one user for one subscriber.
#[must_use]
pub fn snapshot(subscriber: &str, user: UserId) -> String {
    format!("snapshot.v1.{subscriber}.{user}")
}

/// The states for one subscriber.
#[must_use]
pub fn snapshots_for(subscriber: &str) -> String {
    format!("snapshot.v1.{subscriber}.*")
}

/// The states of one user, whomever they are for.
#[must_use]
pub fn snapshots_of(user: UserId) -> String {
    format!("snapshot.v1.*.{user}")
}

/// One event of the feed: CloudEvents 1.0 in JSON.
///
/// On the wire `{specversion, id, source, type, subject, time, datacontenttype, dataschema?, revision, position, actor,
/// commandid?, correlationid?, causationid?, traceparent?, data}`.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEvent {
    /// Unique per event.
    pub id: Uuid,
    /// When it was decided.
    pub time: Timestamp,
    /// Number of events of the user (of the session) so far, this one included. It goes up with every event
    /// of one user (of one session) and may leave numbers out.
    pub revision: Revision,
    /// Place in the event log, which is what a command answers as `Roster-Position`. Events of users and
    /// events of sessions are counted apart. On the wire a decimal string, since an integer of CloudEvents
    /// has 32 bits.
    pub position: Position,
    /// Who caused it.
    pub actor: Actor,
    /// The command behind it: the same for all events of one command.
    pub command_id: Option<CommandId>,
    /// The request behind it: the `X-Request-Id` of the call.
    pub correlation_id: Option<String>,
    /// The event that this one is a reaction to.
    pub causation_id: Option<String>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
    /// Where the JSON Schema of `data` is served: an absolute URI. Absent from events that an earlier
    /// version published.
    pub data_schema: Option<String>,
    /// What happened, and the state after it.
    pub happened: Happened,
}

/// What an event tells. On the wire the name is [`Happened::kind`] and the content is `data`.
#[derive(Debug, Clone, PartialEq)]
pub enum Happened {
    /// A user came into being.
    Registered(UserChanged<Registration>),
    /// Name or free data changed.
    ProfileChanged(UserChanged<ProfileChange>),
    /// The roles were replaced.
    RolesChanged(UserChanged<RolesChange>),
    /// The user may no longer log in, and has no access.
    Disabled(UserChanged<StatusChange>),
    /// The user may log in again.
    Enabled(UserChanged<StatusChange>),
    /// There is another password.
    PasswordChanged(UserData),
    /// The user has shown that the address is theirs.
    EmailVerified(UserChanged<EmailVerification>),
    /// There is another address, shown to be theirs.
    EmailChanged(UserChanged<EmailChange>),
    /// The user is gone. It is the last event of the user; those before it are erased.
    Deleted(DeletedUserData),
    /// The state of a user, for a subscriber that begins with the states of all. It comes on the stream of
    /// snapshots alone.
    Snapshot(UserData),
    /// A user logged in.
    SessionStarted(SessionData),
    /// A session was ended.
    SessionEnded(SessionData),
    /// A replaced refresh token came back, and the session was ended for it.
    TheftDetected(SessionData),
    /// All sessions of a user were ended at once, or all but one.
    AllSessionsEnded(AllEnded),
    /// Something that this version of the reader does not know.
    Other {
        /// Its type.
        kind: String,
        /// The user or the session, as `subject` names it.
        subject: String,
        /// The content as it came.
        data: Map<String, Value>,
    },
}

/// One user or one session: what a revision counts the events of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Aggregate(pub String);

/// How each kind stands on the wire: its type, and how its `data` is read and written.
macro_rules! kinds {
    ($($variant:ident($data:ty) = $kind:literal),+ $(,)?) => {
        impl Happened {
            /// Every type that this version writes.
            pub const KINDS: &'static [&'static str] = &[$($kind),+];

            /// The event type on the wire, with its version.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                    Self::Other { kind, .. } => kind,
                }
            }

            fn write(&self) -> Result<Value, serde_json::Error> {
                match self {
                    $(Self::$variant(data) => serde_json::to_value(data),)+
                    Self::Other { data, .. } => Ok(Value::Object(data.clone())),
                }
            }

            fn read(
                kind: String,
                subject: String,
                data: Map<String, Value>,
            ) -> Result<Self, serde_json::Error> {
                Ok(match kind.as_str() {
                    $($kind => Self::$variant(serde_json::from_value::<$data>(Value::Object(data))?),)+
                    _ => Self::Other { kind, subject, data },
                })
            }
        }
    };
}

kinds! {
    Registered(UserChanged<Registration>) = "users.v1.registered",
    ProfileChanged(UserChanged<ProfileChange>) = "users.v1.profile_changed",
    RolesChanged(UserChanged<RolesChange>) = "users.v1.roles_changed",
    Disabled(UserChanged<StatusChange>) = "users.v1.disabled",
    Enabled(UserChanged<StatusChange>) = "users.v1.enabled",
    PasswordChanged(UserData) = "users.v1.password_changed",
    EmailVerified(UserChanged<EmailVerification>) = "users.v1.email_verified",
    EmailChanged(UserChanged<EmailChange>) = "users.v1.email_changed",
    Deleted(DeletedUserData) = "users.v1.deleted",
    Snapshot(UserData) = "users.v1.snapshot",
    SessionStarted(SessionData) = "sessions.v1.started",
    SessionEnded(SessionData) = "sessions.v1.ended",
    TheftDetected(SessionData) = "sessions.v1.theft_detected",
    AllSessionsEnded(AllEnded) = "sessions.v1.all_ended",
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
    #[serde(skip_serializing_if = "Option::is_none", default)]
    dataschema: Option<String>,
    revision: Revision,
    #[serde(with = "decimal")]
    position: Position,
    actor: Actor,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    commandid: Option<CommandId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    correlationid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    causationid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    traceparent: Option<String>,
    data: Value,
}

/// A position as a string of digits.
mod decimal {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::Position;

    pub(super) fn serialize<S: Serializer>(at: &Position, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Position, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map(Position).map_err(|_| D::Error::custom("position is no decimal number"))
    }
}

impl Happened {
    /// The user it happened to; `None` when the reader does not know the type.
    #[must_use]
    pub const fn user_id(&self) -> Option<UserId> {
        Some(match self {
            Self::Registered(data) => data.user.id,
            Self::ProfileChanged(data) => data.user.id,
            Self::RolesChanged(data) => data.user.id,
            Self::Disabled(data) | Self::Enabled(data) => data.user.id,
            Self::EmailVerified(data) => data.user.id,
            Self::EmailChanged(data) => data.user.id,
            Self::PasswordChanged(data) | Self::Snapshot(data) => data.user.id,
            Self::Deleted(data) => data.user.id,
            Self::SessionStarted(data) | Self::SessionEnded(data) | Self::TheftDetected(data) => {
                data.session.user_id
            }
            Self::AllSessionsEnded(data) => data.sessions.user_id,
            Self::Other { .. } => return None,
        })
    }

    /// The session it happened to, for events of one session.
    #[must_use]
    pub const fn session_id(&self) -> Option<SessionId> {
        match self {
            Self::SessionStarted(data) | Self::SessionEnded(data) | Self::TheftDetected(data) => {
                Some(data.session.id)
            }
            Self::Registered(_)
            | Self::ProfileChanged(_)
            | Self::RolesChanged(_)
            | Self::Disabled(_)
            | Self::Enabled(_)
            | Self::PasswordChanged(_)
            | Self::EmailVerified(_)
            | Self::EmailChanged(_)
            | Self::Deleted(_)
            | Self::Snapshot(_)
            | Self::AllSessionsEnded(_)
            | Self::Other { .. } => None,
        }
    }

    /// The state of the user after it, for events of a user who is there.
    #[must_use]
    pub const fn user(&self) -> Option<&PublicUser> {
        match self {
            Self::Registered(data) => Some(&data.user),
            Self::ProfileChanged(data) => Some(&data.user),
            Self::RolesChanged(data) => Some(&data.user),
            Self::Disabled(data) | Self::Enabled(data) => Some(&data.user),
            Self::EmailVerified(data) => Some(&data.user),
            Self::EmailChanged(data) => Some(&data.user),
            Self::PasswordChanged(data) | Self::Snapshot(data) => Some(&data.user),
            Self::Deleted(_)
            | Self::SessionStarted(_)
            | Self::SessionEnded(_)
            | Self::TheftDetected(_)
            | Self::AllSessionsEnded(_)
            | Self::Other { .. } => None,
        }
    }

    /// `subject` of the envelope: the session for events of one session, else the user.
    fn subject(&self) -> String {
        if let Self::Other { subject, .. } = self {
            return subject.clone();
        }
        match (self.session_id(), self.user_id()) {
            (Some(session), _) => session.to_string(),
            (None, Some(user)) => user.to_string(),
            (None, None) => String::new(),
        }
    }
}

impl FeedEvent {
    /// The NATS subject the event stands on; `None` for a snapshot, whose subject names its subscriber, and
    /// for what this version does not write.
    #[must_use]
    pub fn nats_subject(&self) -> Option<String> {
        match (&self.happened, self.happened.user_id()) {
            (Happened::Snapshot(_) | Happened::Other { .. }, _) | (_, None) => None,
            (known, Some(user)) => Some(format!("{}.{user}", known.kind())),
        }
    }

    /// What [`FeedEvent::revision`] counts the events of: a user, a session, or the ends of all sessions of
    /// one user.
    #[must_use]
    pub fn aggregate(&self) -> Aggregate {
        let root = if matches!(self.happened, Happened::AllSessionsEnded(_)) {
            "all-sessions"
        } else if self.happened.kind().starts_with("sessions.") {
            "session"
        } else {
            "user"
        };
        Aggregate(format!("{root}.{}", self.happened.subject()))
    }

    /// The event as it stands in the feed.
    ///
    /// # Errors
    /// Only when a value cannot be JSON, which no value of this crate is.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Wire {
            specversion: SPEC_VERSION.to_owned(),
            id: self.id,
            source: SOURCE.to_owned(),
            kind: self.happened.kind().to_owned(),
            subject: self.happened.subject(),
            time: self.time,
            datacontenttype: DATA_CONTENT_TYPE.to_owned(),
            dataschema: self.data_schema.clone(),
            revision: self.revision,
            position: self.position,
            actor: self.actor,
            commandid: self.command_id,
            correlationid: self.correlation_id.clone(),
            causationid: self.causation_id.clone(),
            traceparent: self.traceparent.clone(),
            data: self.happened.write()?,
        })
    }

    /// Reads an event of the feed. Members that this version does not know are passed over.
    ///
    /// # Errors
    /// [`DecodeError`]: it is no event of version 1 of the feed.
    pub fn from_json(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: Wire = serde_json::from_slice(bytes)?;
        if wire.specversion != SPEC_VERSION {
            return Err(DecodeError::Inconsistent("specversion is not 1.0"));
        }
        let Value::Object(data) = wire.data else {
            return Err(DecodeError::Inconsistent("data is no object"));
        };
        let happened = Happened::read(wire.kind, wire.subject.clone(), data)?;
        if happened.subject() != wire.subject {
            return Err(DecodeError::Inconsistent("subject and data name different aggregates"));
        }
        Ok(Self {
            id: wire.id,
            time: wire.time,
            revision: wire.revision,
            position: wire.position,
            actor: wire.actor,
            command_id: wire.commandid,
            correlation_id: wire.correlationid,
            causation_id: wire.causationid,
            traceparent: wire.traceparent,
            data_schema: wire.dataschema,
            happened,
        })
    }
}
