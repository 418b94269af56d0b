//! Requests from an account without streams into the product's account.
//!
//! A user of an account without streams sends its request under a subject that the account imports. The server answers
//! within that account, so whatever reply subject the user names, the answer is never stored in a stream of the
//! product.

/// One kind of request into the product's account.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) name: &'static str,
    /// The subject in the product's account.
    pub(crate) subject: &'static str,
    /// The subject in the sending account, with `$1` for the wildcard's match; `None` if it is the same.
    pub(crate) local: Option<&'static str>,
    /// A request for messages is answered by all of them, and by heartbeats.
    pub(crate) many_answers: bool,
}

impl Request {
    /// A request with the same subject in both accounts.
    pub(crate) const fn new(name: &'static str, subject: &'static str, many_answers: bool) -> Self {
        Self { name, subject, local: None, many_answers }
    }

    /// Whether a message published under a subject is sent as this request.
    #[cfg(test)]
    pub(crate) fn matches(&self, subject: &str) -> bool {
        covers(self.local.unwrap_or(self.subject), subject)
    }
}

/// The requests of several accounts, without those that another one covers: a server rejects an account whose exports
/// overlap.
pub(crate) fn without_overlaps(requests: &[&'static [Request]]) -> Vec<Request> {
    let mut kept: Vec<Request> = Vec::new();
    for request in requests.iter().copied().flatten() {
        if !kept.iter().any(|other| covers(other.subject, request.subject)) {
            kept.retain(|other| !covers(request.subject, other.subject));
            kept.push(*request);
        }
    }
    kept
}

/// Whether a pattern matches everything that a subject, possibly with wildcards, matches.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut tokens, mut words) = (pattern.split('.'), subject.split('.'));
    loop {
        match (tokens.next(), words.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*" | "$1"), Some(word)) if word != ">" => {}
            (Some(token), Some(word)) if token == word => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_matches() {
        for (pattern, subject, wanted) in [
            ("a.*", "a.b", true),
            ("a.*", "a.*", true),
            ("a.>", "a.b.c", true),
            ("a.*.*", "a.b.*", true),
            ("a.*", "a.>", false),
            ("a.b", "a.*", false),
            ("a.*", "a.b.c", false),
            ("a.*.c", "a.b.d", false),
        ] {
            assert_eq!(covers(pattern, subject), wanted, "{pattern} {subject}");
        }
    }

    #[test]
    fn the_wider_of_two_overlapping_requests_is_exported() {
        const NARROW: [Request; 2] = [
            Request::new("narrow", "next.FEED.*", true),
            Request::new("other", "ack.FEED.>", false),
        ];
        const WIDE: [Request; 1] = [Request::new("wide", "next.*.*", true)];
        for order in [[&NARROW[..], &WIDE[..]], [&WIDE[..], &NARROW[..]]] {
            let mut names: Vec<_> = without_overlaps(&order).iter().map(|one| one.name).collect();
            names.sort_unstable();
            assert_eq!(names, ["other", "wide"]);
        }
    }
}
