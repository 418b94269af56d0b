//! Writing folded messages: the only code that changes documents of views.

use events::{Position, Timestamp};
use futures::future::try_join_all;
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;

use crate::database::ViewDatabase;
use crate::database_error::{DatabaseError, of_code};
use crate::fold::{Fold, Inserts, Writes};
use crate::lineage::date;

/// Updates in one command. With documents of their largest size it stays below the 48 MB of a message. The commands of
/// one batch run concurrently, and wait for the disk once.
const UPDATES_MAX: usize = 1_000;

/// The database's code for an `_id` that exists.
const DUPLICATE_KEY: i32 = 11_000;

/// A write failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database does not answer, or rejects the write.
    #[error(transparent)]
    Database(DatabaseError),
    /// A document cannot be encoded as BSON.
    #[error("a view document cannot be encoded: {0}")]
    Encode(#[from] BsonError),
    /// Some of the writes failed.
    #[error("the database rejected {0} writes: {1}")]
    Partly(usize, String),
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        Self::Database(error.into())
    }
}

/// Writes the documents of a batch to the collections with a number. [`checkpoint`] moves the checkpoint afterwards:
/// after a crash in between, the batch is applied again without effect.
///
/// # Errors
/// [`StoreError`]: part of it may be written. Write the batch again.
pub async fn write(
    database: &ViewDatabase,
    number: u32,
    batch: &impl Fold,
) -> Result<(), StoreError> {
    for Writes { collection, updates } in batch.writes(number)? {
        let commands = updates.chunks(UPDATES_MAX).map(|updates| {
            run(database, doc! {"update": &collection, "updates": updates.to_vec()})
        });
        try_join_all(commands).await?;
    }
    if let Some(Inserts { collection, documents }) = batch.inserts(number)? {
        let commands = documents.chunks(UPDATES_MAX);
        try_join_all(commands.map(|documents| insert(database, &collection, documents))).await?;
    }
    Ok(())
}

/// Deletes documents: items of the `delete` command.
///
/// # Errors
/// [`StoreError`]: some of them may be deleted. Delete them again.
pub async fn delete(
    database: &ViewDatabase,
    collection: &str,
    deletes: impl Iterator<Item = Document>,
) -> Result<(), StoreError> {
    let deletes: Vec<Document> = deletes.collect();
    if deletes.is_empty() {
        return Ok(());
    }
    run(database, doc! {"delete": collection, "deletes": deletes}).await
}

/// Inserts documents, at half the cost of looking for each first. A document that exists is written again: it has the
/// same content, or today's layout.
async fn insert(
    database: &ViewDatabase,
    collection: &str,
    documents: &[Document],
) -> Result<(), StoreError> {
    if documents.is_empty() {
        return Ok(());
    }
    let answer = send(database, doc! {"insert": collection, "documents": documents}).await?;
    let Ok(refused) = answer.get_array("writeErrors") else { return done(&answer) };
    let mut updates = Vec::with_capacity(refused.len());
    for refused in refused.iter().filter_map(Bson::as_document) {
        let there = usize::try_from(refused.get_i32("index").unwrap_or(-1)).ok();
        let there = there.and_then(|index| documents.get(index));
        match there.filter(|_| refused.get_i32("code").is_ok_and(|code| code == DUPLICATE_KEY)) {
            Some(there) => updates.push(doc! {
                "q": {"_id": there.get("_id").cloned().unwrap_or(Bson::Null)},
                "u": there.clone(),
                "upsert": true,
            }),
            None => return done(&answer),
        }
    }
    run(database, doc! {"update": collection, "updates": updates}).await
}

/// Runs a write command, unordered. The driver's bulk write needs server version 8; these commands exist in every
/// version.
async fn run(database: &ViewDatabase, command: Document) -> Result<(), StoreError> {
    done(&send(database, command).await?)
}

async fn send(database: &ViewDatabase, mut command: Document) -> Result<Document, StoreError> {
    command.extend(doc! {"ordered": false, "writeConcern": {"w": "majority"}});
    Ok(database.database().run_command(command).await?)
}

/// Whether everything was written.
fn done(answer: &Document) -> Result<(), StoreError> {
    if let Ok(failed) = answer.get_array("writeErrors") {
        let first = failed.first().and_then(Bson::as_document).map(refusal).unwrap_or_default();
        return Err(StoreError::Partly(failed.len(), first));
    }
    if let Ok(failed) = answer.get_document("writeConcernError") {
        return Err(StoreError::Partly(0, refusal(failed)));
    }
    Ok(())
}

/// Why a write was rejected. The server's text may repeat the document, so it is not used.
fn refusal(failed: &Document) -> String {
    of_code(failed.get_i32("code").unwrap_or(0), failed.get_str("codeName").unwrap_or_default())
}

/// Moves a checkpoint to a position whose documents are written. It never moves back. `stored_at` is when the message
/// there was stored, by which the log is recognised; of two projectors the one that is further ahead decides.
///
/// # Errors
/// [`StoreError::Database`]: begin again from the stored checkpoint.
pub async fn checkpoint(
    database: &ViewDatabase,
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
    let moved = doc! {"$max": moved};
    database.checkpoints().update_one(doc! {"_id": name}, moved).upsert(true).await?;
    Ok(())
}
