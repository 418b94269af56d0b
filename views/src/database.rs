//! The connection to MongoDB, the same for who writes views and who reads them.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection, Database};

use events::Position;

use crate::{
    CHECKPOINTS, HistoryDocument, PARKED, ParkedDocument, SessionDocument, UserDocument,
    history_collection, sessions_collection, users_collection,
};

/// Time to find a primary. A request that waits longer than this is better refused.
const SELECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The database of the views. Cheap to clone.
#[derive(Clone)]
pub struct Views {
    database: Database,
}

impl Views {
    /// Opens the database. Nothing is connected yet; the driver does so, and again, as needed.
    ///
    /// # Errors
    /// The connection string is not valid.
    pub async fn open(url: &str, database: &str) -> Result<Self, mongodb::error::Error> {
        let mut options = ClientOptions::parse(url).await?;
        options.app_name = Some("roster".to_owned());
        options.server_selection_timeout = Some(SELECT_TIMEOUT);
        options.connect_timeout = Some(SELECT_TIMEOUT);
        // What was read must not be rolled back, and what was written must not be lost.
        options.write_concern = Some(WriteConcern::majority());
        options.read_concern = Some(ReadConcern::local());
        Ok(Self { database: Client::with_options(options)?.database(database) })
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// It is not.
    pub async fn ping(&self) -> Result<(), mongodb::error::Error> {
        self.database.run_command(doc! {"ping": 1}).await.map(drop)
    }

    /// The user views.
    #[must_use]
    pub fn users(&self, generation: u32) -> Collection<UserDocument> {
        self.database.collection(&users_collection(generation))
    }

    /// What happened to users.
    #[must_use]
    pub fn history(&self, generation: u32) -> Collection<HistoryDocument> {
        self.database.collection(&history_collection(generation))
    }

    /// The session views.
    #[must_use]
    pub fn sessions(&self, generation: u32) -> Collection<SessionDocument> {
        self.database.collection(&sessions_collection(generation))
    }

    /// The checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> Collection<Document> {
        self.database.collection(CHECKPOINTS)
    }

    /// What is parked.
    #[must_use]
    pub fn parked(&self) -> Collection<ParkedDocument> {
        self.database.collection(PARKED)
    }

    /// The database itself, for commands the driver has no method for.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.database
    }

    /// The position that the views behind a checkpoint have; 0 when there are none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn position(&self, checkpoint: &str) -> Result<Position, mongodb::error::Error> {
        Ok(self.checkpoint(checkpoint).await?.unwrap_or_default())
    }

    /// The same; `None` when nobody has begun with them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn checkpoint(
        &self,
        checkpoint: &str,
    ) -> Result<Option<Position>, mongodb::error::Error> {
        let found = self.checkpoints().find_one(doc! {"_id": checkpoint}).await?;
        let position = |found: Document| found.get_i64("position").unwrap_or(0).unsigned_abs();
        Ok(found.map(|found| Position(position(found))))
    }
}
