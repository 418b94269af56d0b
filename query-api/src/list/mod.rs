//! The list of users: which parameters there are, and which filter they mean.

use events::{EmailAddress, Timestamp};
use mongodb::bson::{DateTime, Document, Uuid, doc};
use service_kit::keys::SecretKey;
use service_kit::problem::{Code, Problem};

use crate::cursor::Place;

const PAGE_SIZE_DEFAULT: usize = 50;
const PAGE_SIZE_MAX: usize = 200;

/// A checked request for a page. Every parameter that is not known here is refused: a filter that is
/// silently ignored shows users that were not asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// Users per page.
    pub page_size: usize,
    newest_first: bool,
    filter: Document,
    created: Document,
    place: Option<Place>,
    /// The parameters without cursor, as they go into the next link and into the cursor's seal.
    query: String,
}

impl List {
    /// Checks parameters, decoded, in the order given.
    pub fn parse(parameters: &[(String, String)], key: &SecretKey) -> Result<Self, Problem> {
        let mut list = Self {
            page_size: PAGE_SIZE_DEFAULT,
            newest_first: true,
            filter: Document::new(),
            // Tombstones have no `created_at`: a bound on it leaves them out, by the index.
            created: doc! {"$gte": DateTime::from_millis(0)},
            place: None,
            query: String::new(),
        };
        let mut cursor = None;
        let mut sealed: Vec<(&str, &str)> = Vec::new();
        for (n, (name, value)) in parameters.iter().enumerate() {
            if parameters.iter().take(n).any(|(earlier, _)| earlier == name) {
                return Err(refused(name, "is given twice"));
            }
            list.take(name, value, &mut cursor)?;
            if !matches!(name.as_str(), "cursor" | "min_position") {
                sealed.push((name, value));
            }
        }
        sealed.sort_unstable();
        list.query = encode(&sealed);
        if let Some(cursor) = cursor {
            let place = Place::open(&cursor, key, &list.query);
            list.place =
                Some(place.ok_or_else(|| refused("cursor", "does not belong to this list"))?);
        }
        Ok(list)
    }

    fn take(
        &mut self,
        name: &str,
        value: &str,
        cursor: &mut Option<String>,
    ) -> Result<(), Problem> {
        match name {
            // Read where the request is awaited.
            "min_position" => {}
            "cursor" => *cursor = Some(value.to_owned()),
            "page_size" => {
                let size = value.parse().ok().filter(|n| (1..=PAGE_SIZE_MAX).contains(n));
                self.page_size =
                    size.ok_or_else(|| refused(name, &format!("must be 1..{PAGE_SIZE_MAX}")))?;
            }
            "sort" => {
                self.newest_first = match value {
                    "-created_at" => true,
                    "created_at" => false,
                    _ => return Err(refused(name, "must be created_at or -created_at")),
                };
            }
            "email" => {
                let email =
                    EmailAddress::parse(value).map_err(|why| refused(name, &why.to_string()))?;
                self.filter.insert("email_canonical", email.canonical());
            }
            "role" => {
                // A role nobody has gives an empty page, whatever its form.
                self.filter.insert("roles", value);
            }
            "status" => {
                if !matches!(value, "active" | "disabled") {
                    return Err(refused(name, "must be active or disabled"));
                }
                self.filter.insert("status", value);
            }
            "email_verified" => {
                let verified: bool =
                    value.parse().map_err(|_| refused(name, "must be true or false"))?;
                self.filter.insert("email_verified", verified);
            }
            "created_after" => {
                self.created.insert("$gt", time(name, value)?);
            }
            "created_before" => {
                self.created.insert("$lt", time(name, value)?);
            }
            _ => return Err(refused(name, "is not known")),
        }
        Ok(())
    }

    /// The filter for MongoDB.
    pub fn filter(&self) -> Document {
        let mut filter = self.filter.clone();
        filter.insert("created_at", self.created.clone());
        if let Some(place) = self.place {
            let at = DateTime::from_millis(place.created_at_ms);
            let id = Uuid::from_bytes(*place.id.as_uuid().as_bytes());
            let (behind, not_before) =
                if self.newest_first { ("$lt", "$lte") } else { ("$gt", "$gte") };
            // The first bound is what the index can seek to; the second cuts the users of that instant.
            filter.insert(
                "$and",
                vec![
                    doc! {"created_at": {not_before: at}},
                    doc! {"$or": [
                        {"created_at": {behind: at}},
                        {"created_at": at, "_id": {behind: id}},
                    ]},
                ],
            );
        }
        filter
    }

    /// The order for MongoDB.
    pub fn sort(&self) -> Document {
        let direction = if self.newest_first { -1 } else { 1 };
        doc! {"created_at": direction, "_id": direction}
    }

    /// The cursor behind a place.
    pub fn cursor(&self, place: Place, key: &SecretKey) -> String {
        place.seal(key, &self.query)
    }

    /// The address of the next page.
    pub fn next_link(&self, path: &str, cursor: &str) -> String {
        let separator = if self.query.is_empty() { "" } else { "&" };
        format!("<{path}?{}{separator}cursor={cursor}>; rel=\"next\"", self.query)
    }
}

fn refused(name: &str, why: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::new(Code::InvalidParameter).detail(format!("{name} {why}"))
}

fn time(name: &str, value: &str) -> Result<DateTime, Problem> {
    let time = Timestamp::try_from(value.to_owned())
        .map_err(|_| refused(name, "must be a time as in RFC 3339"))?;
    Ok(DateTime::from_millis(time.as_datetime().timestamp_millis()))
}

fn encode(parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    query.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<List, Problem> {
        let key = SecretKey::generate().unwrap();
        let owned: Vec<(String, String)> =
            parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        List::parse(&owned, &key)
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (name, value) in [
            ("page_size", "0"),
            ("page_size", "201"),
            ("page_size", "x"),
            ("sort", "id"),
            ("status", "gone"),
            ("email_verified", "yes"),
            ("created_after", "yesterday"),
            ("email", "no"),
            ("cursor", "made-up"),
            ("skip", "10"),
            ("$where", "1"),
            ("", ""),
        ] {
            assert_eq!(
                parse(&[(name, value)]).unwrap_err().code(),
                Code::InvalidParameter,
                "{name}={value}"
            );
        }
        assert!(parse(&[("role", "admin"), ("role", "user")]).is_err());
    }

    #[test]
    fn parameters_become_a_filter() {
        let list = parse(&[("email", "ADA@example.com"), ("status", "active"), ("page_size", "7")])
            .unwrap();
        assert_eq!(list.page_size, 7);
        assert_eq!(
            list.filter(),
            doc! {"email_canonical": "ada@example.com", "status": "active",
            "created_at": {"$gte": DateTime::from_millis(0)}}
        );
        assert_eq!(list.sort(), doc! {"created_at": -1, "_id": -1});
        let link = list.next_link("/api/v1/users", "CUR");
        assert_eq!(
            link,
            "</api/v1/users?email=ADA%40example.com&page_size=7&status=active&cursor=CUR>; rel=\"next\""
        );
    }
}
