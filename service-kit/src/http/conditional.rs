//! Conditional requests (RFC 9110 13): the entity tag is the revision.

use events::Revision;
use http::{HeaderMap, HeaderValue, header};

use crate::problem::{Code, Problem};

/// The `ETag` of an aggregate: its revision. Weak, because a view may show what moves without it.
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

/// Whether a caller has a revision already, as `If-None-Match` says.
///
/// # Errors
/// `invalid-header` when the value is no list of entity tags.
pub fn is_known(headers: &HeaderMap, revision: Revision) -> Result<bool, Problem> {
    Ok(match revisions(headers, header::IF_NONE_MATCH)? {
        Some(known) => known.contains(&revision),
        // `*` is "whatever you have".
        None => headers.contains_key(header::IF_NONE_MATCH),
    })
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
