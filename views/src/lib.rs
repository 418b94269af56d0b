//! The contract between projector and query-api: which documents are in which collections, and with which indexes. The
//! projector writes them, query-api reads them, and nothing else touches the database.
//!
//! A view document is the state that the user's last event carried, with the position of that event. It holds no
//! password hash. `view-kit` stores checkpoints and what is parked. A deleted document leaves a tombstone, so that an
//! older event that is delivered again (a second projector, a restored database, a replay) cannot bring it back.

mod database;
mod generation;
mod history;
mod session;
mod user;

pub use database::Views;
pub use generation::{
    Generations, NotInPhase, Phase, Standby, ViewSet, ViewSetState, generation_of,
};
pub use history::{HistoryDocument, HistoryEntry};
pub use session::{SessionDocument, SessionView, user_key};
pub use user::{
    CutoffDocument, DamagedView, LivingUser, UserDocument, UserView, email_key, name_key,
};

use std::time::Duration;

use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;

/// Collection of the user views of a generation.
#[must_use]
pub fn users_collection(generation: u32) -> String {
    format!("users_{generation}")
}

/// Collection of the history of users.
#[must_use]
pub fn history_collection(generation: u32) -> String {
    format!("user_history_{generation}")
}

/// Collection of the session views of a generation.
#[must_use]
pub fn sessions_collection(generation: u32) -> String {
    format!("sessions_{generation}")
}

/// Increase it when the documents of the user views get more members, or more documents are written from the same
/// events. It is part of the checkpoint's name: a database with an older layout has no such checkpoint, so the
/// projector starts with the first event and writes every document again.
pub const USERS_LAYOUT: u32 = 4;

/// The checkpoint of the user views.
#[must_use]
pub fn users_checkpoint(generation: u32) -> String {
    format!("{}_layout_{USERS_LAYOUT}", users_collection(generation))
}

/// Checkpoint: how far the documents of users were written from the last event of each user, before the events were
/// read one by one.
#[must_use]
pub fn states_checkpoint(generation: u32) -> String {
    format!("{}_states", users_checkpoint(generation))
}

/// Checkpoint while they are being written, so that a restart does not begin with the first of them.
#[must_use]
pub fn states_begun_checkpoint(generation: u32) -> String {
    format!("{}_begun", states_checkpoint(generation))
}

/// The checkpoint of the members of user views that come from the log of sessions.
#[must_use]
pub fn logins_checkpoint(generation: u32) -> String {
    format!("{}_logins", users_collection(generation))
}

/// The checkpoint of the session views.
#[must_use]
pub fn sessions_checkpoint(generation: u32) -> String {
    sessions_collection(generation)
}

/// All indexes of the session views: the sessions of a user, and their removal.
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

/// All indexes of the history: the events of a user, in order.
#[must_use]
pub fn history_indexes() -> Vec<IndexModel> {
    let by_user = IndexOptions::builder().name("by_user".to_owned()).build();
    vec![IndexModel::builder().keys(doc! {"user_id": 1, "_id": 1}).options(by_user).build()]
}

/// Names of the indexes for the list of users: a query names the one that is made for it.
pub mod index {
    /// All users in order of `created_at`.
    pub const BY_CREATED_AT: &str = "by_created_at";
    /// One address, in order of `created_at`.
    pub const BY_EMAIL: &str = "by_email";
    /// One role, in order of `created_at`.
    pub const BY_ROLE: &str = "by_role";
    /// One status, in order of `created_at`.
    pub const BY_STATUS: &str = "by_status";
    /// Verified or not, in order of `created_at`.
    pub const BY_VERIFIED: &str = "by_verified";
    /// All users in order of their addresses.
    pub const IN_ORDER_OF_EMAIL: &str = "in_order_of_email";
    /// All users in order of their names.
    pub const IN_ORDER_OF_NAME: &str = "in_order_of_name";
    /// All users in order of their last logins.
    pub const IN_ORDER_OF_LOGIN: &str = "in_order_of_login";
    /// The words that `q` is matched against.
    pub const BY_WORD: &str = "by_word";
}

/// All indexes of the user views. Each filter and each sort of the list has one; each ends with `_id`, so that the
/// order is total and a cursor can continue after any document.
#[must_use]
pub fn users_indexes() -> Vec<IndexModel> {
    let index = |name: &str, keys: Document, filter: Option<Document>| {
        let options =
            IndexOptions::builder().name(name.to_owned()).partial_filter_expression(filter).build();
        IndexModel::builder().keys(keys).options(options).build()
    };
    let filtered =
        |name: &str, member: &str| index(name, doc! {member: 1, "created_at": 1, "_id": 1}, None);
    // Tombstones, and users of whom only a login is known yet, have no `created_at`.
    let living = doc! {"created_at": {"$exists": true}};
    let sorted =
        |name: &str, member: &str| index(name, doc! {member: 1, "_id": 1}, Some(living.clone()));
    vec![
        index(index::BY_CREATED_AT, doc! {"created_at": 1, "_id": 1}, None),
        filtered(index::BY_EMAIL, "email_canonical"),
        filtered(index::BY_ROLE, "roles"),
        filtered(index::BY_STATUS, "status"),
        filtered(index::BY_VERIFIED, "email_verified"),
        sorted(index::IN_ORDER_OF_EMAIL, "email_canonical"),
        sorted(index::IN_ORDER_OF_NAME, "name_key"),
        sorted(index::IN_ORDER_OF_LOGIN, "last_login_at"),
        index(index::BY_WORD, doc! {"search": 1}, Some(living)),
    ]
}
