//! Writing what was folded: the only code that changes views.

use events::Position;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use views::{Views, sessions_indexes, users_indexes};

use crate::fold::Fold;

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
        if !updates.is_empty() {
            update(views, &collection, updates).await?;
        }
    }
    Ok(())
}

async fn update(views: &Views, collection: &str, updates: Vec<Document>) -> Result<(), StoreError> {
    // The driver's bulk write needs a server 8; the command behind it is there in every version.
    let answer = views
        .database()
        .run_command(doc! {
            "update": collection,
            "updates": updates,
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

/// Moves a checkpoint to a position whose documents are written. It never goes back.
///
/// # Errors
/// [`StoreError::Database`]: begin again from the checkpoint that is there.
pub async fn checkpoint(views: &Views, name: &str, position: Position) -> Result<(), StoreError> {
    views
        .checkpoints()
        .update_one(
            doc! {"_id": name},
            doc! {"$max": {"position": i64::try_from(position.0).unwrap_or(i64::MAX)}},
        )
        .upsert(true)
        .await?;
    Ok(())
}
