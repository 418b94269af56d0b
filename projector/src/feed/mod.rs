//! The feed: publishes each event to peer services once and in order (ADR 14).
//!
//! [`FeedPublisher`] merges `USERS` and `SESSIONS`, writes and parks. Here is what their events become.
//!
//! # Deletion
//! Nothing of a user is published after `users.v1.deleted`, so erasing everything before it erases everything. A login
//! can race a deletion and store a session after it. So before events of a session are published, the log is asked
//! whether their user is deleted; if so, they are not published. A deletion that is stored after that question is read
//! later, and therefore published after them.

pub mod project;
mod source;

use std::time::Duration;

use events::feed::{
    DataSchemas, FEED_STREAM, FEED_STREAM_SUBJECTS, SESSIONS_POSITION_HEADER, USERS_POSITION_HEADER,
};
use events::{Position, subjects};
use service_kit::config::{Deployment, Settings};
use service_kit::event_log::{EventLog, Limits, ReadError, feed_stream};
use service_kit::preflight::is_loopback_url;
use service_kit::telemetry::Telemetry;
use view_kit::feed_publisher::{Feed, FeedEnd, FeedPublisher, SourceLog};
use view_kit::{FollowLimits, Retries};

pub(crate) use self::source::UserFeedSource;
pub use self::source::event_of;
use crate::app::{PARKED_LIST, StartError};

/// The logs with the headers that state how far each of them is published.
const HEADERS: [(&str, &str); 2] = [
    (subjects::USERS_STREAM, USERS_POSITION_HEADER),
    (subjects::SESSIONS_STREAM, SESSIONS_POSITION_HEADER),
];

/// The publisher of the feed. Checks the stream of the feed; the views check those of the log.
///
/// # Errors
/// [`StartError`]: nothing was started.
pub(crate) async fn publisher(
    client: &async_nats::Client,
    settings: &Settings,
    limits: FollowLimits,
    retries: Retries,
    watch: &Telemetry,
) -> Result<FeedPublisher<UserFeedSource>, StartError> {
    let log = |stream| {
        EventLog::new(client.clone(), stream, Limits::of(settings)).reporting(&watch.metrics)
    };
    let stream = log(FEED_STREAM).watched(&watch.metrics);
    stream.verify(&feed_stream(&settings.log, &settings.feed)).await?;
    stream.watch_room(&watch.metrics);
    let filters: [&[&str]; 2] = [
        &[subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER],
        &[subjects::SESSION_EVENTS_FILTER],
    ];
    let logs = HEADERS.iter().zip(filters).map(|((stream, header), filters)| SourceLog {
        log: log(stream),
        filters: filters.iter().map(|filter| (*filter).to_owned()).collect(),
        header,
    });
    let feed = Feed {
        source: UserFeedSource {
            users: log(subjects::USERS_STREAM),
            sessions_kept: Duration::from_secs(settings.feed.sessions_kept_s),
            schemas: data_schemas(settings),
        },
        logs: logs.collect(),
        stream,
        name: FEED_STREAM,
        subjects: FEED_STREAM_SUBJECTS.map(str::to_owned).to_vec(),
        check: "projector-feed",
        parked_list: PARKED_LIST,
    };
    Ok(FeedPublisher::of(feed, limits, Some(retries), watch))
}

/// Whether the feed is complete for the users up to a position, according to its last message.
pub(crate) async fn is_published_through(
    feed: &EventLog,
    position: Position,
) -> Result<bool, ReadError> {
    let feed_end = end_of(feed).await?;
    Ok(feed_end.published_through(0) >= position && feed_end.parked().is_empty())
}

/// A user or session of which nothing more is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedInFeed {
    /// The stream with the event that cannot be read.
    pub stream: &'static str,
    /// The position of that event.
    pub position: Position,
    /// The aggregate, as [`subjects::aggregate`] names it.
    pub aggregate: String,
}

/// The parked aggregates according to the last message of the feed.
///
/// # Errors
/// [`ReadError`]: nothing is known.
pub async fn parked_in_feed(feed: &EventLog) -> Result<Vec<ParkedInFeed>, ReadError> {
    let entry = |(log, aggregate, position): (usize, String, Position)| {
        let (stream, _) = *HEADERS.get(log)?;
        Some(ParkedInFeed { stream, position, aggregate })
    };
    Ok(end_of(feed).await?.parked().into_iter().filter_map(entry).collect())
}

async fn end_of(feed: &EventLog) -> Result<FeedEnd, ReadError> {
    let tail = feed.tail(&FEED_STREAM_SUBJECTS).await?;
    FeedEnd::of(&tail, &HEADERS).map_err(|error| ReadError::Refused(error.to_string()))
}

/// The URL of the schemas. In production a default that only this machine can open is not published.
fn data_schemas(settings: &Settings) -> Option<DataSchemas> {
    let issuer = &settings.tokens.issuer;
    let is_reachable = settings.deployment == Deployment::Development || !is_loopback_url(issuer);
    is_reachable.then(|| DataSchemas::served_at(issuer)).flatten()
}
