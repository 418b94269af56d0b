//! Writing what was folded: the only code that changes views.

use std::collections::HashSet;

use events::{Position, Timestamp, UserId};
use futures::TryStreamExt;
use futures::future::try_join_all;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use views::{
    Generations, Kind, UserDocument, Views, history_collection, history_indexes, logins_checkpoint,
    sessions_checkpoint, sessions_collection, sessions_indexes, user_key, users_indexes,
};

use crate::fold::Fold;
use crate::generations::View;
use crate::lineage::date;

/// Updates in one command: with documents of their largest size it stays below the 48 MB of a message. Those of one
/// batch are under way at once, and wait for the disk once.
const UPDATES_MAX: usize = 1_000;

/// Code of the database for an `_id` that is taken.
const DUPLICATE_KEY: i32 = 11_000;

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

/// Makes the indexes of a generation; those that are there stay.
///
/// # Errors
/// [`StoreError::Database`]: try again.
pub async fn prepare(views: &Views, kind: Kind, generation: u32) -> Result<(), StoreError> {
    match kind {
        Kind::Users => {
            views.users(generation).create_indexes(users_indexes()).await?;
            views.history(generation).create_indexes(history_indexes()).await?;
        }
        Kind::Sessions => {
            views.sessions(generation).create_indexes(sessions_indexes()).await?;
        }
    }
    Ok(())
}

/// Writes the documents of a batch to a generation; the generations that there were afterwards. The checkpoint
/// follows with [`checkpoint`]: killed in between, the batch is applied again to no effect.
///
/// # Errors
/// [`StoreError`]: some of it may be written. Write the batch again.
pub async fn write<F: Fold>(
    views: &Views,
    generation: u32,
    batch: &F,
) -> Result<Generations, StoreError> {
    for (collection, updates) in batch.writes(generation)? {
        let commands = updates
            .chunks(UPDATES_MAX)
            .map(|updates| run(views, doc! {"update": &collection, "updates": updates.to_vec()}));
        try_join_all(commands).await?;
    }
    if let Some((collection, documents)) = batch.inserts(generation)? {
        let commands = documents.chunks(UPDATES_MAX);
        try_join_all(commands.map(|documents| insert(views, &collection, documents))).await?;
    }
    // Asked after the documents are there: who makes a generation that is not among these reads the log later,
    // and finds what is written here.
    let generations = views.generations().await?;
    erase::<F>(views, generation, batch.added_to(), &generations).await?;
    Ok(generations)
}

/// Removes the sessions of those who are deleted, and their history but for the deletion itself: what was
/// there before, and what a replay, or a login that raced the deletion, has just written. It is done after the
/// documents are written, for every generation of the other kind: whoever deletes a user at the same moment
/// writes the tombstone first and erases then, so that one of the two finds the other's.
async fn erase<F: Fold>(
    views: &Views,
    generation: u32,
    users: HashSet<UserId>,
    generations: &Generations,
) -> Result<(), StoreError> {
    let users: Vec<Bson> = users.into_iter().map(|user| user_key(user).into()).collect();
    if users.is_empty() {
        return Ok(());
    }
    match F::VIEW {
        View::Users => {
            let tombstones = tombstones(views, generation, &users).await?;
            erase_history(views, generation, &tombstones).await?;
            for sessions in generations.of(Kind::Sessions).all() {
                erase_sessions(views, sessions, &tombstones).await?;
            }
        }
        View::Sessions => {
            for of_users in generations.of(Kind::Users).all() {
                let tombstones = tombstones(views, of_users, &users).await?;
                erase_sessions(views, generation, &tombstones).await?;
            }
        }
        View::Logins => {}
    }
    Ok(())
}

/// Those of some users who are deleted, as a generation knows it.
async fn tombstones(
    views: &Views,
    generation: u32,
    users: &[Bson],
) -> Result<Vec<UserDocument>, StoreError> {
    let deleted = doc! {"_id": {"$in": users}, "deleted_at": {"$exists": true}};
    Ok(views.users(generation).find(deleted).await?.try_collect().await?)
}

async fn erase_history(
    views: &Views,
    generation: u32,
    tombstones: &[UserDocument],
) -> Result<(), StoreError> {
    let before = |tombstone: &UserDocument| {
        let entries = doc! {"user_id": tombstone.id, "_id": {"$lt": tombstone.position}};
        doc! {"q": entries, "limit": 0}
    };
    delete(views, &history_collection(generation), tombstones.iter().map(before)).await
}

async fn erase_sessions(
    views: &Views,
    generation: u32,
    tombstones: &[UserDocument],
) -> Result<(), StoreError> {
    let of_all = |tombstone: &UserDocument| doc! {"q": {"user_id": tombstone.id}, "limit": 0};
    delete(views, &sessions_collection(generation), tombstones.iter().map(of_all)).await
}

async fn delete(
    views: &Views,
    collection: &str,
    deletes: impl Iterator<Item = Document>,
) -> Result<(), StoreError> {
    let deletes: Vec<Document> = deletes.collect();
    if deletes.is_empty() {
        return Ok(());
    }
    run(views, doc! {"delete": collection, "deletes": deletes}).await
}

/// Inserts documents, which costs half of what it costs to look for each first. One that is there already is
/// written again: it comes out the same, or in the layout of today.
async fn insert(views: &Views, collection: &str, documents: &[Document]) -> Result<(), StoreError> {
    if documents.is_empty() {
        return Ok(());
    }
    let answer = send(views, doc! {"insert": collection, "documents": documents}).await?;
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
    run(views, doc! {"update": collection, "updates": updates}).await
}

/// Runs a command that writes, unordered. The driver's bulk write needs a server 8; the commands behind it
/// are there in every version.
async fn run(views: &Views, command: Document) -> Result<(), StoreError> {
    done(&send(views, command).await?)
}

async fn send(views: &Views, mut command: Document) -> Result<Document, StoreError> {
    command.extend(doc! {"ordered": false, "writeConcern": {"w": "majority"}});
    Ok(views.database().run_command(command).await?)
}

/// Whether all of it was written.
fn done(answer: &Document) -> Result<(), StoreError> {
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

/// Gives the logins of the first generation a checkpoint in a database of a version that had them written with
/// the sessions, under the checkpoint of those.
///
/// # Errors
/// The database does not answer: call again before anything is written.
pub async fn adopt_logins(views: &Views, generations: &Generations) -> Result<(), Error> {
    let (users, sessions) = (generations.of(Kind::Users), generations.of(Kind::Sessions));
    if generations.version() > 0 {
        return Ok(());
    }
    let position = views.position(&sessions_checkpoint(sessions.live)).await?;
    let position = i64::try_from(position.0).unwrap_or(i64::MAX);
    views
        .checkpoints()
        .update_one(
            doc! {"_id": logins_checkpoint(users.live)},
            doc! {"$setOnInsert": {"position": position}},
        )
        .upsert(true)
        .await?;
    Ok(())
}
