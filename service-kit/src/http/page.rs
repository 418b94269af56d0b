//! Paged lists: the parameters that each of them has, and the headers of its answers.

use events::{Position, Timestamp};
use http::header::LINK;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::POSITION;
use crate::problem::{Code, Problem};

/// Default items per page.
pub const PAGE_SIZE_DEFAULT: usize = 50;
/// Most items per page.
pub const PAGE_SIZE_MAX: usize = 200;
/// Why a requested total is missing.
pub const TOTAL_OMITTED: HeaderName = HeaderName::from_static("roster-total-omitted");

/// A valid request for a page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Items per page.
    pub page_size: usize,
    /// Whether the caller wants the total, if stated.
    pub include_total: Option<bool>,
    /// The cursor, as it was sent.
    pub cursor: Option<String>,
    /// The parameters without the cursor, for the link to the next page.
    query: String,
    /// The parameters that select the items.
    filters: String,
}

impl PageRequest {
    /// Parses decoded parameters, in the order given. Those that are not common to all lists are passed to `own`, which
    /// rejects unknown ones: a filter that was silently ignored would show items that were not requested.
    ///
    /// # Errors
    /// [`Code::InvalidParameter`].
    pub fn parse(
        parameters: &[(String, String)],
        mut own: impl FnMut(&str, &str) -> Result<(), Problem>,
    ) -> Result<Self, Problem> {
        let mut asked = Self {
            page_size: PAGE_SIZE_DEFAULT,
            include_total: None,
            cursor: None,
            query: String::new(),
            filters: String::new(),
        };
        let mut linked: Vec<(&str, &str)> = Vec::new();
        let mut filters: Vec<(&str, &str)> = Vec::new();
        for (n, (name, value)) in parameters.iter().enumerate() {
            if parameters.iter().take(n).any(|(earlier, _)| earlier == name) {
                return Err(refused(name, "is given twice"));
            }
            match name.as_str() {
                // Read by the code that waits for it.
                "min_position" => continue,
                "cursor" => {
                    asked.cursor = Some(value.clone());
                    continue;
                }
                "page_size" => asked.page_size = page_size(value)?,
                "include_total" => asked.include_total = Some(parse_bool(name, value)?),
                // Checked by the list.
                "sort" => own(name, value)?,
                _ => {
                    own(name, value)?;
                    filters.push((name, value));
                }
            }
            linked.push((name, value));
        }
        linked.sort_unstable();
        filters.sort_unstable();
        (asked.query, asked.filters) = (encode(&linked), encode(&filters));
        Ok(asked)
    }

    /// What a cursor is bound to: filters and order.
    #[must_use]
    pub fn sealed(&self, order: &str) -> String {
        format!("{order}?{}", self.filters)
    }

    /// Splits off the extra item, if there is one; returns the last item of the page if another page follows.
    pub fn split_next<'a, T>(&self, items: &'a mut Vec<T>) -> Option<&'a T> {
        let more = items.len() > self.page_size;
        items.truncate(self.page_size);
        items.last().filter(|_| more)
    }

    /// The address of the next page, for `Link`.
    #[must_use]
    pub fn next_link(&self, path: &str, cursor: &str) -> String {
        next_link(path, &self.query, cursor)
    }
}

/// The number of items in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// This many.
    Exactly(u64),
    /// More than the limit for counting.
    MoreThan(u64),
    /// Counting takes too long.
    TooMuchWork,
}

impl Total {
    /// The total, or the reason for [`TOTAL_OMITTED`].
    #[must_use]
    pub fn parts(self) -> (Option<u64>, Option<String>) {
        match self {
            Self::Exactly(total) => (Some(total), None),
            Self::MoreThan(most) => (None, Some(format!("more-than-{most}"))),
            Self::TooMuchWork => (None, Some("too-much-work".to_owned())),
        }
    }
}

/// Sets the headers of a page: the position that it reflects, the link to the next page, and why there is no total.
pub fn set_page_headers(
    headers: &mut HeaderMap,
    position: Position,
    link: Option<String>,
    omitted: Option<String>,
) {
    headers.insert(POSITION, position.0.into());
    for (name, value) in [(LINK, link), (TOTAL_OMITTED, omitted)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
}

/// The address of the page after a cursor, for `Link`.
#[must_use]
pub fn next_link(path: &str, query: &str, cursor: &str) -> String {
    let separator = if query.is_empty() { "" } else { "&" };
    format!("<{path}?{query}{separator}cursor={cursor}>; rel=\"next\"")
}

/// An invalid parameter.
#[must_use]
pub fn refused(name: &str, why: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::new(Code::InvalidParameter).detail(format!("{name} {why}"))
}

/// An unknown parameter.
///
/// # Errors
/// Always.
pub fn unknown(name: &str) -> Result<(), Problem> {
    Err(refused(name, "is not known"))
}

/// Parses `true` or `false`.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn parse_bool(name: &str, value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| refused(name, "must be true or false"))
}

/// Parses a time as an inclusive lower bound.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn time(name: &str, value: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse(value).map_err(|why| refused(name, &why.to_string()))
}

/// Parses a time as an upper bound. It may be finer than stored times.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn time_before(name: &str, value: &str) -> Result<Timestamp, Problem> {
    Timestamp::parse_rounded_up(value).map_err(|why| refused(name, &why.to_string()))
}

/// Encodes parameters for an address.
#[must_use]
pub fn encode(parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    query.finish()
}

fn page_size(value: &str) -> Result<usize, Problem> {
    let size = value.parse().ok().filter(|n| (1..=PAGE_SIZE_MAX).contains(n));
    size.ok_or_else(|| refused("page_size", &format!("must be 1..{PAGE_SIZE_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<PageRequest, Problem> {
        let owned: Vec<(String, String)> =
            parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        PageRequest::parse(&owned, |name, _| match name {
            "sort" | "role" | "status" => Ok(()),
            _ => unknown(name),
        })
    }

    #[test]
    fn what_is_not_known_or_given_twice_is_refused() {
        for parameters in [
            [("page_size", "0")].as_slice(),
            &[("page_size", "201")],
            &[("page_size", "x")],
            &[("include_total", "1")],
            &[("skip", "10")],
            &[("role", "admin"), ("role", "user")],
            &[("cursor", "a"), ("cursor", "a")],
            &[("", "")],
        ] {
            let refused = parse(parameters).unwrap_err();
            assert_eq!(refused.code(), Code::InvalidParameter, "{parameters:?}");
        }
    }

    #[test]
    fn a_cursor_is_bound_to_what_says_which_items_there_are() {
        let asked = parse(&[
            ("status", "active"),
            ("sort", "name"),
            ("page_size", "7"),
            ("include_total", "true"),
            ("role", "a b"),
            ("min_position", "3"),
            ("cursor", "CUR"),
        ])
        .unwrap();
        assert_eq!(asked.sealed("-name"), "-name?role=a+b&status=active");
        assert_eq!((asked.page_size, asked.include_total), (7, Some(true)));
        assert_eq!(asked.cursor.as_deref(), Some("CUR"));
        let query = "include_total=true&page_size=7&role=a+b&sort=name&status=active";
        assert_eq!(
            asked.next_link("/notes", "NEXT"),
            format!("</notes?{query}&cursor=NEXT>; rel=\"next\"")
        );
        assert_eq!(parse(&[]).unwrap().next_link("/n", "C"), "</n?cursor=C>; rel=\"next\"");
    }

    #[test]
    fn a_page_is_cut_from_one_item_more() {
        let asked = parse(&[("page_size", "2")]).unwrap();
        for (found, page, last) in [
            (vec![1, 2, 3], vec![1, 2], Some(2)),
            (vec![1, 2], vec![1, 2], None),
            (vec![], vec![], None),
        ] {
            let mut items = found.clone();
            assert_eq!(asked.split_next(&mut items).copied(), last, "{found:?}");
            assert_eq!(items, page);
        }
    }
}
