//! The form in which every answer shows a user.

use events::{Metadata, Revision, Status, Timestamp, User, UserId};
use serde::Serialize;
use utoipa::ToSchema;

/// A user, as shown to everyone who may see it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct UserRead {
    #[schema(value_type = String, format = "uuid")]
    id: UserId,
    /// As it was given.
    email: String,
    email_verified: bool,
    #[schema(required)]
    full_name: Option<String>,
    /// Sorted, without repetition.
    roles: Vec<String>,
    #[schema(value_type = StatusSchema)]
    status: Status,
    /// Free data of the application; at most 4 KiB as JSON.
    #[schema(value_type = Object)]
    metadata: Metadata,
    /// Number of changes so far; the `ETag`.
    #[schema(value_type = u64)]
    revision: Revision,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    /// Comes from the sessions and changes neither `revision` nor `ETag`. Every query answers it, with `null` before
    /// the first login. Answers to writes lack it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    last_login_at: Option<LastLogin>,
}

/// The newest login that the views know of; `null` when there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct LastLogin(Option<Timestamp>);

/// Whether a user may log in.
#[derive(ToSchema)]
#[schema(as = Status, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes events::Status")]
enum StatusSchema {
    Active,
    Disabled,
}

impl UserRead {
    /// A user in the answer to a query, with the last login from the sessions.
    #[must_use]
    pub fn from_views(user: User, last_login_at: Option<Timestamp>) -> Self {
        Self { last_login_at: Some(LastLogin(last_login_at)), ..Self::after_write(user) }
    }

    /// A user in the answer to a command. Decisions about a user read no session, so the last login is unknown.
    #[must_use]
    pub fn after_write(user: User) -> Self {
        Self {
            id: user.id,
            email: user.email,
            email_verified: user.email_verified,
            full_name: user.full_name,
            roles: user.roles,
            status: user.status,
            metadata: user.metadata,
            revision: user.revision,
            created_at: user.created_at,
            updated_at: user.updated_at,
            last_login_at: None,
        }
    }
}
