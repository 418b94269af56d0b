//! The list of products: its parameters, and the query of the views that they lead to.

use events::UserId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use service_kit::http::cursor::{Cursor, Key};
use service_kit::http::page::{self, PageRequest};
use service_kit::keys::SecretKey;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::Caller;
use view_kit::{Count, Find, behind};

use super::is_manager;
use crate::domain::ProductId;
use crate::projection::{ProductDocument, ProductFields, index, key, product_key};

/// What products can be sorted by.
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

    /// The member of the documents with this sort key.
    const fn member(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::Name => "name",
            Self::Price => "price",
        }
    }

    fn key_of(self, fields: &ProductFields) -> Key {
        match self {
            Self::CreatedAt => Key::Time(fields.created_at.timestamp_millis()),
            Self::Name => Key::Text(fields.name.clone()),
            Self::Price => Key::Number(fields.price),
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
    /// Checks the decoded parameters, in the order given. The list leaves out what the caller may not see.
    pub fn parse(
        parameters: &[(String, String)],
        caller: &Caller,
        cursor_key: &SecretKey,
    ) -> Result<Self, Problem> {
        let (mut sort, mut descending) = (Sort::CreatedAt, true);
        let (mut owner, mut status): (Option<UserId>, Option<&str>) = (None, None);
        let page = PageRequest::parse(parameters, |name, value| match name {
            "sort" => {
                let (has_prefix, member) =
                    value.strip_prefix('-').map_or((false, value), |member| (true, member));
                descending = has_prefix;
                let error = "must be created_at, name or price, optionally with the prefix -";
                sort = Sort::parse(member).ok_or_else(|| page::refused(name, error))?;
                Ok(())
            }
            "owner" => {
                let error = |_| page::refused(name, "must be the id of a user");
                owner = Some(value.parse().map_err(error)?);
                Ok(())
            }
            "status" => {
                let known = ["draft", "published"].into_iter().find(|known| *known == value);
                let error = || page::refused(name, "must be draft or published");
                status = Some(known.ok_or_else(error)?);
                Ok(())
            }
            _ => page::unknown(name),
        })?;
        let sees_drafts = is_manager(caller) || owner == Some(caller.user);
        if !sees_drafts {
            if status == Some("draft") {
                return Err(Problem::new(Code::Forbidden)
                    .detail("only product managers can list the drafts of others"));
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
        // Who asks is part of the seal: the next page of a manager's cursor would show drafts to others.
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

    /// The page, plus one product to see whether another page follows.
    pub fn find(&self) -> Find {
        let mut filter = self.filter.clone();
        // A deleted product has no `created_at`.
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

    /// All products of the list, on every page.
    pub fn count(&self) -> Count {
        let mut filter = self.filter.clone();
        filter.insert("created_at", doc! {"$gte": DateTime::MIN});
        Count { filter, index: None }
    }

    /// The index that has exactly these products in exactly this order. For other combinations, the database chooses.
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

    /// The cursor after the last product of a page.
    pub fn cursor(&self, last: &ProductDocument, cursor_key: &SecretKey) -> Option<String> {
        let fields = last.fields.as_ref()?;
        let id = uuid::Uuid::from_bytes(last.id.bytes());
        let after = Cursor { key: self.sort.key_of(fields), id };
        Some(after.seal(cursor_key, &self.sealed))
    }
}

/// The filter for one product.
pub fn by_id(id: ProductId) -> Document {
    doc! {"_id": Bson::from(product_key(id))}
}
