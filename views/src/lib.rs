//! The contract between projector and query-api: which documents stand in which collections under which
//! indexes. The projector writes them, query-api reads them, nobody else touches the database.
//!
//! A view document is the state that the user's last event carried, with the position of that event. It
//! holds no password hash. What was deleted leaves a tombstone, so that an older event that arrives
//! again (a second projector, a restored database, a replay) cannot bring it back.

mod database;
mod session;
mod user;

pub use database::Views;
pub use session::{SessionDocument, SessionView, user_key};
pub use user::{CutoffDocument, DamagedView, LivingUser, UserDocument, UserView};

use std::time::Duration;

use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;

/// Counts up when the shape of the documents changes; each generation has its own collection, so that a
/// new one can be filled beside the live one.
pub const GENERATION: u32 = 1;

/// Collection of the user views.
#[must_use]
pub fn users_collection() -> String {
    format!("users_{GENERATION}")
}

/// Collection of the session views.
#[must_use]
pub fn sessions_collection() -> String {
    format!("sessions_{GENERATION}")
}

/// Collection with one document per projection: `{_id, position}`.
pub const CHECKPOINTS: &str = "checkpoints";

/// The checkpoint of the user views.
#[must_use]
pub fn users_checkpoint() -> String {
    users_collection()
}

/// The checkpoint of the session views.
#[must_use]
pub fn sessions_checkpoint() -> String {
    sessions_collection()
}

/// Every index of the session views: the sessions of a user, and their removal.
#[must_use]
pub fn sessions_indexes() -> Vec<IndexModel> {
    let by_user = IndexOptions::builder().name("by_user".to_owned()).build();
    let removal =
        IndexOptions::builder().name("removal".to_owned()).expire_after(Duration::ZERO).build();
    vec![
        IndexModel::builder().keys(doc! {"user_id": 1, "created_at": -1}).options(by_user).build(),
        IndexModel::builder().keys(doc! {"remove_at": 1}).options(removal).build(),
    ]
}

/// Every index of the user views. Each filter and sort of the list has one; `_id` ends each of them, so
/// that the order is total and a cursor can go on behind any document.
#[must_use]
pub fn users_indexes() -> Vec<IndexModel> {
    let index = |name: &str, keys: Document| {
        IndexModel::builder()
            .keys(keys)
            .options(IndexOptions::builder().name(name.to_owned()).build())
            .build()
    };
    vec![
        index("by_created_at", doc! {"created_at": 1, "_id": 1}),
        index("by_email", doc! {"email_canonical": 1, "created_at": 1, "_id": 1}),
        index("by_role", doc! {"roles": 1, "created_at": 1, "_id": 1}),
        index("by_status", doc! {"status": 1, "created_at": 1, "_id": 1}),
        index("by_verified", doc! {"email_verified": 1, "created_at": 1, "_id": 1}),
    ]
}
