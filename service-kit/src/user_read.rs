//! The shape in which every answer shows a user, and the `ETag` that goes with it.

use events::{Metadata, Revision, Status, Timestamp, User, UserId};
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Code, Problem};

/// A user, as everyone who may see it is shown it.
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
    /// Comes from the sessions and changes neither `revision` nor `ETag`. Answers to changes do not know it:
    /// `null`.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_login_at: Option<Timestamp>,
}

/// Whether a user may log in.
#[derive(ToSchema)]
#[schema(as = Status, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes events::Status")]
enum StatusSchema {
    Active,
    Disabled,
}

impl UserRead {
    /// The public state of a user as an answer shows it. `last_login_at` comes from the sessions and is
    /// `null` as long as there are none.
    #[must_use]
    pub fn new(user: User, last_login_at: Option<Timestamp>) -> Self {
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
            last_login_at,
        }
    }
}

/// The `ETag` of a user: its revision. Weak, because `last_login_at` moves without it.
#[must_use]
pub fn etag(revision: Revision) -> HeaderValue {
    // Digits and quotes are always a valid header value.
    HeaderValue::from_str(&format!("W/\"{revision}\""))
        .unwrap_or(HeaderValue::from_static("W/\"0\""))
}

/// The revisions that `If-Match` or `If-None-Match` names; `None` when the header is absent or `*`.
///
/// Weak and strong forms are the same here, as both sides compare revisions.
///
/// # Errors
/// `invalid-header` when the value is no list of entity tags. A tag that is no revision matches nothing.
pub fn revisions(
    headers: &HeaderMap,
    name: header::HeaderName,
) -> Result<Option<Vec<Revision>>, Problem> {
    let mut revisions = Vec::new();
    let invalid = || {
        Problem::new(Code::InvalidHeader)
            .detail(format!("{name} must be a list of entity tags or *"))
    };
    for value in headers.get_all(&name) {
        let text = value.to_str().map_err(|_| invalid())?;
        for tag in text.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(None);
            }
            let opaque = tag
                .strip_prefix("W/")
                .unwrap_or(tag)
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'))
                .ok_or_else(invalid)?;
            if let Ok(revision) = opaque.parse() {
                revisions.push(Revision(revision));
            }
        }
    }
    Ok(headers.contains_key(&name).then_some(revisions))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::IF_MATCH;

    fn parse(value: &str) -> Result<Option<Vec<Revision>>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_str(value).unwrap());
        revisions(&headers, IF_MATCH)
    }

    #[test]
    fn entity_tags_are_revisions() {
        assert_eq!(parse("W/\"3\"").unwrap(), Some(vec![Revision(3)]));
        assert_eq!(parse("\"3\", W/\"4\"").unwrap(), Some(vec![Revision(3), Revision(4)]));
        assert_eq!(parse("\"abc\"").unwrap(), Some(Vec::new()));
        assert_eq!(parse("*").unwrap(), None);
        assert!(parse("3").is_err());
        assert_eq!(revisions(&HeaderMap::new(), IF_MATCH).unwrap(), None);
        assert_eq!(etag(Revision(7)), "W/\"7\"");
    }
}
