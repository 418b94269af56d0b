//! The list of products: which parameters there are, and which query on the views they mean.

use events::UserId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use service_kit::http::cursor::{Cursor, Key};
use service_kit::http::page::{self, PageRequest};
use service_kit::keys::SecretKey;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::Caller;
use view_kit::{Count, Find, behind};

use super::manages;
use crate::domain::ProductId;
use crate::projection::{ProductDocument, Shown, index, key, product_key};

/// What products are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    CreatedAt,
    Name,
    Price,
}

impl Sort {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "created_at" => Self::CreatedAt,
            "name" => Self::Name,
            "price" => Self::Price,
            _ => return None,
        })
    }

    /// The member of the documents that has this order.
    const fn member(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::Name => "name",
            Self::Price => "price",
        }
    }

    fn key_of(self, shown: &Shown) -> Key {
        match self {
            Self::CreatedAt => Key::Time(shown.created_at.timestamp_millis()),
            Self::Name => Key::Text(shown.name.clone()),
            Self::Price => Key::Number(shown.price),
        }
    }
}

/// A checked request for a page.
pub struct List {
    /// Page size, total, cursor.
    pub page: PageRequest,
    sort: Sort,
    descending: bool,
    filter: Document,
    after: Option<Cursor>,
    sealed: String,
}

impl List {
    /// Checks parameters, decoded, in the order given. What the caller may not see is not in the list.
    pub fn parse(
        parameters: &[(String, String)],
        caller: &Caller,
        cursor_key: &SecretKey,
    ) -> Result<Self, Problem> {
        let (mut sort, mut descending) = (Sort::CreatedAt, true);
        let (mut owner, mut status): (Option<UserId>, Option<&str>) = (None, None);
        let page = PageRequest::parse(parameters, |name, value| match name {
            "sort" => {
                let (down, member) =
                    value.strip_prefix('-').map_or((false, value), |member| (true, member));
                descending = down;
                let wrong = "must be created_at, name or price, or one of them behind a -";
                sort = Sort::parse(member).ok_or_else(|| page::refused(name, wrong))?;
                Ok(())
            }
            "owner" => {
                let wrong = |_| page::refused(name, "must be the id of a user");
                owner = Some(value.parse().map_err(wrong)?);
                Ok(())
            }
            "status" => {
                let known = ["draft", "published"].into_iter().find(|known| *known == value);
                let wrong = || page::refused(name, "must be draft or published");
                status = Some(known.ok_or_else(wrong)?);
                Ok(())
            }
            _ => page::unknown(name),
        })?;
        let sees_drafts = manages(caller) || owner == Some(caller.user);
        if !sees_drafts {
            if status == Some("draft") {
                return Err(Problem::new(Code::Forbidden).detail("these are not your drafts"));
            }
            status = Some("published");
        }
        let mut filter = Document::new();
        if let Some(owner) = owner {
            filter.insert("owner", key(*owner.as_uuid()));
        }
        if let Some(status) = status {
            filter.insert("status", status);
        }
        let direction = if descending { "-" } else { "" };
        // Who asks is a part of it: a page behind a manager's cursor would show drafts to others.
        let sealed = page.sealed(&format!("{direction}{} {filter}", sort.member()));
        let after = match &page.cursor {
            None => None,
            Some(cursor) => Some(
                Cursor::open(cursor, cursor_key, &sealed)
                    .ok_or_else(|| page::refused("cursor", "does not belong to this list"))?,
            ),
        };
        Ok(Self { page, sort, descending, filter, after, sealed })
    }

    /// The page, and one product more to see whether another page follows.
    pub fn find(&self) -> Find {
        let mut filter = self.filter.clone();
        // What was deleted has none.
        filter.insert("created_at", doc! {"$gte": DateTime::MIN});
        if let Some(after) = &self.after {
            let first = (self.sort == Sort::CreatedAt).then(|| doc! {"$gte": DateTime::MIN});
            if first.is_some() {
                filter.remove("created_at");
            }
            filter
                .insert("$or", behind(after, self.sort.member(), self.descending, first.as_ref()));
        }
        let direction = if self.descending { -1 } else { 1 };
        Find {
            filter,
            sort: doc! {self.sort.member(): direction, "_id": direction},
            limit: self.page.page_size + 1,
            index: self.index(),
        }
    }

    /// All products of the list, whatever the page.
    pub fn count(&self) -> Count {
        let mut filter = self.filter.clone();
        filter.insert("created_at", doc! {"$gte": DateTime::MIN});
        Count { filter, index: None }
    }

    /// The index that has exactly these products in exactly this order; for any other combination the database
    /// chooses.
    fn index(&self) -> Option<&'static str> {
        let only = |name| self.filter.len() == 1 && self.filter.contains_key(name);
        match self.sort {
            Sort::CreatedAt if self.filter.is_empty() => Some(index::BY_CREATED_AT),
            Sort::CreatedAt if only("status") => Some(index::BY_STATUS),
            Sort::CreatedAt if only("owner") => Some(index::BY_OWNER),
            Sort::Name if only("status") => Some(index::BY_NAME),
            Sort::Price if only("status") => Some(index::BY_PRICE),
            Sort::CreatedAt | Sort::Name | Sort::Price => None,
        }
    }

    /// The cursor behind the last product of a page.
    pub fn cursor(&self, last: &ProductDocument, cursor_key: &SecretKey) -> Option<String> {
        let shown = last.shown.as_ref()?;
        let id = uuid::Uuid::from_bytes(last.id.bytes());
        let after = Cursor { key: self.sort.key_of(shown), id };
        Some(after.seal(cursor_key, &self.sealed))
    }
}

/// What a document is found by.
pub fn by_id(id: ProductId) -> Document {
    doc! {"_id": Bson::from(product_key(id))}
}
