//! Conditional requests (RFC 9110 13): the entity tag is the revision.

use events::Revision;
use http::header::{self, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue};

use crate::problem::{Code, Problem};

/// The `ETag` of an aggregate: its revision. Weak, because a view may show data that changes without a new revision.
#[must_use]
pub fn etag(revision: Revision) -> HeaderValue {
    // Digits and quotes are always a valid header value.
    HeaderValue::from_str(&format!("W/\"{revision}\""))
        .unwrap_or(HeaderValue::from_static("W/\"0\""))
}

/// The preconditions of a command: `If-Match` and `If-None-Match`, as they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    wanted: Option<Tags>,
    unwanted: Option<Tags>,
}

/// A list of entity tags.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    /// `*`: any revision.
    Any,
    /// These revisions. A tag that is not a revision matches nothing.
    Of(Vec<Revision>),
}

impl Tags {
    fn have(&self, revision: Revision) -> bool {
        match self {
            Self::Any => true,
            Self::Of(revisions) => revisions.contains(&revision),
        }
    }
}

impl Precondition {
    /// Reads the headers of a request.
    ///
    /// # Errors
    /// `invalid-header` if one is not a list of entity tags.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self { wanted: tags(headers, IF_MATCH)?, unwanted: tags(headers, IF_NONE_MATCH)? })
    }

    /// Requires a revision.
    #[must_use]
    pub fn at(revision: Revision) -> Self {
        Self { wanted: Some(Tags::Of(vec![revision])), unwanted: None }
    }

    /// Checks the preconditions against the revision that a command would change.
    ///
    /// # Errors
    /// [`Failed`] names the one that does not hold.
    pub fn check(&self, revision: Revision) -> Result<(), Failed> {
        if self.wanted.as_ref().is_some_and(|tags| !tags.have(revision)) {
            return Err(Failed::Changed);
        }
        if self.unwanted.as_ref().is_some_and(|tags| tags.have(revision)) {
            return Err(Failed::Unwanted);
        }
        Ok(())
    }

    /// Whether `If-Match` was sent, with tags or as `*`.
    pub(super) const fn has_if_match(&self) -> bool {
        self.wanted.is_some()
    }

    /// Whether a command on something without an entity tag may run. `If-Match` never holds there, and `If-None-Match:
    /// *` holds for no call that writes.
    pub(super) fn holds_without_tag(&self) -> bool {
        self.wanted.is_none() && self.unwanted != Some(Tags::Any)
    }
}

/// A precondition that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// `If-Match` names other revisions.
    Changed,
    /// `If-None-Match` names this one.
    Unwanted,
}

fn tags(headers: &HeaderMap, name: header::HeaderName) -> Result<Option<Tags>, Problem> {
    Ok(match revisions(headers, name.clone())? {
        Some(revisions) => Some(Tags::Of(revisions)),
        None => headers.contains_key(name).then_some(Tags::Any),
    })
}
/// The revisions in `If-Match` or `If-None-Match`; `None` if the header is absent or `*`.
///
/// Weak and strong tags are equal here, because both sides compare revisions.
///
/// # Errors
/// `invalid-header` if the value is not a list of entity tags. A tag that is not a revision matches nothing.
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

/// Whether the caller has a revision already, according to `If-None-Match`.
///
/// # Errors
/// `invalid-header` if the value is not a list of entity tags.
pub fn is_known(headers: &HeaderMap, revision: Revision) -> Result<bool, Problem> {
    Ok(match revisions(headers, IF_NONE_MATCH)? {
        Some(known) => known.contains(&revision),
        // `*` matches any revision.
        None => headers.contains_key(IF_NONE_MATCH),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Option<Vec<Revision>>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(IF_MATCH, HeaderValue::from_str(value).unwrap());
        revisions(&headers, IF_MATCH)
    }

    fn precondition(name: header::HeaderName, value: &'static str) -> Precondition {
        Precondition::of(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))])).unwrap()
    }

    #[test]
    fn a_precondition_is_held_against_the_revision() {
        for (name, value, outcome, without_tag) in [
            (IF_MATCH, "W/\"3\"", Ok(()), false),
            (IF_MATCH, "\"3\"", Ok(()), false),
            (IF_MATCH, "\"1\", W/\"3\"", Ok(()), false),
            (IF_MATCH, "*", Ok(()), false),
            (IF_MATCH, "W/\"2\"", Err(Failed::Changed), false),
            (IF_MATCH, "\"abc\"", Err(Failed::Changed), false),
            (IF_NONE_MATCH, "*", Err(Failed::Unwanted), false),
            (IF_NONE_MATCH, "W/\"3\"", Err(Failed::Unwanted), true),
            (IF_NONE_MATCH, "W/\"2\"", Ok(()), true),
        ] {
            let one = precondition(name.clone(), value);
            assert_eq!(one.check(Revision(3)), outcome, "{name}: {value}");
            assert_eq!(one.holds_without_tag(), without_tag, "{name}: {value}");
        }
        assert_eq!(Precondition::default().check(Revision(3)), Ok(()));
        assert!(Precondition::default().holds_without_tag());
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
