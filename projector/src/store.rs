//! Writing what was folded: the only code that changes views.

use std::collections::HashSet;

use events::{Position, Timestamp, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use views::{
    UserDocument, Views, history_collection, history_indexes, sessions_collection,
    sessions_indexes, user_key, users_indexes,
};

use crate::fold::Fold;
use crate::lineage::date;

/// Updates in one command: with documents of their largest size it stays below the 48 MB of a message.
const UPDATES_MAX: usize = 1_000;

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
    views.history().create_indexes(history_indexes()).await?;
    views.sessions().create_indexes(sessions_indexes()).await?;
    Ok(())
}

/// Writes the documents of a batch. The checkpoint follows with [`checkpoint`]: killed in between, the
/// batch is applied again to no effect.
///
/// # Errors
/// [`StoreError`]: some of it may be written. Write the batch again.
pub async fn write(views: &Views, batch: &impl Fold) -> Result<(), StoreError> {
    for (collection, updates) in batch.writes()? {
        for updates in updates.chunks(UPDATES_MAX) {
            run(views, doc! {"update": &collection, "updates": updates.to_vec()}).await?;
        }
    }
    erase(views, batch.added_to()).await
}

/// Removes the sessions of those who are deleted, and their history but for the deletion itself: what was
/// there before, and what a replay, or a login that raced the deletion, has just written. It is done after the
/// documents are written: whoever deletes a user at the same moment writes the tombstone first and erases
/// then, so that one of the two finds the other's.
async fn erase(views: &Views, users: HashSet<UserId>) -> Result<(), StoreError> {
    let users: Vec<Bson> = users.into_iter().map(|user| user_key(user).into()).collect();
    if users.is_empty() {
        return Ok(());
    }
    let deleted = doc! {"_id": {"$in": users}, "deleted_at": {"$exists": true}};
    let tombstones: Vec<UserDocument> = views.users().find(deleted).await?.try_collect().await?;
    if tombstones.is_empty() {
        return Ok(());
    }
    let before = |tombstone: &UserDocument| {
        let entries = doc! {"user_id": tombstone.id, "_id": {"$lt": tombstone.position}};
        doc! {"q": entries, "limit": 0}
    };
    let deletes: Vec<Document> = tombstones.iter().map(before).collect();
    run(views, doc! {"delete": history_collection(), "deletes": deletes}).await?;
    let of_all = |tombstone: &UserDocument| doc! {"q": {"user_id": tombstone.id}, "limit": 0};
    let deletes: Vec<Document> = tombstones.iter().map(of_all).collect();
    run(views, doc! {"delete": sessions_collection(), "deletes": deletes}).await
}

/// Runs a command that writes, unordered. The driver's bulk write needs a server 8; the commands behind it
/// are there in every version.
async fn run(views: &Views, mut command: Document) -> Result<(), StoreError> {
    command.extend(doc! {"ordered": false, "writeConcern": {"w": "majority"}});
    let answer = views.database().run_command(command).await?;
    if let Ok(failed) = answer.get_array("writeErrors") {
        let first = failed.first().map(Bson::to_string).unwrap_or_default();
        return Err(StoreError::Partly(failed.len(), first));
    }
    if let Ok(failed) = answer.get_document("writeConcernError") {
        return Err(StoreError::Partly(0, failed.to_string()));
    }
    Ok(())
}

/// Moves a checkpoint to a position whose documents are written. It never goes back. `stored_at` says when the
/// message there was stored, by which it is known again; of two projectors the one that is further ahead has the word.
///
/// # Errors
/// [`StoreError::Database`]: begin again from the checkpoint that is there.
pub async fn checkpoint(
    views: &Views,
    name: &str,
    position: Position,
    stored_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let position = i64::try_from(position.0).unwrap_or(i64::MAX);
    let mut moved = doc! {"position": position};
    if let Some(stored_at) = stored_at {
        // Documents are compared member by member: the position decides.
        moved.insert("last", doc! {"position": position, "stored_at": date(stored_at)});
    }
    views.checkpoints().update_one(doc! {"_id": name}, doc! {"$max": moved}).upsert(true).await?;
    Ok(())
}
