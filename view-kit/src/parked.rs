//! Parking: an unreadable message is put aside together with everything after it of the same aggregate, so that their
//! order holds. Everything else goes on.
//!
//! What is parked is stored in the database with the checkpoint, because it describes what the views lack. The messages
//! stay in the log; releasing an aggregate means reading it again from there.
//!
//! Two projectors may do this at once. A projector that skips a message has recorded before that the message waits
//! ([`Parked::wait`]), and an aggregate is released only by one that has read up to the last recorded message
//! ([`Parked::release`]). Each is a single operation of the database. So either the first one sees that nothing is
//! parked any more and applies the message, or the other one sees that there is more to apply.

use std::collections::HashMap;

use events::Position;
use futures::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::error::Error;
use service_kit::ambient;

use crate::database::ViewDatabase;
use crate::parked_document::ParkedDocument;

/// The aggregates that the views of one checkpoint have parked.
pub struct Parked {
    collection: Collection<ParkedDocument>,
    checkpoint: String,
    stream: &'static str,
    held: HashMap<String, ParkedDocument>,
}

impl Parked {
    /// Reads what is parked now.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn load(
        database: &ViewDatabase,
        checkpoint: &str,
        stream: &'static str,
    ) -> Result<Self, Error> {
        let mut parked = Self {
            collection: database.parked(),
            checkpoint: checkpoint.to_owned(),
            stream,
            held: HashMap::new(),
        };
        parked.reload().await?;
        Ok(parked)
    }

    /// Reads it again: another projector may have parked an aggregate.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn reload(&mut self) -> Result<(), Error> {
        let found = self.collection.find(doc! {"checkpoint": &self.checkpoint}).await?;
        let found: Vec<ParkedDocument> = found.try_collect().await?;
        self.held = found.into_iter().map(|one| (one.aggregate.clone(), one)).collect();
        Ok(())
    }

    /// How many aggregates are parked.
    #[must_use]
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// Whether an aggregate is parked.
    #[must_use]
    pub fn holds(&self, aggregate: &str) -> bool {
        self.held.contains_key(aggregate)
    }

    /// The parked aggregates, and from which position on.
    #[must_use]
    pub fn aggregates(&self) -> Vec<(String, Position)> {
        self.held.values().map(|held| (held.aggregate.clone(), held.position())).collect()
    }

    /// Records that messages of parked aggregates wait, up to a position each. An aggregate that another projector has
    /// released in the meantime is not parked any more.
    ///
    /// # Errors
    /// The database does not answer: skip nothing.
    /// The database does not answer: pass nothing over.
    pub async fn wait(&mut self, through: HashMap<String, Position>) -> Result<(), Error> {
        for (aggregate, position) in through {
            let mark = doc! {"$max": {"through": number(position)}};
            let marked = self.collection.update_one(self.key(&aggregate), mark).await?;
            if marked.matched_count == 0 {
                self.held.remove(&aggregate);
            }
        }
        Ok(())
    }

    /// Parks an aggregate in memory; [`Parked::park`] stores it.
    pub fn hold(&mut self, aggregate: &str, position: Position, why: String) {
        let document = ParkedDocument {
            id: ParkedDocument::key(&self.checkpoint, aggregate),
            checkpoint: self.checkpoint.clone(),
            stream: self.stream.to_owned(),
            aggregate: aggregate.to_owned(),
            position: number(position),
            through: number(position),
            why,
            parked_at: DateTime::from_millis(ambient::now().as_datetime().timestamp_millis()),
        };
        self.held.insert(aggregate.to_owned(), document);
    }

    /// Skips a message of a parked aggregate.
    pub fn passes(&mut self, aggregate: &str, position: Position) {
        if let Some(held) = self.held.get_mut(aggregate) {
            held.through = held.through.max(number(position));
        }
    }

    /// Releases an aggregate in memory; [`Parked::end`] stores it.
    pub fn forget(&mut self, aggregate: &str) {
        self.held.remove(aggregate);
    }

    /// Stores that an aggregate is parked, up to the last message of it that was skipped.
    ///
    /// # Errors
    /// The database does not answer: the checkpoint must not pass it.
    pub async fn park(&self, aggregate: &str) -> Result<(), Error> {
        let Some(held) = self.held.get(aggregate) else { return Ok(()) };
        tracing::error!(
            stream = self.stream,
            aggregate,
            position = held.position,
            why = held.why,
            "an event cannot be read: parking it with everything after it of the same aggregate"
        );
        let parked = doc! {
            "$setOnInsert": {
                "checkpoint": &held.checkpoint,
                "stream": &held.stream,
                "aggregate": &held.aggregate,
                "position": held.position,
                "why": &held.why,
                "parked_at": held.parked_at,
            },
            "$max": {"through": held.through},
        };
        self.collection.update_one(self.key(aggregate), parked).upsert(true).await.map(drop)
    }

    /// Records that everything before a position is applied and the message there cannot be read.
    ///
    /// # Errors
    /// The database does not answer: read again from the earlier position.
    pub async fn stuck(
        &mut self,
        aggregate: &str,
        position: Position,
        why: String,
    ) -> Result<(), Error> {
        let set = doc! {"$set": {"position": number(position), "why": &why}};
        self.collection.update_one(self.key(aggregate), set).await?;
        if let Some(held) = self.held.get_mut(aggregate) {
            (held.position, held.why) = (number(position), why);
        }
        Ok(())
    }

    /// Releases an aggregate that is applied up to a position, unless there is more to apply.
    ///
    /// # Errors
    /// The database does not answer: it may or may not be released.
    pub async fn release(&mut self, aggregate: &str, applied: Position) -> Result<(), Error> {
        let mut whole = self.key(aggregate);
        whole.insert("through", doc! {"$lte": number(applied)});
        if self.collection.delete_one(whole).await?.deleted_count == 1 {
            self.held.remove(aggregate);
            tracing::info!(
                stream = self.stream,
                aggregate,
                "a parked aggregate is applied and released"
            );
        }
        Ok(())
    }

    /// Releases an aggregate that reached its end: the waiting messages no longer count.
    ///
    /// # Errors
    /// The database does not answer: it may or may not be released.
    pub async fn end(&self, aggregate: &str) -> Result<(), Error> {
        self.collection.delete_one(self.key(aggregate)).await.map(drop)
    }

    fn key(&self, aggregate: &str) -> Document {
        doc! {"_id": ParkedDocument::key(&self.checkpoint, aggregate)}
    }
}

/// A position as the database stores it.
fn number(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}
