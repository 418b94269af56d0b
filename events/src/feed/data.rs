//! What stands in `data`: what changed, and the state after it.

#[cfg(feature = "schema")]
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Position, SessionId, Timestamp, UserId};

/// Whether a user may log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "Status"))]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// May log in.
    Active,
    /// May not log in and has no access.
    Disabled,
}

/// A user as other services see them. No secret ever stands here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "User"))]
pub struct PublicUser {
    /// The user's id, never used again.
    pub id: UserId,
    /// The e-mail address as it was given.
    pub email: String,
    /// Whether the user has shown that the address is theirs.
    pub email_verified: bool,
    /// Name to show.
    pub full_name: Option<String>,
    /// What the user may do; sorted, without repetition.
    pub roles: Vec<String>,
    /// Whether the user may log in.
    pub status: Status,
    /// Free data of the application, at most 4 KiB.
    pub metadata: Map<String, Value>,
    /// Time of the first event; for an imported user the time from the system before.
    pub created_at: Timestamp,
    /// Time of the last event.
    pub updated_at: Timestamp,
}

/// What is left of a user who is gone: nothing personal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "DeletedUser"))]
pub struct DeletedUser {
    /// The user's id, never used again.
    pub id: UserId,
    /// Time of the deletion.
    pub deleted_at: Timestamp,
}

/// `data` of an event that changes members of a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub struct UserChanged<C> {
    /// The members that changed, with their new values.
    pub changed: C,
    /// The user after it.
    pub user: PublicUser,
}

/// `data` of an event that changes no member of a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub struct UserData {
    /// The user after it.
    pub user: PublicUser,
}

/// `data` of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub struct DeletedUserData {
    /// What is left.
    pub user: DeletedUser,
}

/// What a registration sets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "Registration"))]
pub struct Registration {
    /// The e-mail address as it was given.
    pub email: String,
    /// Whether the address counts as verified from the start.
    pub email_verified: bool,
    /// Name to show.
    pub full_name: Option<String>,
    /// Roles from the start.
    pub roles: Vec<String>,
    /// Free data of the application.
    pub metadata: Map<String, Value>,
    /// There for a user who was imported: since when they were a user of the system before. Greet nobody
    /// who has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub imported: Option<Timestamp>,
}

/// What a change of profile sets; a member that is absent did not change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "ProfileChange"))]
pub struct ProfileChange {
    /// The new name; `null` when it was removed.
    #[serde(skip_serializing_if = "Option::is_none", default, deserialize_with = "given")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub full_name: Option<Option<String>>,
    /// The new free data as a whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "schema", schemars(with = "Map<String, Value>"))]
    pub metadata: Option<Map<String, Value>>,
}

/// Tells `null` from a member that is absent.
fn given<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What a change of roles sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "RolesChange"))]
pub struct RolesChange {
    /// All roles from now on; sorted, without repetition.
    pub roles: Vec<String>,
}

/// What disabling and enabling set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "StatusChange"))]
pub struct StatusChange {
    /// Whether the user may log in.
    pub status: Status,
}

/// What a verification sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "EmailVerification"))]
pub struct EmailVerification {
    /// Always true.
    pub email_verified: bool,
}

/// What a change of address sets. The new one is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "EmailChange"))]
pub struct EmailChange {
    /// The e-mail address as it was given.
    pub email: String,
}

/// `data` of an event of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub struct SessionData {
    /// The session after it.
    pub session: PublicSession,
}

/// A session as other services see it: one login on one device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "Session"))]
pub struct PublicSession {
    /// The session's id, which is `sid` of its access tokens.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// Compare it with [`EndedSessions::epoch`].
    pub epoch: Position,
    /// When it began.
    pub created_at: Timestamp,
    /// When its refresh token was last replaced. Refreshing is no event of the feed.
    pub refreshed_at: Timestamp,
    /// When it ends however often it is refreshed.
    pub ends_at: Timestamp,
    /// What the client called itself (`User-Agent`).
    pub user_agent: Option<String>,
    /// Where the client was: an IPv4 or IPv6 address.
    pub ip: Option<String>,
    /// Its end; `null` while it lives.
    pub ended: Option<SessionEnd>,
}

/// The end of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "SessionEnd"))]
pub struct SessionEnd {
    /// Why. Further reasons may come.
    #[cfg_attr(
        feature = "schema",
        schemars(with = "String", extend("examples" = ["logout", "revoked", "theft"]))
    )]
    pub reason: EndReason,
    /// When.
    pub at: Timestamp,
}

/// Why a session ended. Further reasons may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its user logged out.
    Logout,
    /// Its user, or an administrator, ended it from elsewhere.
    Revoked,
    /// A refresh token came back that had been replaced.
    Theft,
    /// One that this version of the reader does not know.
    #[serde(untagged)]
    Other(String),
}

/// `data` of the end of all sessions of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
pub struct AllEnded {
    /// Which sessions ended, and why.
    pub sessions: EndedSessions,
}

/// Which sessions of a user ended at once: each whose `epoch` is less than this one's, but for `except`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema), schemars(title = "EndedSessions"))]
pub struct EndedSessions {
    /// Whose they were.
    pub user_id: UserId,
    /// Sessions of a lower epoch are over, also one whose start is told later.
    pub epoch: Position,
    /// The session that lives on, if one does.
    pub except: Option<SessionId>,
    /// Why; `null` where it was not recorded. Further reasons may come.
    #[cfg_attr(
        feature = "schema",
        schemars(
            with = "Option<String>",
            extend("examples" = ["logged_out", "password_changed", "email_proven", "disabled", "deleted"])
        )
    )]
    pub reason: Option<AllEndedReason>,
}

/// Why all sessions of a user ended. Further reasons may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllEndedReason {
    /// The user, or an administrator, logged the user out everywhere.
    LoggedOut,
    /// The password was changed or reset.
    PasswordChanged,
    /// The address was verified, or changed: whoever logged in before it may have been somebody else.
    EmailProven,
    /// The user was disabled.
    Disabled,
    /// The user was deleted.
    Deleted,
    /// One that this version of the reader does not know.
    #[serde(untagged)]
    Other(String),
}
