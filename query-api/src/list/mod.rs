//! The list of users: its parameters, and the query on the views that they mean.
//!
//! A list that is only sorted, or only filtered by one member in the default order, names the index with exactly its
//! users in exactly its order, and reads a page of it. For any other combination the database chooses among the indexes
//! by trying them; a limit bounds its work (ADR 10).

#[cfg(test)]
mod plans;
mod search;

use events::{EmailAddress, Timestamp};
use mongodb::bson::{DateTime, Document, doc};
use service_kit::http::cursor::{Cursor, Key};
use service_kit::http::page::{PageRequest, parse_bool, refused, time, time_before, unknown};
use service_kit::keys::SecretKey;
use service_kit::problem::Problem;
use view_kit::{Count, Find, behind};
use views::{LivingUser, email_key, index, name_key};

/// Sort keys of the list.
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

    /// The member of the documents with this order.
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

/// A valid request for a page of users.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The parameters of every list.
    pub page: PageRequest,
    wanted: Wanted,
    after: Option<Cursor>,
    /// The filters and the sort, which a cursor is bound to.
    sealed: String,
}

/// The filters and the order.
#[derive(Debug, Clone, PartialEq)]
struct Wanted {
    sort: Sort,
    descending: bool,
    /// Members with a required value.
    equal: Document,
    /// Prefixes that each must match some word of a user.
    words: Vec<Document>,
    /// The bounds of `created_at`.
    created: Document,
}

impl Wanted {
    fn all() -> Self {
        Self {
            sort: Sort::CreatedAt,
            descending: true,
            equal: Document::new(),
            words: Vec::new(),
            // Tombstones have no `created_at`: a bound on it excludes them, and nothing else.
            created: doc! {"$gte": date(Timestamp::FIRST)},
        }
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), Problem> {
        match name {
            "sort" => {
                let (descending, member) =
                    value.strip_prefix('-').map_or((false, value), |member| (true, member));
                self.sort = Sort::parse(member).ok_or_else(|| {
                    let members = "created_at, email, full_name or last_login_at";
                    refused(name, &format!("must be {members}, or one of them with a - before it"))
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
                // An unknown role gives an empty page, whatever its form.
                self.equal.insert("roles", value);
            }
            "status" => {
                if !matches!(value, "active" | "disabled") {
                    return Err(refused(name, "must be active or disabled"));
                }
                self.equal.insert("status", value);
            }
            "email_verified" => {
                self.equal.insert("email_verified", parse_bool(name, value)?);
            }
            "created_after" => {
                self.created.insert("$gt", date(time(name, value)?));
            }
            "created_before" => {
                self.created.insert("$lt", date(time_before(name, value)?));
            }
            _ => return unknown(name),
        }
        Ok(())
    }

    /// The order, as a cursor is bound to it.
    fn order(&self) -> String {
        let direction = if self.descending { "-" } else { "" };
        format!("{direction}{}", self.sort.member())
    }

    /// All filters except the bounds of `created_at`.
    fn matching(&self) -> Document {
        let mut filter = self.equal.clone();
        if !self.words.is_empty() {
            filter.insert("$and", self.words.clone());
        }
        filter
    }

    /// Filters for users after a cursor.
    fn behind(&self, after: &Cursor) -> Vec<Document> {
        // Every user in a list was created at some time; not every user has logged in.
        let bounds = (self.sort == Sort::CreatedAt).then_some(&self.created);
        behind(after, self.sort.member(), self.descending, bounds)
    }

    /// The index with exactly the users of this list, in this order; `None` if there is none.
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
}

impl List {
    /// Parses decoded parameters, in the order given.
    pub fn parse(parameters: &[(String, String)], key: &SecretKey) -> Result<Self, Problem> {
        let mut wanted = Wanted::all();
        let page = PageRequest::parse(parameters, |name, value| wanted.take(name, value))?;
        let sealed = page.sealed(&wanted.order());
        let after = match &page.cursor {
            None => None,
            Some(cursor) => Some(
                Cursor::open(cursor, key, &sealed)
                    .ok_or_else(|| refused("cursor", "does not belong to this list"))?,
            ),
        };
        Ok(Self { page, wanted, after, sealed })
    }

    /// The query for the page, plus one user to see whether another page follows.
    pub fn find(&self) -> Find {
        let Wanted { sort, descending, created, .. } = &self.wanted;
        let mut filter = self.wanted.matching();
        if let Some(after) = &self.after {
            // A second bound on `created_at` would prevent the index from being read from the cursor on.
            if *sort != Sort::CreatedAt {
                filter.insert("created_at", created.clone());
            }
            filter.insert("$or", self.wanted.behind(after));
        } else {
            filter.insert("created_at", created.clone());
        }
        let direction = if *descending { -1 } else { 1 };
        Find {
            filter,
            sort: doc! {sort.member(): direction, "_id": direction},
            limit: self.page.page_size + 1,
            index: self.wanted.index(*sort),
        }
    }

    /// The query for the total of the list.
    pub fn count(&self) -> Count {
        let mut filter = self.wanted.matching();
        filter.insert("created_at", self.wanted.created.clone());
        Count { filter, index: self.wanted.index(Sort::CreatedAt) }
    }

    /// The cursor after a user.
    pub fn cursor(&self, last: &LivingUser, key: &SecretKey) -> String {
        let after = Cursor { key: self.wanted.sort.key_of(last), id: *last.user.id.as_uuid() };
        after.seal(key, &self.sealed)
    }
}

fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(millis(time))
}

fn millis(time: Timestamp) -> i64 {
    time.as_datetime().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use service_kit::problem::Code;

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
                    "created_at": {"$gte": date(Timestamp::FIRST)},
                },
                sort: doc! {"created_at": -1, "_id": -1},
                limit: 8,
                index: None,
            }
        );
        let link = list.page.next_link("/api/v1/users", "CUR");
        assert_eq!(
            link,
            "</api/v1/users?email=ADA%40example.com&page_size=7&status=active&cursor=CUR>; rel=\"next\""
        );
    }

    #[test]
    fn bounds_of_time_are_exact_beyond_milliseconds() {
        let created = |name, value| parse(&[(name, value)]).unwrap().wanted.created;
        let at = |text: &str| date(Timestamp::parse(text).unwrap());
        let between = "2026-01-31T10:00:00.250001Z";
        let before = created("created_before", between);
        assert_eq!(before.get_datetime("$lt").unwrap(), &at("2026-01-31T10:00:00.251Z"));
        let after = created("created_after", between);
        assert_eq!(after.get_datetime("$gt").unwrap(), &at("2026-01-31T10:00:00.250Z"));
    }

    #[test]
    fn a_cursor_is_bound_to_filters_and_sort() {
        let key = SecretKey::generate().unwrap();
        let after = Cursor { key: Key::Time(7), id: uuid::Uuid::max() };
        let list = parse_with(&[("role", "admin")], &key).unwrap();
        let cursor = after.seal(&key, &list.sealed);
        for same in [
            vec![("role", "admin")],
            vec![("sort", "-created_at"), ("role", "admin")],
            vec![("role", "admin"), ("page_size", "7"), ("include_total", "true")],
        ] {
            let parameters = [same, vec![("cursor", &cursor)]].concat();
            assert_eq!(parse_with(&parameters, &key).unwrap().after, Some(after.clone()));
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
