//! The database with the views of users and sessions.

use std::ops::Deref;

use mongodb::Collection;
use view_kit::{OpenError, ViewDatabase};

use crate::{
    HistoryDocument, SessionDocument, UserDocument, history_collection, sessions_collection,
    users_collection,
};

/// The database of the views. Cheap to clone.
#[derive(Clone)]
pub struct Views(ViewDatabase);

/// The members of every database with views.
impl Deref for Views {
    type Target = ViewDatabase;

    fn deref(&self) -> &ViewDatabase {
        &self.0
    }
}

impl Views {
    /// Opens the database. The driver connects, and reconnects, as needed.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(url: &str, database: &str) -> Result<Self, OpenError> {
        Ok(Self(ViewDatabase::open(url, database, "roster").await?))
    }

    /// The user views.
    #[must_use]
    pub fn users(&self, generation: u32) -> Collection<UserDocument> {
        self.database().collection(&users_collection(generation))
    }

    /// The history of users.
    #[must_use]
    pub fn history(&self, generation: u32) -> Collection<HistoryDocument> {
        self.database().collection(&history_collection(generation))
    }

    /// The session views.
    #[must_use]
    pub fn sessions(&self, generation: u32) -> Collection<SessionDocument> {
        self.database().collection(&sessions_collection(generation))
    }
}
