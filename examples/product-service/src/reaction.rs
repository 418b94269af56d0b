//! Reacts to Roster's feed: the products of a deleted user are unpublished.

use std::time::Duration;

use async_trait::async_trait;
use events::feed::{FeedEvent, Happened};
use events::{Timestamp, UserId};
use futures::TryStreamExt;
use mongodb::bson::doc;
use service_kit::ambient;
use service_kit::commands::{Commands, Refused, Request};
use service_kit::event_log::{ConsumerSpec, EventLog, service_reaction};
use service_kit::reactions::{Reacted, Reaction};
use view_kit::{ReadError, ViewReads};

use crate::domain::{Change, Command, ProductId, Products, Rejection, Requester, UnpublishReason};
use crate::projection::{ProductDocument, ProductViews, key};
use crate::settings::NAMES;

/// The events of Roster's feed that are read: deletions of users.
const FILTERS: [&str; 1] = ["users.v1.deleted.*"];
/// How many deleted users may be in progress or waiting for their second look.
const PENDING_MAX: u32 = 1_000;
/// How many deleted users are handled concurrently.
pub const CONCURRENT_MAX: usize = 8;
/// How long the views may take to reach the end of the log.
const VIEWS_MAX: Duration = Duration::from_secs(10);

/// The consumer of Roster's feed that `provision` creates.
#[must_use]
pub fn consumer() -> ConsumerSpec {
    service_reaction(&NAMES, &FILTERS, PENDING_MAX)
}

/// Unpublishes the products of a deleted user.
pub struct UnpublishOrphaned {
    pub log: EventLog,
    pub commands: Commands<Products>,
    pub reads: ViewReads<ProductViews>,
    /// A command of the user may still have been running during the deletion. The products are checked once more
    /// after this time.
    pub second_look: Duration,
}

#[async_trait]
impl Reaction for UnpublishOrphaned {
    async fn react(&self, event: &FeedEvent, request: Request) -> Result<Reacted, String> {
        let Happened::Deleted(data) = &event.happened else { return Ok(Reacted::Done) };
        // Whatever the user did before this moment is in the views that are read below.
        let checked_at = ambient::now();
        for product in self.published(data.user.id).await? {
            self.unpublish(product, request.clone()).await?;
        }
        let due = event.time.plus_seconds(self.second_look.as_secs());
        Ok(if checked_at >= due { Reacted::Done } else { Reacted::Later(until(checked_at, due)) })
    }
}

fn until(now: Timestamp, due: Timestamp) -> Duration {
    (due.as_datetime() - now.as_datetime()).to_std().unwrap_or_default()
}

impl UnpublishOrphaned {
    /// The user's published products at this moment, oldest first.
    async fn published(&self, owner: UserId) -> Result<Vec<ProductId>, String> {
        let end = self.log.end().await.map_err(|error| error.to_string())?;
        match self.reads.wait_for(end, VIEWS_MAX).await {
            Ok(true) => {}
            Ok(false) => return Err("the views are behind the log".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let documents = self.reads.documents::<ProductDocument>();
        let find = async move {
            let filter = doc! {"owner": key(*owner.as_uuid()), "status": "published"};
            let found = documents.find(filter).sort(doc! {"created_at": 1, "_id": 1}).await?;
            Ok::<Vec<ProductDocument>, ReadError>(found.try_collect().await?)
        };
        let found = self.reads.whole(find).await.map_err(|error| error.to_string())?;
        Ok(found
            .into_iter()
            .map(|found| ProductId(uuid::Uuid::from_bytes(found.id.bytes())))
            .collect())
    }

    async fn unpublish(&self, product: ProductId, request: Request) -> Result<(), String> {
        let change = Change::Unpublish(UnpublishReason::OwnerDeleted);
        let command = Command::Change { by: Requester::System, expected: None, change };
        match self.commands.execute(product, command, request).await {
            // The product was deleted in the meantime.
            Ok(_) | Err(Refused::Rejected(Rejection::NoSuchProduct)) => Ok(()),
            Err(Refused::Rejected(rejection)) => Err(format!("{rejection:?}")),
            Err(Refused::Failed(failure)) => Err(failure.to_string()),
        }
    }
}
