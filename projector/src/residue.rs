//! Residue of a deleted user in the views: shows whether an erasure is complete.

use std::collections::BTreeSet;

use events::{Position, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use views::{ViewSet, Views, generation_of, user_key, users_collection};

/// The members of a tombstone.
const TOMBSTONE: [&str; 4] = ["_id", "deleted_at", "position", "revision"];

/// A document about a deleted user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResidualDocument {
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub id: String,
    /// A description of its content.
    pub what: String,
}

/// The documents that the views have of a deleted user.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ViewResidue {
    /// Whether every generation has applied the deletion. Until then, more documents may appear.
    pub is_known: bool,
    /// Every document except the tombstones.
    pub documents: Vec<ResidualDocument>,
}

/// Looks for the residue of a user who was deleted by the event at a position, in every generation that exists.
///
/// # Errors
/// The database does not answer.
pub async fn residue(
    views: &Views,
    user: UserId,
    deletion: Position,
) -> Result<ViewResidue, Error> {
    let key = user_key(user);
    let deletion = i64::try_from(deletion.0).unwrap_or(i64::MAX);
    let collections = views.database().list_collection_names().await?;
    let generations = views.generations().await?;
    let mut residue = ViewResidue::default();
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
                        residue.add(
                            name,
                            &document,
                            &format!("a user with {}", members.join(", ")),
                        );
                    }
                }
            }
            Some((ViewSet::Users, _)) => {
                for document in found(doc! {"user_id": key, "_id": {"$ne": deletion}}).await? {
                    residue.add(name, &document, "an event of the history");
                }
            }
            Some((ViewSet::Sessions, _)) => {
                for document in found(doc! {"user_id": key}).await? {
                    residue.add(name, &document, "a session");
                }
            }
            None => {}
        }
    }
    residue.is_known =
        generations.state(ViewSet::Users).all().all(|number| known.contains(&number));
    Ok(residue)
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
