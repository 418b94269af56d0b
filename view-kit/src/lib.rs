//! Projections into MongoDB: follows a stream of the log in order, and keeps documents up to date with it.
//!
//! The checkpoint is stored in the database with the views (ADR 3). So losing the consumer, a crash, restoring an older
//! database and starting from nothing are one case: read the checkpoint and go on after it. Every write is guarded by
//! the position, so applying an event twice, or by two projectors at once, changes nothing. An event that cannot be
//! read is parked with its aggregate (ADR 20).
//!
//! A service implements [`Fold`]: what its messages lead to. With one view it implements [`View`] and runs a
//! [`ViewFollower`], and its query side reads with [`ViewReads`]. Roster's projector has its own [`Target`] with
//! generations (ADR 16). A feed is a projection into a stream: [`feed_publisher`]. ADR 21 explains what is shared, and
//! why peer services have layouts instead of generations.
//!
//! Not for the content of views: nothing here knows a user, or decides anything.

mod batch;
mod causes;
mod database;
mod database_error;
pub mod feed_publisher;
mod fold;
mod follower;
mod lag;
mod lineage;
mod one_view;
mod pace;
mod parked;
mod parked_document;
mod parking;
mod preflight;
pub mod reads;
mod retry;
mod run;
mod seek;
pub mod store;
mod supervise;
mod target;
mod view_reads;

pub use database::{CHECKPOINTS, OpenError, ViewDatabase, database_target};
pub use database_error::{DatabaseError, describe};
pub use fold::{Fold, Inserts, Writes, replacement};
pub use follower::{BuildError, ViewFollower};
pub use lag::{age, age_of_missing, keeps_up};
pub use lineage::LineageMismatch;
pub use one_view::{OneView, View, collection};
pub use parked::Parked;
pub use parked_document::{PARKED, ParkedDocument};
pub use preflight::{ServiceProcess, service_preflight};
pub use reads::{Count, Find, ReadError, ReadLimits, Reads};
pub use retry::{Retries, RetryRequest, RetryRequestError, RetryRequests, retry_subject};
pub use run::{FollowLimits, Projection, RunError};
pub use seek::behind;
pub use supervise::{Follower, Progress, none_parked, supervised};
pub use target::Target;
pub use view_reads::ViewReads;
