//! What the views say, in few numbers: to tell whether two generations of them say the same.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::TryStreamExt;
use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};

/// Of each kind of document how many there are, and a hash over all of them in the order of their ids.
pub type Digest = BTreeMap<&'static str, (u64, u64)>;

/// The digest of a generation of the users and of one of the sessions.
pub async fn digest(views: &Database, users: u32, sessions: u32) -> Digest {
    let mut digest = Digest::new();
    for (kind, generation) in [("users", users), ("user_history", users), ("sessions", sessions)] {
        let collection = views.collection::<Document>(&format!("{kind}_{generation}"));
        let mut documents = collection.find(doc! {}).sort(doc! {"_id": 1}).await.unwrap();
        let (mut count, mut hasher) = (0, DefaultHasher::new());
        while let Some(document) = documents.try_next().await.unwrap() {
            // Members have no order: which comes first depends on what was written first.
            let members: BTreeMap<String, Bson> = document.into_iter().collect();
            format!("{members:?}").hash(&mut hasher);
            count += 1;
        }
        digest.insert(kind, (count, hasher.finish()));
    }
    digest
}
