//! Folding messages into the writes that they lead to. Pure.

use events::{DecodeError, Position};
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{Bson, Document, doc};
use service_kit::event_log::Followed;

/// Messages of one stream, folded to one write per document, however many messages there are.
pub trait Fold: Default + Send + Sync + 'static {
    /// The stream that it is built from.
    const STREAM: &'static str;

    /// The subjects that are read. The first one has the events, by which the lag is measured.
    const FILTERS: &'static [&'static str];

    /// Subject prefixes before the name of the aggregate that a message is about. All messages about one aggregate
    /// arrive in one order, and are parked together.
    const ROOTS: &'static [&'static str];

    /// The aggregate that a message is about.
    #[must_use]
    fn aggregate(subject: &str) -> &str {
        Self::ROOTS.iter().find_map(|root| subject.strip_prefix(root)).unwrap_or(subject)
    }

    /// The subjects of messages about an aggregate.
    #[must_use]
    fn subjects_of(aggregate: &str) -> Vec<String> {
        Self::ROOTS.iter().map(|root| format!("{root}{aggregate}")).collect()
    }

    /// Adds the next message. A message older than the current state changes nothing.
    ///
    /// # Errors
    /// [`DecodeError`]: the message cannot be decoded, and nothing after it may be added.
    fn add(&mut self, message: &Followed) -> Result<(), DecodeError>;

    /// The writes, in order. `number` is part of the collections' names: a generation or a layout.
    ///
    /// # Errors
    /// Never for messages that were read from the log.
    fn writes(&self, number: u32) -> Result<Vec<Writes>, BsonError>;

    /// Documents that never change.
    ///
    /// # Errors
    /// Never for messages that were read from the log.
    fn inserts(&self, _number: u32) -> Result<Option<Inserts>, BsonError> {
        Ok(None)
    }

    /// Whether a message ends its aggregate, so that nothing before it counts.
    #[must_use]
    fn ends(_: &Followed) -> bool {
        false
    }

    /// Drops the states up to a position, because they are written already.
    fn drop_states(&mut self, _: Position) {}
}

/// Updates of one collection. Each is guarded by the position that it comes from, as in [`replacement`]. Writing it
/// twice, or by two projectors at once, changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Writes {
    /// The name of the collection.
    pub collection: String,
    /// Items of the `update` command.
    pub updates: Vec<Document>,
}

/// Documents of one collection that never change. Each comes from one message, whose position is its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Inserts {
    /// The name of the collection.
    pub collection: String,
    /// The documents, with their ids.
    pub documents: Vec<Document>,
}

/// Replaces a document unless it comes from a later position. A document from the same position is written again: it
/// has the same content, or today's layout. It is a pipeline, so that the comparison is part of the write and an
/// existing newer document is not a duplicate-key error. `$literal` protects content whose names begin with `$`.
#[must_use]
pub fn replacement(id: Bson, position: i64, content: Document) -> Document {
    let no_newer = doc! {"$lte": [{"$ifNull": ["$position", -1_i64]}, position]};
    doc! {
        "q": {"_id": id},
        "u": [{"$replaceWith": {"$cond": [no_newer, content, "$$ROOT"]}}],
        "upsert": true,
    }
}
