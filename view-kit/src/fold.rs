//! Folding what was read into the writes it leads to: pure.

use events::{DecodeError, Position};
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{Bson, Document, doc};
use service_kit::event_log::Followed;

/// The messages of one stream, folded to one write per document, whatever their number.
pub trait Fold: Default + Send + Sync + 'static {
    /// The stream it is made from.
    const STREAM: &'static str;

    /// What of the stream is read. The first are the events, by which the age of what is missing is told.
    const FILTERS: &'static [&'static str];

    /// What stands in a subject before the name of the aggregate that the message is about. Whatever is written
    /// about one aggregate comes in one order, and is parked together.
    const ROOTS: &'static [&'static str];

    /// The name of what a message is about.
    #[must_use]
    fn aggregate(subject: &str) -> &str {
        Self::ROOTS.iter().find_map(|root| subject.strip_prefix(root)).unwrap_or(subject)
    }

    /// The subjects on which messages about an aggregate stand.
    #[must_use]
    fn subjects_of(aggregate: &str) -> Vec<String> {
        Self::ROOTS.iter().map(|root| format!("{root}{aggregate}")).collect()
    }

    /// Takes in the next message. An older one than what is there changes nothing.
    ///
    /// # Errors
    /// [`DecodeError`]: the message cannot be understood, and nothing behind it may be taken.
    fn add(&mut self, message: &Followed) -> Result<(), DecodeError>;

    /// The writes, in order. `number` is the one in the names of the collections: of a generation, or of a layout.
    ///
    /// # Errors
    /// Never for what was read from the log.
    fn writes(&self, number: u32) -> Result<Vec<Writes>, BsonError>;

    /// Documents that never change.
    ///
    /// # Errors
    /// Never for what was read from the log.
    fn inserts(&self, _number: u32) -> Result<Option<Inserts>, BsonError> {
        Ok(None)
    }

    /// Whether a message ends its aggregate, so that nothing counts which came before it.
    #[must_use]
    fn ends(_: &Followed) -> bool {
        false
    }

    /// Drops what the last message of each aggregate up to a position says: it is written already.
    fn drop_states(&mut self, _: Position) {}
}

/// Updates of one collection. Each is guarded by the position it comes from, as [`replacement`] is, so that writing
/// it twice, or by two projectors at once, changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Writes {
    /// The name of the collection.
    pub collection: String,
    /// Members of the command `update`.
    pub updates: Vec<Document>,
}

/// Documents of one collection that never change: each comes from one message, whose position is its id.
#[derive(Debug, Clone, PartialEq)]
pub struct Inserts {
    /// The name of the collection.
    pub collection: String,
    /// The documents, with their ids.
    pub documents: Vec<Document>,
}

/// Replaces a document unless it comes from a later position. One from the same position is written
/// again: it comes out the same, or in the layout of today. As a pipeline, so that the comparison is part
/// of the write and an existing newer document is no duplicate-key error; `$literal` in the content,
/// because a name may begin with `$`.
#[must_use]
pub fn replacement(id: Bson, position: i64, content: Document) -> Document {
    let no_newer = doc! {"$lte": [{"$ifNull": ["$position", -1_i64]}, position]};
    doc! {
        "q": {"_id": id},
        "u": [{"$replaceWith": {"$cond": [no_newer, content, "$$ROOT"]}}],
        "upsert": true,
    }
}
