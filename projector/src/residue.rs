//! What is left of a user in the views: the proof that an erasure is done.

use std::collections::BTreeSet;

use events::{Position, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use views::{ViewSet, Views, generation_of, user_key, users_collection};

/// What a tombstone consists of.
const TOMBSTONE: [&str; 4] = ["_id", "deleted_at", "position", "revision"];

/// A document about a user who is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidualDocument {
    /// Where it stands.
    pub collection: String,
    /// Its id.
    pub id: String,
    /// What it is.
    pub what: String,
}

/// What the views have of a user who is deleted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ViewResidue {
    /// Whether every generation of them knows of the deletion. Before it does, more may come.
    pub is_known: bool,
    /// Every document but the tombstones.
    pub documents: Vec<ResidualDocument>,
}

/// Looks for a user who was deleted by the event at a position, in the views of today and in those of other
/// generations that are still there.
///
/// # Errors
/// The database does not answer.
pub async fn left(views: &Views, user: UserId, deletion: Position) -> Result<ViewResidue, Error> {
    let key = user_key(user);
    let deletion = i64::try_from(deletion.0).unwrap_or(i64::MAX);
    let collections = views.database().list_collection_names().await?;
    let generations = views.generations().await?;
    let mut left = ViewResidue::default();
    let mut known = BTreeSet::new();
    for name in &collections {
        let found = |filter| find(views, name, filter);
        match generation_of(name) {
            Some((ViewSet::Users, number)) if *name == users_collection(number) => {
                for document in found(doc! {"_id": key}).await? {
                    let members =
                        document.keys().filter(|member| !TOMBSTONE.contains(&member.as_str()));
                    let members: Vec<&str> = members.map(String::as_str).collect();
                    if members.is_empty() {
                        known.insert(number);
                    } else {
                        left.add(name, &document, &format!("a user with {}", members.join(", ")));
                    }
                }
            }
            Some((ViewSet::Users, _)) => {
                for document in found(doc! {"user_id": key, "_id": {"$ne": deletion}}).await? {
                    left.add(name, &document, "an event of the history");
                }
            }
            Some((ViewSet::Sessions, _)) => {
                for document in found(doc! {"user_id": key}).await? {
                    left.add(name, &document, "a session");
                }
            }
            None => {}
        }
    }
    left.is_known = generations.of(ViewSet::Users).all().all(|number| known.contains(&number));
    Ok(left)
}

impl ViewResidue {
    fn add(&mut self, collection: &str, document: &Document, what: &str) {
        let id = match document.get("_id") {
            Some(Bson::Binary(id)) => {
                id.to_uuid().map_or_else(|_| "not a UUID".to_owned(), |id| id.to_string())
            }
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let (collection, what) = (collection.to_owned(), what.to_owned());
        self.documents.push(ResidualDocument { collection, id, what });
    }
}

async fn find(views: &Views, collection: &str, filter: Document) -> Result<Vec<Document>, Error> {
    views.database().collection::<Document>(collection).find(filter).await?.try_collect().await
}
