//! Putting aside what cannot be read: the message, and behind it everything of the same aggregate, so that its
//! order holds. Everything else goes on.
//!
//! What is parked stands in the database beside the checkpoint, since it says of the views what they lack. The
//! messages stay where they are, in the log; letting an aggregate go is reading it again from there.
//!
//! Two projectors may do this at once. Whoever passes a message over has marked before that it waits
//! ([`Parked::wait`]), and an aggregate is let go only by somebody who has read up to the last mark
//! ([`Parked::release`]), as one operation of the database each. So either the one sees that nothing is parked any
//! more and applies the message, or the other sees that there is more to apply.

use std::collections::HashMap;

use events::Position;
use futures::TryStreamExt;
use mongodb::Collection;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::error::Error;
use service_kit::ambient;

use crate::database::ViewDatabase;
use crate::parked_document::ParkedDocument;

/// What the views behind one checkpoint have put aside.
pub struct Parked {
    collection: Collection<ParkedDocument>,
    checkpoint: String,
    stream: &'static str,
    held: HashMap<String, ParkedDocument>,
}

impl Parked {
    /// What is put aside now.
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

    /// Looks again: another projector may have put something aside.
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

    /// Whether an aggregate is.
    #[must_use]
    pub fn holds(&self, aggregate: &str) -> bool {
        self.held.contains_key(aggregate)
    }

    /// Those that are, and from which position on.
    #[must_use]
    pub fn aggregates(&self) -> Vec<(String, Position)> {
        self.held.values().map(|held| (held.aggregate.clone(), held.position())).collect()
    }

    /// Marks that messages of parked aggregates wait, up to a position each. One that another projector has let
    /// go meanwhile is not parked any more.
    ///
    /// # Errors
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

    /// Holds an aggregate back from here on, in memory; [`Parked::park`] writes it down.
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

    /// Passes a message over of an aggregate that is held back.
    pub fn passes(&mut self, aggregate: &str, position: Position) {
        if let Some(held) = self.held.get_mut(aggregate) {
            held.through = held.through.max(number(position));
        }
    }

    /// Holds an aggregate back no longer, in memory; [`Parked::end`] writes it down.
    pub fn forget(&mut self, aggregate: &str) {
        self.held.remove(aggregate);
    }

    /// Writes down that an aggregate is parked, up to the last message of it that was passed over.
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
            "an event cannot be read: it is parked, with everything behind it of the same aggregate"
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

    /// Everything before a position is applied, and what stands there cannot be read.
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

    /// Lets an aggregate go of which everything is applied up to a position, unless there is more to apply.
    ///
    /// # Errors
    /// The database does not answer: it may be let go or not.
    pub async fn release(&mut self, aggregate: &str, applied: Position) -> Result<(), Error> {
        let mut whole = self.key(aggregate);
        whole.insert("through", doc! {"$lte": number(applied)});
        if self.collection.delete_one(whole).await?.deleted_count == 1 {
            self.held.remove(aggregate);
            tracing::info!(stream = self.stream, aggregate, "what was parked is applied");
        }
        Ok(())
    }

    /// Lets an aggregate go that has come to its end: nothing that waits counts any more.
    ///
    /// # Errors
    /// The database does not answer: it may be let go or not.
    pub async fn end(&self, aggregate: &str) -> Result<(), Error> {
        self.collection.delete_one(self.key(aggregate)).await.map(drop)
    }

    fn key(&self, aggregate: &str) -> Document {
        doc! {"_id": ParkedDocument::key(&self.checkpoint, aggregate)}
    }
}

/// As the database has it.
fn number(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}
