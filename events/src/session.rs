//! Events of a session, and the state that they lead to.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    DecodeError, Evolve, Fact, FoldError, Lineage, Position, Revision, SessionId, Timestamp, UserId,
};

/// 128 random bits of one session, from which its refresh tokens are derived with a key that is not in the log. Useless
/// without that key; never shown.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionSeed([u8; 16]);

impl SessionSeed {
    /// Wraps random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, to derive from.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for SessionSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionSeed(…)")
    }
}

impl From<SessionSeed> for String {
    fn from(seed: SessionSeed) -> Self {
        format!("{:032x}", u128::from_be_bytes(seed.0))
    }
}

impl TryFrom<String> for SessionSeed {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let refused = "not 32 hex digits in lower case";
        let number = u128::from_str_radix(&text, 16).map_err(|_| refused)?;
        let seed = Self(number.to_be_bytes());
        if String::from(seed) == text { Ok(seed) } else { Err(refused) }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its user logged out.
    Logout,
    /// Its user, or an administrator, ended it from another session.
    Revoked,
    /// A replaced refresh token was presented.
    Theft,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub at: Timestamp,
}

/// The state of a session. It contains an address, a device and a seed: it never leaves the log unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// Its user.
    pub user_id: UserId,
    /// Number of its events so far.
    pub revision: Revision,
    /// Position of the user's last revocation that the session knows of.
    pub epoch: Position,
    /// The history of the log that the epoch is a position in; `None` in records from before sessions named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The seed of its refresh tokens.
    pub seed: SessionSeed,
    /// Number of the valid refresh token, from 1 on.
    pub generation: u32,
    /// When it began.
    pub created_at: Timestamp,
    /// When the valid refresh token was made.
    pub refreshed_at: Timestamp,
    /// When it ends unless it is refreshed.
    pub expires_at: Timestamp,
    /// When it ends regardless of refreshes.
    pub ends_at: Timestamp,
    /// The client's name for itself.
    pub user_agent: Option<String>,
    /// The client's address.
    pub ip: Option<String>,
    /// Its end, if it was ended.
    pub ended: Option<Ended>,
}

/// A fact about a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionFact {
    /// A user logged in.
    Started {
        /// Last revocation of the user at that time.
        epoch: Position,
        /// The history that this is a position in.
        lineage: Option<Lineage>,
        /// The seed of its refresh tokens.
        seed: SessionSeed,
        /// When it ends unless it is refreshed.
        expires_at: Timestamp,
        /// When it ends in any case.
        ends_at: Timestamp,
        /// The client's name for itself.
        user_agent: Option<String>,
        /// The client's address.
        ip: Option<String>,
    },
    /// The refresh token was replaced by the next one.
    Refreshed {
        /// Last revocation of the user at that time.
        epoch: Position,
        /// The history that this is a position in.
        lineage: Option<Lineage>,
        /// When it ends unless it is refreshed again.
        expires_at: Timestamp,
    },
    /// It was ended.
    Ended {
        /// Logout or revocation.
        reason: EndReason,
    },
    /// A replaced refresh token was presented, which ended the session.
    TheftDetected,
}

#[derive(Serialize, Deserialize)]
struct WireStarted {
    epoch: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<Lineage>,
    seed: SessionSeed,
    expires_at: Timestamp,
    ends_at: Timestamp,
    user_agent: Option<String>,
    ip: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WireRefreshed {
    epoch: Position,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<Lineage>,
    expires_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct WireEnded {
    reason: EndReason,
}

impl Fact for SessionFact {
    type After = Session;
    const STATE: &'static str = "session";

    fn wire_type(&self) -> &'static str {
        match self {
            Self::Started { .. } => "session.started.v1",
            Self::Refreshed { .. } => "session.refreshed.v1",
            Self::Ended { .. } => "session.ended.v1",
            Self::TheftDetected => "session.theft_detected.v1",
        }
    }

    fn changed(&self) -> Result<Map<String, Value>, serde_json::Error> {
        let members = match self {
            Self::Started { epoch, lineage, seed, expires_at, ends_at, user_agent, ip } => {
                serde_json::to_value(WireStarted {
                    epoch: *epoch,
                    lineage: *lineage,
                    seed: *seed,
                    expires_at: *expires_at,
                    ends_at: *ends_at,
                    user_agent: user_agent.clone(),
                    ip: ip.clone(),
                })?
            }
            Self::Refreshed { epoch, lineage, expires_at } => {
                let (epoch, lineage, expires_at) = (*epoch, *lineage, *expires_at);
                serde_json::to_value(WireRefreshed { epoch, lineage, expires_at })?
            }
            Self::Ended { reason } => serde_json::to_value(WireEnded { reason: *reason })?,
            Self::TheftDetected => json!({}),
        };
        serde_json::from_value(members)
    }

    fn read(kind: &str, changed: Map<String, Value>) -> Result<Self, DecodeError> {
        let changed = Value::Object(changed);
        match kind {
            "session.started.v1" => {
                let wire: WireStarted = serde_json::from_value(changed)?;
                Ok(Self::Started {
                    epoch: wire.epoch,
                    lineage: wire.lineage,
                    seed: wire.seed,
                    expires_at: wire.expires_at,
                    ends_at: wire.ends_at,
                    user_agent: wire.user_agent,
                    ip: wire.ip,
                })
            }
            "session.refreshed.v1" => {
                let WireRefreshed { epoch, lineage, expires_at } = serde_json::from_value(changed)?;
                Ok(Self::Refreshed { epoch, lineage, expires_at })
            }
            "session.ended.v1" => {
                let wire: WireEnded = serde_json::from_value(changed)?;
                Ok(Self::Ended { reason: wire.reason })
            }
            "session.theft_detected.v1" => Ok(Self::TheftDetected),
            other => Err(DecodeError::UnknownType(other.to_owned())),
        }
    }

    fn subject(after: &Session) -> String {
        after.id.to_string()
    }

    fn revision(after: &Session) -> Revision {
        after.revision
    }

    fn explains(&self, after: &Session, time: Timestamp) -> bool {
        let Revision(revision) = after.revision;
        let before = match self {
            Self::Started { .. } => None,
            Self::Refreshed { .. } | Self::Ended { .. } | Self::TheftDetected => {
                let mut before = after.clone();
                before.revision = Revision(revision.saturating_sub(1));
                if matches!(self, Self::Refreshed { .. }) {
                    before.generation = before.generation.saturating_sub(1);
                } else {
                    before.ended = None;
                }
                Some(before)
            }
        };
        let first = before.is_none();
        let evolved = evolve_session(before, after.user_id, after.id, self, time);
        evolved.is_ok_and(|state| state == *after) && (first || revision > 1)
    }
}

impl Evolve for SessionFact {
    type Id = (UserId, SessionId);

    fn evolve(
        &self,
        before: Option<Session>,
        (user, id): (UserId, SessionId),
        time: Timestamp,
    ) -> Result<Session, FoldError> {
        evolve_session(before, user, id, self, time)
    }
}

/// Applies a fact to a session, or to its absence. Pure: the time of the event is data.
///
/// # Errors
/// [`FoldError`] if the fact cannot follow this state.
pub fn evolve_session(
    state: Option<Session>,
    user: UserId,
    id: SessionId,
    fact: &SessionFact,
    time: Timestamp,
) -> Result<Session, FoldError> {
    let refused = |state| Err(FoldError { fact: fact.wire_type(), state });
    let mut session = match (state, fact) {
        (
            None,
            SessionFact::Started { epoch, lineage, seed, expires_at, ends_at, user_agent, ip },
        ) => {
            return Ok(Session {
                id,
                user_id: user,
                revision: Revision(1),
                epoch: *epoch,
                lineage: *lineage,
                seed: *seed,
                generation: 1,
                created_at: time,
                refreshed_at: time,
                expires_at: *expires_at,
                ends_at: *ends_at,
                user_agent: user_agent.clone(),
                ip: ip.clone(),
                ended: None,
            });
        }
        (None, _) => return refused("absence"),
        (Some(_), SessionFact::Started { .. }) => return refused("start"),
        (Some(session), _) if session.ended.is_some() => return refused("end"),
        (Some(session), _) => session,
    };
    match fact {
        SessionFact::Started { .. } => {}
        SessionFact::Refreshed { epoch, lineage, expires_at } => {
            session.generation = session.generation.saturating_add(1);
            session.epoch = *epoch;
            session.lineage = *lineage;
            session.refreshed_at = time;
            session.expires_at = *expires_at;
        }
        SessionFact::Ended { reason } => session.ended = Some(Ended { reason: *reason, at: time }),
        SessionFact::TheftDetected => {
            session.ended = Some(Ended { reason: EndReason::Theft, at: time });
        }
    }
    session.revision = session.revision.next();
    Ok(session)
}
