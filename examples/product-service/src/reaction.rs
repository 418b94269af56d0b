//! What products owe to Roster's feed: those of a deleted user are published no more.

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

use crate::domain::{By, Change, Command, ProductId, Products, Rejection, UnpublishReason};
use crate::projection::{ProductDocument, ProductViews, key};
use crate::settings::NAMES;

/// What of Roster's feed is read: the ends of users.
const FILTERS: [&str; 1] = ["users.v1.deleted.*"];
/// Users whose products are seen to at once, and those who wait for the second look.
const UNDER_WAY_MAX: u32 = 1_000;
/// Users whose products are seen to at once.
pub const AT_ONCE_MAX: usize = 8;
/// How long the views may take to have what the log has.
const VIEWS_MAX: Duration = Duration::from_secs(10);

/// The consumer of Roster's feed that `provision` makes.
#[must_use]
pub fn consumer() -> ConsumerSpec {
    service_reaction(&NAMES, &FILTERS, UNDER_WAY_MAX)
}

/// Unpublishes what a deleted user leaves behind.
pub struct OwnerGone {
    pub log: EventLog,
    pub commands: Commands<Products>,
    pub reads: ViewReads<ProductViews>,
    /// A command of theirs may have been under way when they were deleted: they are looked at once more, so long
    /// after it.
    pub second_look: Duration,
}

#[async_trait]
impl Reaction for OwnerGone {
    async fn react(&self, event: &FeedEvent, request: Request) -> Result<Reacted, String> {
        let Happened::Deleted(data) = &event.happened else { return Ok(Reacted::Done) };
        // Whatever they did before this moment is in the views that are read below.
        let looked_at = ambient::now();
        for product in self.published(data.user.id).await? {
            self.unpublish(product, request.clone()).await?;
        }
        let due = event.time.plus_seconds(self.second_look.as_secs());
        Ok(if looked_at >= due { Reacted::Done } else { Reacted::Later(until(looked_at, due)) })
    }
}

fn until(now: Timestamp, due: Timestamp) -> Duration {
    (due.as_datetime() - now.as_datetime()).to_std().unwrap_or_default()
}

impl OwnerGone {
    /// The published products of a user, as of now, oldest first.
    async fn published(&self, owner: UserId) -> Result<Vec<ProductId>, String> {
        let end = self.log.end().await.map_err(|error| error.to_string())?;
        match self.reads.wait_for(end, VIEWS_MAX).await {
            Ok(true) => {}
            Ok(false) => return Err("the views are behind the log".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let documents = self.reads.documents::<ProductDocument>();
        let find = async move {
            let theirs = doc! {"owner": key(*owner.as_uuid()), "status": "published"};
            let found = documents.find(theirs).sort(doc! {"created_at": 1, "_id": 1}).await?;
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
        let command = Command::Change { by: By::System, expected: None, change };
        match self.commands.execute(product, command, request).await {
            // Deleted meanwhile.
            Ok(_) | Err(Refused::Rejected(Rejection::NoSuchProduct)) => Ok(()),
            Err(Refused::Rejected(rejection)) => Err(format!("{rejection:?}")),
            Err(Refused::Failed(failure)) => Err(failure.to_string()),
        }
    }
}
