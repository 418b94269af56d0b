//! The list of users: which parameters there are, and which query on the views they mean.
//!
//! A list that is only sorted, or only filtered by one member in the default order, names the index that
//! has exactly its users in exactly its order, and reads a page of it. For any other combination the
//! database chooses among the indexes by trying them; how long it may work is bounded (ADR 10).

#[cfg(test)]
mod plans;
mod search;

use events::{EmailAddress, Timestamp};
use mongodb::bson::{Bson, DateTime, Document, Uuid, doc};
use service_kit::keys::SecretKey;
use service_kit::problem::{Code, Problem};
use views::{LivingUser, email_key, index, name_key};

use crate::cursor::{Key, Place};

/// Items on a page when the caller does not say.
pub const PAGE_SIZE_DEFAULT: usize = 50;
const PAGE_SIZE_MAX: usize = 200;

/// What users are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    CreatedAt,
    Email,
    FullName,
    LastLoginAt,
}

impl Sort {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "created_at" => Self::CreatedAt,
            "email" => Self::Email,
            "full_name" => Self::FullName,
            "last_login_at" => Self::LastLoginAt,
            _ => return None,
        })
    }

    /// The member of the documents that has this order.
    const fn member(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::Email => "email_canonical",
            Self::FullName => "name_key",
            Self::LastLoginAt => "last_login_at",
        }
    }

    /// The index with all users in this order.
    const fn index(self) -> &'static str {
        match self {
            Self::CreatedAt => index::BY_CREATED_AT,
            Self::Email => index::IN_ORDER_OF_EMAIL,
            Self::FullName => index::IN_ORDER_OF_NAME,
            Self::LastLoginAt => index::IN_ORDER_OF_LOGIN,
        }
    }

    fn key_of(self, user: &LivingUser) -> Key {
        match self {
            Self::CreatedAt => Key::Time(millis(user.user.created_at)),
            Self::Email => Key::Text(email_key(&user.user.email)),
            Self::FullName => Key::Text(name_key(user.user.full_name.as_deref())),
            Self::LastLoginAt => user.last_login_at.map_or(Key::Absent, |at| Key::Time(millis(at))),
        }
    }
}

/// A page of users, for the database.
#[derive(Debug, Clone, PartialEq)]
pub struct Find {
    /// Which users.
    pub filter: Document,
    /// In which order.
    pub sort: Document,
    /// At most how many.
    pub limit: usize,
    /// The index that has them so; `None` leaves the choice to the database.
    pub index: Option<&'static str>,
}

/// All users of a list, to be counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Count {
    /// Which users.
    pub filter: Document,
    /// The index that has them; `None` leaves the choice to the database.
    pub index: Option<&'static str>,
}

/// A checked request for a page. Every parameter that is not known here is refused: a filter that is
/// silently ignored shows users that were not asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// Users per page.
    pub page_size: usize,
    /// Whether the caller wants to know how many users there are.
    pub include_total: bool,
    sort: Sort,
    descending: bool,
    /// What a user must be equal to, member by member.
    equal: Document,
    /// What some word of a user must begin with, each.
    words: Vec<Document>,
    /// The bounds of `created_at`.
    created: Document,
    place: Option<Place>,
    /// The parameters without the cursor, for the link to the next page.
    query: String,
    /// What a cursor is bound to: filters and sort.
    sealed: String,
}

impl List {
    /// Checks parameters, decoded, in the order given.
    pub fn parse(parameters: &[(String, String)], key: &SecretKey) -> Result<Self, Problem> {
        let mut list = Self {
            page_size: PAGE_SIZE_DEFAULT,
            include_total: false,
            sort: Sort::CreatedAt,
            descending: true,
            equal: Document::new(),
            words: Vec::new(),
            // Tombstones have no `created_at`: a bound on it leaves them out.
            created: doc! {"$gte": DateTime::from_millis(0)},
            place: None,
            query: String::new(),
            sealed: String::new(),
        };
        let mut cursor = None;
        let mut linked: Vec<(&str, &str)> = Vec::new();
        let mut sealed: Vec<(&str, &str)> = Vec::new();
        for (n, (name, value)) in parameters.iter().enumerate() {
            if parameters.iter().take(n).any(|(earlier, _)| earlier == name) {
                return Err(refused(name, "is given twice"));
            }
            list.take(name, value, &mut cursor)?;
            if !matches!(name.as_str(), "cursor" | "min_position") {
                linked.push((name, value));
                if !matches!(name.as_str(), "page_size" | "include_total" | "sort") {
                    sealed.push((name, value));
                }
            }
        }
        linked.sort_unstable();
        sealed.sort_unstable();
        list.query = encode(&linked);
        let direction = if list.descending { "-" } else { "" };
        list.sealed = format!("{direction}{}?{}", list.sort.member(), encode(&sealed));
        if let Some(cursor) = cursor {
            let place = Place::open(&cursor, key, &list.sealed);
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
            "page_size" => self.page_size = page_size(value)?,
            "include_total" => self.include_total = truth(name, value)?,
            "sort" => {
                let (descending, member) =
                    value.strip_prefix('-').map_or((false, value), |member| (true, member));
                self.sort = Sort::parse(member).ok_or_else(|| {
                    let members = "created_at, email, full_name or last_login_at";
                    refused(name, &format!("must be {members}, or one of them behind a -"))
                })?;
                self.descending = descending;
            }
            "email" => {
                let email =
                    EmailAddress::parse(value).map_err(|why| refused(name, &why.to_string()))?;
                self.equal.insert("email_canonical", email.canonical());
            }
            "q" => self.words = search::words(value).map_err(|why| refused(name, why))?,
            "role" => {
                // A role nobody has gives an empty page, whatever its form.
                self.equal.insert("roles", value);
            }
            "status" => {
                if !matches!(value, "active" | "disabled") {
                    return Err(refused(name, "must be active or disabled"));
                }
                self.equal.insert("status", value);
            }
            "email_verified" => {
                self.equal.insert("email_verified", truth(name, value)?);
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

    /// The page, and one user more to see whether another page follows.
    pub fn find(&self) -> Find {
        let mut filter = self.matching();
        if let Some(place) = &self.place {
            // A second bound on `created_at` would only keep the index from being read from the place on.
            if self.sort != Sort::CreatedAt {
                filter.insert("created_at", self.created.clone());
            }
            filter.insert("$or", self.behind(place));
        } else {
            filter.insert("created_at", self.created.clone());
        }
        let direction = if self.descending { -1 } else { 1 };
        Find {
            filter,
            sort: doc! {self.sort.member(): direction, "_id": direction},
            limit: self.page_size + 1,
            index: self.index(self.sort),
        }
    }

    /// All users of the list, whatever the page.
    pub fn count(&self) -> Count {
        let mut filter = self.matching();
        filter.insert("created_at", self.created.clone());
        Count { filter, index: self.index(Sort::CreatedAt) }
    }

    /// The filters but for the bounds of `created_at`.
    fn matching(&self) -> Document {
        let mut filter = self.equal.clone();
        if !self.words.is_empty() {
            filter.insert("$and", self.words.clone());
        }
        filter
    }

    /// Whoever comes behind a place: the rest of those with the same key, and those with a key behind it.
    /// Each branch is one range of the index; the database merges them in order and sorts nothing.
    fn behind(&self, place: &Place) -> Vec<Document> {
        let member = self.sort.member();
        let beyond = if self.descending { "$lt" } else { "$gt" };
        let same = |key: Bson| {
            let id = Uuid::from_bytes(*place.id.as_uuid().as_bytes());
            doc! {member: key, "_id": {beyond: id}}
        };
        let absent = doc! {member: Bson::Null};
        match (&place.key, self.sort) {
            (Key::Text(text), _) => {
                vec![same(text.into()), doc! {member: {beyond: text}}]
            }
            (Key::Time(at), Sort::CreatedAt) => {
                let at = DateTime::from_millis(*at);
                let mut rest = self.created.clone();
                rest.insert(beyond, at);
                vec![same(at.into()), doc! {member: rest}]
            }
            // The absent key comes before all others; a comparison with a time does not reach it.
            (Key::Time(at), _) => {
                let at = DateTime::from_millis(*at);
                let mut branches = vec![same(at.into()), doc! {member: {beyond: at}}];
                branches.extend(self.descending.then_some(absent));
                branches
            }
            (Key::Absent, _) => {
                let present = doc! {member: {"$gte": DateTime::MIN}};
                let mut branches = vec![same(Bson::Null)];
                branches.extend((!self.descending).then_some(present));
                branches
            }
        }
    }

    /// The index with exactly the users of this list, in this order; `None` when there is none.
    fn index(&self, sort: Sort) -> Option<&'static str> {
        if !self.words.is_empty() {
            return None;
        }
        let mut members = self.equal.keys().map(String::as_str);
        let bounded = self.created.len() > 1;
        match (sort, members.next(), members.next()) {
            (Sort::CreatedAt, Some(member), None) => match member {
                "email_canonical" => Some(index::BY_EMAIL),
                "roles" => Some(index::BY_ROLE),
                "status" => Some(index::BY_STATUS),
                "email_verified" => Some(index::BY_VERIFIED),
                _ => None,
            },
            (Sort::CreatedAt, None, _) => Some(index::BY_CREATED_AT),
            (Sort::Email | Sort::FullName | Sort::LastLoginAt, None, _) if !bounded => {
                Some(sort.index())
            }
            _ => None,
        }
    }

    /// The cursor behind a user.
    pub fn cursor(&self, last: &LivingUser, key: &SecretKey) -> String {
        let place = Place { key: self.sort.key_of(last), id: last.user.id };
        place.seal(key, &self.sealed)
    }

    /// The address of the next page.
    pub fn next_link(&self, path: &str, cursor: &str) -> String {
        next_link(path, &self.query, cursor)
    }
}

/// The address of the page behind a cursor, as it stands in `Link`.
pub fn next_link(path: &str, query: &str, cursor: &str) -> String {
    let separator = if query.is_empty() { "" } else { "&" };
    format!("<{path}?{query}{separator}cursor={cursor}>; rel=\"next\"")
}

/// A parameter that is not taken as it is.
pub fn refused(name: &str, why: &str) -> Problem {
    let name: String = name.chars().take(64).collect();
    Problem::new(Code::InvalidParameter).detail(format!("{name} {why}"))
}

/// Items per page.
pub fn page_size(value: &str) -> Result<usize, Problem> {
    let size = value.parse().ok().filter(|n| (1..=PAGE_SIZE_MAX).contains(n));
    size.ok_or_else(|| refused("page_size", &format!("must be 1..{PAGE_SIZE_MAX}")))
}

/// Parameters as they stand in an address.
pub fn encode(parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters);
    query.finish()
}

fn truth(name: &str, value: &str) -> Result<bool, Problem> {
    value.parse().map_err(|_| refused(name, "must be true or false"))
}

fn time(name: &str, value: &str) -> Result<DateTime, Problem> {
    let time = Timestamp::try_from(value.to_owned())
        .map_err(|_| refused(name, "must be a time as in RFC 3339"))?;
    Ok(DateTime::from_millis(millis(time)))
}

fn millis(time: Timestamp) -> i64 {
    time.as_datetime().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &[(&str, &str)]) -> Result<List, Problem> {
        parse_with(parameters, &SecretKey::generate().unwrap())
    }

    fn parse_with(parameters: &[(&str, &str)], key: &SecretKey) -> Result<List, Problem> {
        let owned: Vec<(String, String)> =
            parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        List::parse(&owned, key)
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (name, value) in [
            ("page_size", "0"),
            ("page_size", "201"),
            ("page_size", "x"),
            ("sort", "id"),
            ("sort", "--email"),
            ("sort", ""),
            ("status", "gone"),
            ("email_verified", "yes"),
            ("include_total", "1"),
            ("created_after", "yesterday"),
            ("email", "no"),
            ("q", ""),
            ("q", " "),
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
    fn parameters_become_a_query() {
        let list = parse(&[("email", "ADA@example.com"), ("status", "active"), ("page_size", "7")])
            .unwrap();
        assert_eq!(
            list.find(),
            Find {
                filter: doc! {
                    "email_canonical": "ada@example.com", "status": "active",
                    "created_at": {"$gte": DateTime::from_millis(0)},
                },
                sort: doc! {"created_at": -1, "_id": -1},
                limit: 8,
                index: None,
            }
        );
        let link = list.next_link("/api/v1/users", "CUR");
        assert_eq!(
            link,
            "</api/v1/users?email=ADA%40example.com&page_size=7&status=active&cursor=CUR>; rel=\"next\""
        );
    }

    #[test]
    fn a_cursor_is_bound_to_filters_and_sort() {
        let key = SecretKey::generate().unwrap();
        let place = Place { key: Key::Time(7), id: events::UserId::from_uuid(uuid::Uuid::max()) };
        let list = parse_with(&[("role", "admin")], &key).unwrap();
        let cursor = place.seal(&key, &list.sealed);
        for same in [
            vec![("role", "admin")],
            vec![("sort", "-created_at"), ("role", "admin")],
            vec![("role", "admin"), ("page_size", "7"), ("include_total", "true")],
        ] {
            let parameters = [same, vec![("cursor", &cursor)]].concat();
            assert_eq!(parse_with(&parameters, &key).unwrap().place, Some(place.clone()));
        }
        for other in [
            vec![],
            vec![("role", "user")],
            vec![("role", "admin"), ("sort", "created_at")],
            vec![("role", "admin"), ("sort", "-last_login_at")],
            vec![("role", "admin"), ("status", "active")],
        ] {
            let parameters = [other, vec![("cursor", &cursor)]].concat();
            assert!(parse_with(&parameters, &key).is_err(), "{parameters:?}");
        }
    }
}
