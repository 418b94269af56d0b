//! Writing folded batches to a generation, and removing data of deleted users.

use std::collections::HashSet;

use events::UserId;
use futures::TryStreamExt;
use mongodb::bson::{Bson, doc};
use mongodb::error::Error;
use view_kit::store::{self, StoreError, delete};
use views::{
    Generations, UserDocument, ViewSet, Views, history_collection, history_indexes,
    logins_checkpoint, sessions_checkpoint, sessions_collection, sessions_indexes, user_key,
    users_indexes,
};

use crate::fold::IntoView;
use crate::generations::View;

/// Creates the indexes of a generation; existing ones stay.
///
/// # Errors
/// [`StoreError::Database`]: try again.
pub async fn prepare(views: &Views, set: ViewSet, generation: u32) -> Result<(), StoreError> {
    match set {
        ViewSet::Users => {
            views.users(generation).create_indexes(users_indexes()).await?;
            views.history(generation).create_indexes(history_indexes()).await?;
        }
        ViewSet::Sessions => {
            views.sessions(generation).create_indexes(sessions_indexes()).await?;
        }
    }
    Ok(())
}

/// Writes the documents of a batch to a generation and returns the generations that existed afterwards.
/// [`store::checkpoint`] moves the checkpoint afterwards: after a crash in between, the batch is applied again without
/// effect.
///
/// # Errors
/// [`StoreError`]: part of it may be written. Write the batch again.
pub async fn write<F: IntoView>(
    views: &Views,
    generation: u32,
    batch: &F,
) -> Result<Generations, StoreError> {
    store::write(views, generation, batch).await?;
    // Read after the documents are written: a generation that is created later reads the log later, too, and sees what
    // is written here.
    let generations = views.generations().await?;
    erase::<F>(views, generation, batch.added_to(), &generations).await?;
    Ok(generations)
}

/// Removes the sessions of deleted users, and their history except the deletion itself: entries from before, and those
/// that a replay or a login that raced the deletion has just written. It runs after the documents are written, for
/// every generation of the other set. The follower that applies the deletion writes the tombstone first and erases
/// afterwards, so one of the two always sees the other's write.
async fn erase<F: IntoView>(
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
            for sessions in generations.state(ViewSet::Sessions).all() {
                erase_sessions(views, sessions, &tombstones).await?;
            }
        }
        View::Sessions => {
            for of_users in generations.state(ViewSet::Users).all() {
                let tombstones = tombstones(views, of_users, &users).await?;
                erase_sessions(views, generation, &tombstones).await?;
            }
        }
        View::Logins => {}
    }
    Ok(())
}

/// Which of some users are deleted, according to a generation.
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

/// Gives the logins of the first generation their own checkpoint, in a database of a version that stored them under the
/// checkpoint of the sessions.
///
/// # Errors
/// The database does not answer: call again before anything is written.
pub async fn adopt_logins(views: &Views, generations: &Generations) -> Result<(), Error> {
    let (users, sessions) =
        (generations.state(ViewSet::Users), generations.state(ViewSet::Sessions));
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
