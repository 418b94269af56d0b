//! Events of a user, and the state that they lead to.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{DecodeError, Evolve, Fact, FoldError, Revision, Timestamp, UserId};

/// The role that every user gets at registration.
pub const ROLE_USER: &str = "user";
/// The role that may manage users.
pub const ROLE_ADMIN: &str = "admin";
/// The role that may read users and use the operator's commands.
pub const ROLE_OPERATOR: &str = "operator";

/// Whether a text is a valid name of a role: `[a-z][a-z0-9-]{1,31}`.
#[must_use]
pub fn is_role(text: &str) -> bool {
    (2..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Free data of the application that uses Roster; at most 4 KiB as JSON.
pub type Metadata = Map<String, Value>;

/// Whether a user may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// May log in.
    Active,
    /// May not log in and has no access.
    Disabled,
}

impl Status {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }
}

/// The public state of a user. It never contains a secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The user's id.
    pub id: UserId,
    /// The address as it was given.
    pub email: String,
    /// Whether the user has verified the address.
    pub email_verified: bool,
    /// Display name.
    pub full_name: Option<String>,
    /// The user's roles; sorted, without repetition.
    pub roles: Vec<String>,
    /// Whether the user may log in.
    pub status: Status,
    /// Free data of the application.
    pub metadata: Metadata,
    /// Number of events of this user so far.
    pub revision: Revision,
    /// Time of the first event; for an imported user the time from the previous system.
    pub created_at: Timestamp,
    /// Time of the last event.
    pub updated_at: Timestamp,
}

impl User {
    /// Whether the user has a role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|r| r == role)
    }
}

/// What remains of a user after deletion: nothing personal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeletedUser {
    /// The user's id, never reused.
    pub id: UserId,
    /// Revision of the deletion.
    pub revision: Revision,
    /// Time of the deletion.
    pub deleted_at: Timestamp,
}

/// The state of an aggregate. Absence is a state, so that `decide` can answer for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum UserState {
    /// No event yet.
    #[default]
    Absent,
    /// A living user.
    Present(User),
    /// A deleted user.
    Deleted(DeletedUser),
}

/// The state after an event. On the wire the two forms are distinguished by `deleted_at`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Snapshot {
    /// After a deletion.
    Deleted(DeletedUser),
    /// After anything else.
    Present(User),
}

impl Snapshot {
    /// The user the snapshot is about.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        match self {
            Self::Deleted(user) => user.id,
            Self::Present(user) => user.id,
        }
    }

    /// The user; `None` after a deletion.
    #[must_use]
    pub const fn user(&self) -> Option<&User> {
        match self {
            Self::Deleted(_) => None,
            Self::Present(user) => Some(user),
        }
    }

    /// Number of events of the user so far.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Deleted(user) => user.revision,
            Self::Present(user) => user.revision,
        }
    }
}

impl From<Snapshot> for UserState {
    fn from(snapshot: Snapshot) -> Self {
        match snapshot {
            Snapshot::Deleted(user) => Self::Deleted(user),
            Snapshot::Present(user) => Self::Present(user),
        }
    }
}

/// A fact about a user. Its wire name is its [`Fact::wire_type`].
#[derive(Debug, Clone, PartialEq)]
pub enum UserFact {
    /// The user was created.
    Registered {
        /// Address as given.
        email: String,
        /// Whether the address counts as verified from the start.
        email_verified: bool,
        /// Display name.
        full_name: Option<String>,
        /// Roles from the start.
        roles: Vec<String>,
        /// Free data.
        metadata: Metadata,
        /// For an imported user: when the user was created in the previous system.
        imported: Option<Timestamp>,
    },
    /// Name or free data changed; `None` means "not changed".
    ProfileChanged {
        /// The new name, or its removal.
        full_name: Option<Option<String>>,
        /// The new free data as a whole.
        metadata: Option<Metadata>,
    },
    /// The roles were replaced.
    RolesChanged {
        /// All roles from now on.
        roles: Vec<String>,
    },
    /// The user may no longer log in.
    Disabled,
    /// The user may log in again.
    Enabled,
    /// The password changed. Events never contain a password.
    PasswordChanged,
    /// The user verified the address.
    EmailVerified,
    /// Another address, verified by a link sent to it.
    EmailChanged {
        /// Address as given.
        email: String,
    },
    /// The user was deleted.
    Deleted,
}

#[derive(Serialize, Deserialize)]
struct WireRegistered {
    email: String,
    email_verified: bool,
    full_name: Option<String>,
    roles: Vec<String>,
    metadata: Metadata,
    #[serde(default)]
    imported: Option<Timestamp>,
}

impl Fact for UserFact {
    type After = Snapshot;
    const STATE: &'static str = "user";

    fn wire_type(&self) -> &'static str {
        match self {
            Self::Registered { .. } => "user.registered.v1",
            Self::ProfileChanged { .. } => "user.profile_changed.v1",
            Self::RolesChanged { .. } => "user.roles_changed.v1",
            Self::Disabled => "user.disabled.v1",
            Self::Enabled => "user.enabled.v1",
            Self::PasswordChanged => "user.password_changed.v1",
            Self::EmailVerified => "user.email_verified.v1",
            Self::EmailChanged { .. } => "user.email_changed.v1",
            Self::Deleted => "user.deleted.v1",
        }
    }

    fn changed(&self) -> Result<Map<String, Value>, serde_json::Error> {
        let mut members = Map::new();
        match self {
            Self::Registered { email, email_verified, full_name, roles, metadata, imported } => {
                members.insert("email".to_owned(), email.clone().into());
                members.insert("email_verified".to_owned(), (*email_verified).into());
                members.insert("full_name".to_owned(), serde_json::to_value(full_name)?);
                members.insert("roles".to_owned(), serde_json::to_value(roles)?);
                members.insert("metadata".to_owned(), Value::Object(metadata.clone()));
                if let Some(since) = imported {
                    members.insert("imported".to_owned(), serde_json::to_value(since)?);
                }
            }
            Self::ProfileChanged { full_name, metadata } => {
                if let Some(full_name) = full_name {
                    members.insert("full_name".to_owned(), serde_json::to_value(full_name)?);
                }
                if let Some(metadata) = metadata {
                    members.insert("metadata".to_owned(), Value::Object(metadata.clone()));
                }
            }
            Self::RolesChanged { roles } => {
                members.insert("roles".to_owned(), serde_json::to_value(roles)?);
            }
            Self::Disabled => {
                members.insert("status".to_owned(), "disabled".into());
            }
            Self::Enabled => {
                members.insert("status".to_owned(), "active".into());
            }
            Self::EmailVerified => {
                members.insert("email_verified".to_owned(), true.into());
            }
            Self::EmailChanged { email } => {
                members.insert("email".to_owned(), email.clone().into());
            }
            Self::PasswordChanged | Self::Deleted => {}
        }
        Ok(members)
    }

    fn read(kind: &str, mut changed: Map<String, Value>) -> Result<Self, DecodeError> {
        match kind {
            "user.registered.v1" => {
                let wire: WireRegistered = serde_json::from_value(Value::Object(changed))?;
                Ok(Self::Registered {
                    email: wire.email,
                    email_verified: wire.email_verified,
                    full_name: wire.full_name,
                    roles: wire.roles,
                    metadata: wire.metadata,
                    imported: wire.imported,
                })
            }
            "user.profile_changed.v1" => Ok(Self::ProfileChanged {
                full_name: changed.remove("full_name").map(serde_json::from_value).transpose()?,
                metadata: changed.remove("metadata").map(serde_json::from_value).transpose()?,
            }),
            "user.roles_changed.v1" => {
                let roles =
                    changed.remove("roles").ok_or(DecodeError::Inconsistent("roles missing"))?;
                Ok(Self::RolesChanged { roles: serde_json::from_value(roles)? })
            }
            "user.disabled.v1" => Ok(Self::Disabled),
            "user.enabled.v1" => Ok(Self::Enabled),
            "user.password_changed.v1" => Ok(Self::PasswordChanged),
            "user.email_verified.v1" => Ok(Self::EmailVerified),
            "user.email_changed.v1" => {
                let email = changed.remove("email").ok_or(DecodeError::Inconsistent("no email"))?;
                Ok(Self::EmailChanged { email: serde_json::from_value(email)? })
            }
            "user.deleted.v1" => Ok(Self::Deleted),
            other => Err(DecodeError::UnknownType(other.to_owned())),
        }
    }

    fn subject(after: &Snapshot) -> String {
        after.user_id().to_string()
    }

    fn revision(after: &Snapshot) -> Revision {
        after.revision()
    }

    fn explains(&self, after: &Snapshot, time: Timestamp) -> bool {
        // A change is an assignment: applied to a state that shows it already, it changes only the revision.
        let before = match (self, after) {
            (Self::Registered { .. }, _) => UserState::Absent,
            (_, Snapshot::Present(user)) => {
                let revision = Revision(user.revision.0.saturating_sub(1));
                UserState::Present(User { revision, ..user.clone() })
            }
            (Self::Deleted, Snapshot::Deleted(user)) => {
                return user.deleted_at == time && user.revision > Revision(1);
            }
            (_, Snapshot::Deleted(_)) => return false,
        };
        let first = before == UserState::Absent;
        let evolved = before.evolve(after.user_id(), self, time);
        evolved.is_ok_and(|state| state.snapshot().as_ref() == Some(after))
            && (first || after.revision() > Revision(1))
    }
}

impl Evolve for UserFact {
    type Id = UserId;

    fn evolve(
        &self,
        before: Option<Snapshot>,
        id: UserId,
        time: Timestamp,
    ) -> Result<Snapshot, FoldError> {
        let before = before.map_or(UserState::Absent, UserState::from);
        let after = before.evolve(id, self, time)?.snapshot();
        after.ok_or(FoldError { fact: self.wire_type(), state: "absence" })
    }
}

impl UserState {
    /// Number of events so far; 0 when there is none.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::Absent => Revision(0),
            Self::Present(user) => user.revision,
            Self::Deleted(user) => user.revision,
        }
    }

    /// Applies a fact. Pure: the time of the event is data.
    ///
    /// # Errors
    /// [`FoldError`] if the fact cannot follow this state. A reader must stop there, because skipping would lead to a
    /// state that no decision explains.
    pub fn evolve(self, id: UserId, fact: &UserFact, time: Timestamp) -> Result<Self, FoldError> {
        let revision = self.revision().next();
        let refused = |state| Err(FoldError { fact: fact.wire_type(), state });
        let mut user = match (self, fact) {
            (
                Self::Absent,
                UserFact::Registered {
                    email,
                    email_verified,
                    full_name,
                    roles,
                    metadata,
                    imported,
                },
            ) => {
                return Ok(Self::Present(User {
                    id,
                    email: email.clone(),
                    email_verified: *email_verified,
                    full_name: full_name.clone(),
                    roles: roles.clone(),
                    status: Status::Active,
                    metadata: metadata.clone(),
                    revision,
                    created_at: imported.unwrap_or(time),
                    updated_at: time,
                }));
            }
            (Self::Absent, _) => return refused("absence"),
            (Self::Deleted(_), _) => return refused("deletion"),
            (Self::Present(user), _) => user,
        };
        match fact {
            UserFact::Registered { .. } => return refused("registration"),
            UserFact::ProfileChanged { full_name, metadata } => {
                if let Some(full_name) = full_name {
                    user.full_name.clone_from(full_name);
                }
                if let Some(metadata) = metadata {
                    user.metadata.clone_from(metadata);
                }
            }
            UserFact::RolesChanged { roles } => user.roles.clone_from(roles),
            UserFact::Disabled => user.status = Status::Disabled,
            UserFact::Enabled => user.status = Status::Active,
            UserFact::PasswordChanged => {}
            UserFact::EmailVerified => user.email_verified = true,
            UserFact::EmailChanged { email } => {
                user.email.clone_from(email);
                user.email_verified = true;
            }
            UserFact::Deleted => {
                return Ok(Self::Deleted(DeletedUser { id, revision, deleted_at: time }));
            }
        }
        user.revision = revision;
        user.updated_at = time;
        Ok(Self::Present(user))
    }

    /// The state in the form that an event carries; `None` for absence.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        match self {
            Self::Absent => None,
            Self::Present(user) => Some(Snapshot::Present(user.clone())),
            Self::Deleted(user) => Some(Snapshot::Deleted(user.clone())),
        }
    }
}
