//! Maps events to the documents of the view. Pure code.

use std::collections::HashMap;

use events::{DecodeError, Envelope, Position, Timestamp};
use mongodb::IndexModel;
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{self, Bson, DateTime, Uuid, doc};
use mongodb::options::IndexOptions;
use serde::{Deserialize, Serialize};
use service_kit::event_log::Followed;
use view_kit::{Fold, View, Writes, collection, replacement};

use crate::domain::{Product, ProductFact, ProductId, Snapshot};

/// The names of the indexes that serve the lists.
pub mod index {
    /// All products, by creation time.
    pub const BY_CREATED_AT: &str = "by_created_at";
    /// One status, by creation time.
    pub const BY_STATUS: &str = "by_status";
    /// One owner, by creation time.
    pub const BY_OWNER: &str = "by_owner";
    /// One status, by name.
    pub const BY_NAME: &str = "by_name";
    /// One status, by price.
    pub const BY_PRICE: &str = "by_price";
}

/// A product in the database: the members that lists filter and sort by, and the state as it is returned. A deleted
/// product keeps only its id and position, so that rereading an older event does not bring it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductDocument {
    #[serde(rename = "_id")]
    pub id: Uuid,
    /// Position of the event that the document was made from.
    pub position: i64,
    #[serde(flatten)]
    pub fields: Option<ProductFields>,
}

/// The members of a product that was not deleted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductFields {
    pub owner: Uuid,
    pub status: String,
    pub name: String,
    pub price: i64,
    pub created_at: DateTime,
    /// The whole state, as JSON.
    pub state: String,
}

impl ProductDocument {
    /// The document of a state.
    ///
    /// # Errors
    /// The state cannot be serialized, which does not happen to a state that was read from the log.
    pub fn project(after: &Snapshot, position: Position) -> Result<Self, serde_json::Error> {
        let fields = after.present().map(|product| {
            Ok(ProductFields {
                owner: key(*product.owner.as_uuid()),
                status: product.status.as_str().to_owned(),
                name: product.name.to_lowercase(),
                price: i64::try_from(product.price.amount).unwrap_or(i64::MAX),
                created_at: date(product.created_at),
                state: serde_json::to_string(product)?,
            })
        });
        Ok(Self {
            id: product_key(after.id()),
            position: i64::try_from(position.0).unwrap_or(i64::MAX),
            fields: fields.transpose()?,
        })
    }

    /// The product, unless it was deleted.
    ///
    /// # Errors
    /// The document was not written by this version.
    pub fn product(&self) -> Result<Option<Product>, serde_json::Error> {
        self.fields.as_ref().map(|fields| serde_json::from_str(&fields.state)).transpose()
    }
}

/// The key of a product's document.
#[must_use]
pub fn product_key(id: ProductId) -> Uuid {
    key(id.0)
}

/// A UUID as the database stores it.
#[must_use]
pub fn key(id: uuid::Uuid) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_datetime().timestamp_millis())
}

/// The view of products: the last state of each.
#[derive(Debug, Default)]
pub struct ProductViews(HashMap<ProductId, ProductDocument>);

impl Fold for ProductViews {
    const STREAM: &'static str = "PRODUCTS";
    const FILTERS: &'static [&'static str] = &["ev.product.*"];
    const ROOTS: &'static [&'static str] = &["ev.product."];

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let event = Envelope::<ProductFact>::from_json(&message.payload)?;
        let id = event.after.id();
        if message.subject.strip_prefix("ev.product.") != Some(&*id.to_string()) {
            return Err(DecodeError::Inconsistent("the subject names another product"));
        }
        let document = ProductDocument::project(&event.after, message.position)?;
        let slot = self.0.entry(id).or_insert_with(|| document.clone());
        if slot.position < document.position {
            *slot = document;
        }
        Ok(())
    }

    fn writes(&self, layout: u32) -> Result<Vec<Writes>, BsonError> {
        let update = |document: &ProductDocument| {
            let content = doc! {"$literal": bson::serialize_to_document(document)?};
            Ok(replacement(Bson::from(document.id), document.position, content))
        };
        let updates = self.0.values().map(update).collect::<Result<_, BsonError>>()?;
        Ok(vec![Writes { collection: collection(Self::NAME, layout), updates }])
    }

    fn ends(message: &Followed) -> bool {
        Envelope::<ProductFact>::from_json(&message.payload)
            .is_ok_and(|event| event.fact == ProductFact::Deleted)
    }
}

impl View for ProductViews {
    const NAME: &'static str = "products";
    // Increment this when documents get new members: the views are then rebuilt in new collections while the old ones
    // serve.
    const LAYOUT: u32 = 1;

    fn indexes() -> Vec<IndexModel> {
        let index = |name: &str, keys| {
            let there = doc! {"created_at": {"$exists": true}};
            let options = IndexOptions::builder().name(name.to_owned());
            let options = options.partial_filter_expression(there).build();
            IndexModel::builder().keys(keys).options(options).build()
        };
        vec![
            index(index::BY_CREATED_AT, doc! {"created_at": 1, "_id": 1}),
            index(index::BY_STATUS, doc! {"status": 1, "created_at": 1, "_id": 1}),
            index(index::BY_OWNER, doc! {"owner": 1, "created_at": 1, "_id": 1}),
            index(index::BY_NAME, doc! {"status": 1, "name": 1, "_id": 1}),
            index(index::BY_PRICE, doc! {"status": 1, "price": 1, "_id": 1}),
        ]
    }
}
