//! The connection to MongoDB, the same for who writes views and who reads them.

use std::time::Duration;

use events::Position;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use mongodb::options::{ClientOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection, Database};

use crate::parked_document::{PARKED, ParkedDocument};

/// Collection with one document per projection: `{_id, position}`.
pub const CHECKPOINTS: &str = "checkpoints";

/// Time to find a primary. A request that waits longer than this is better refused.
const SELECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A database with views, how far they are, and what of them is parked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ViewDatabase(Database);

impl ViewDatabase {
    /// Opens a database; `service` is the name by which the server knows who asks. Nothing is connected yet; the
    /// driver does so, and again, as needed.
    ///
    /// # Errors
    /// The connection string is not valid.
    pub async fn open(url: &str, database: &str, service: &str) -> Result<Self, Error> {
        let mut options = ClientOptions::parse(url).await?;
        options.app_name = Some(service.to_owned());
        options.server_selection_timeout = Some(SELECT_TIMEOUT);
        options.connect_timeout = Some(SELECT_TIMEOUT);
        // What was read must not be rolled back, and what was written must not be lost.
        options.write_concern = Some(WriteConcern::majority());
        options.read_concern = Some(ReadConcern::local());
        Ok(Self(Client::with_options(options)?.database(database)))
    }

    /// Asks the server whether it is there.
    ///
    /// # Errors
    /// It is not.
    pub async fn ping(&self) -> Result<(), Error> {
        self.0.run_command(doc! {"ping": 1}).await.map(drop)
    }

    /// The checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> Collection<Document> {
        self.0.collection(CHECKPOINTS)
    }

    /// What is parked.
    #[must_use]
    pub fn parked(&self) -> Collection<ParkedDocument> {
        self.0.collection(PARKED)
    }

    /// The database itself.
    #[must_use]
    pub const fn database(&self) -> &Database {
        &self.0
    }

    /// The position that the views behind a checkpoint have; 0 when there are none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn position(&self, checkpoint: &str) -> Result<Position, Error> {
        Ok(self.checkpoint(checkpoint).await?.unwrap_or_default())
    }

    /// The same; `None` when nobody has begun with them.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn checkpoint(&self, checkpoint: &str) -> Result<Option<Position>, Error> {
        let found = self.checkpoints().find_one(doc! {"_id": checkpoint}).await?;
        let position = |found: Document| found.get_i64("position").unwrap_or(0).unsigned_abs();
        Ok(found.map(|found| Position(position(found))))
    }
}
