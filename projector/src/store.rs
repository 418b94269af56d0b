//! Folding events and writing the result: the only code that changes views.

use std::collections::HashMap;

use events::{Position, Snapshot, UserId};
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use views::{UserDocument, Views, users_checkpoint, users_collection, users_indexes};

/// Events folded to the last state of each user: one write per document, whatever their number.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    users: HashMap<UserId, (Position, Snapshot)>,
    end: Position,
}

impl Batch {
    /// Takes in the next event. An older one than what is there changes nothing.
    pub fn add(&mut self, position: Position, after: Snapshot) {
        self.end = self.end.max(position);
        let slot = self.users.entry(after.user_id()).or_insert_with(|| (position, after.clone()));
        if slot.0 < position {
            *slot = (position, after);
        }
    }

    /// Position of the last event.
    #[must_use]
    pub const fn end(&self) -> Position {
        self.end
    }

    fn documents(&self) -> impl Iterator<Item = UserDocument> {
        self.users.values().map(|(position, after)| UserDocument::project(after, *position))
    }
}

/// What could not be written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or refuses.
    #[error("the database: {0}")]
    Database(#[from] Error),
    /// A document cannot be BSON.
    #[error("a view document cannot be encoded: {0}")]
    Encode(#[from] mongodb::bson::error::Error),
    /// Some of the writes failed.
    #[error("the database refused {0} writes: {1}")]
    Partly(usize, String),
}

/// Makes the indexes; those that are there stay.
///
/// # Errors
/// [`StoreError::Database`]: try again.
pub async fn prepare(views: &Views) -> Result<(), StoreError> {
    views.users().create_indexes(users_indexes()).await?;
    Ok(())
}

/// Writes the documents of a batch. The checkpoint follows with [`checkpoint`]: killed in between, the
/// batch is applied again to no effect.
///
/// # Errors
/// [`StoreError`]: some of it may be written. Write the batch again.
pub async fn write(views: &Views, batch: &Batch) -> Result<(), StoreError> {
    let updates: Result<Vec<Document>, _> = batch.documents().map(|d| guarded_update(&d)).collect();
    // The driver's bulk write needs a server 8; the command behind it is there in every version.
    let answer = views
        .database()
        .run_command(doc! {
            "update": users_collection(),
            "updates": updates?,
            "ordered": false,
            "writeConcern": {"w": "majority"},
        })
        .await?;
    if let Ok(failed) = answer.get_array("writeErrors") {
        let first = failed.first().map(Bson::to_string).unwrap_or_default();
        return Err(StoreError::Partly(failed.len(), first));
    }
    if let Ok(failed) = answer.get_document("writeConcernError") {
        return Err(StoreError::Partly(0, failed.to_string()));
    }
    Ok(())
}

/// Moves the checkpoint to a position whose documents are written. It never goes back.
///
/// # Errors
/// [`StoreError::Database`]: begin again from the checkpoint that is there.
pub async fn checkpoint(views: &Views, position: Position) -> Result<(), StoreError> {
    views
        .checkpoints()
        .update_one(
            doc! {"_id": users_checkpoint()},
            doc! {"$max": {"position": i64::try_from(position.0).unwrap_or(i64::MAX)}},
        )
        .upsert(true)
        .await?;
    Ok(())
}

/// Replaces a document unless it comes from the same or a later position. As a pipeline, so that the
/// comparison is part of the write and an existing newer document is no duplicate-key error; `$literal`,
/// because a name may begin with `$`.
fn guarded_update(document: &UserDocument) -> Result<Document, mongodb::bson::error::Error> {
    let newer = doc! {"$lt": [{"$ifNull": ["$position", -1_i64]}, document.position]};
    Ok(doc! {
        "q": {"_id": document.id},
        "u": [{"$replaceWith": {"$cond": [newer, {"$literal": document.to_bson()?}, "$$ROOT"]}}],
        "upsert": true,
    })
}
