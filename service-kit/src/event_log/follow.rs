//! Reading on from a position, in order, without a gap.
//!
//! The consumer is made anew by every call and never repaired: whatever disturbs it (a gap, silence, a
//! server that restarted and forgot it) ends the stream with an error, and the caller begins again from
//! the checkpoint it has stored. The ordered consumer of async-nats repairs itself, but one that has
//! delivered nothing yet forgets where it was to start and reads the whole log again (0.51).

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use async_nats::jetstream::{self};
use bytes::Bytes;
use events::{Position, Timestamp};
use futures::stream::BoxStream;
use futures::{StreamExt, future, stream};

use super::consumers::CONSUMERS_LIMIT;
use super::foreign::is_foreign;
use super::{EventLog, Guard};
use crate::ambient;

/// Messages asked for at once; the server has half of them under way while the rest is worked on.
const PULL_MESSAGES_MAX: usize = 2_000;
/// Life of one such request.
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// How often the server says that it is there when there is nothing to deliver. Two missed ones end the
/// stream.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the server keeps a consumer that nobody pulls from any more.
const ABANDONED_AFTER: Duration = Duration::from_secs(30);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Behind this position.
    Behind(Position),
    /// With the first message that was stored at this time or later.
    Since(Timestamp),
    /// With the last message of each subject, in order, and then what comes.
    LastOfEach,
}

/// Messages in order, without end. Over after the first error.
pub struct Following {
    /// How many messages there were when it began.
    pub pending: u64,
    /// The messages.
    pub messages: BoxStream<'static, Result<Followed, FollowError>>,
}

/// A message as it is read in order.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its subject.
    pub subject: String,
    /// Its place in the log.
    pub position: Position,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// How many there are behind it.
    pub pending: u64,
    /// What was written.
    pub payload: Bytes,
    /// No writer of the log wrote it: whoever follows passes it over.
    pub is_foreign: bool,
}

impl Followed {
    /// The guard for the next write to the same subject.
    #[must_use]
    pub const fn guard(&self) -> Guard {
        Guard::behind(self.position)
    }
}

/// The stream ended: begin again behind the last position that was worked on.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// No consumer could be made, or its messages do not come.
    #[error("the event log cannot be followed: {0}")]
    Disturbed(String),
    /// The stream has as many consumers as it may have.
    #[error(
        "too many consumers on {stream}: `roster doctor` counts those that are not Roster's, and `roster prune consumers` \
         removes them"
    )]
    TooManyConsumers {
        /// Its name.
        stream: Arc<str>,
    },
    /// The consumer skipped a message, or one was lost on the way.
    #[error("delivery {found} came where {expected} was due")]
    Gap {
        /// Number of the delivery that was due.
        expected: u64,
        /// Number of the one that came.
        found: u64,
    },
}

impl FollowError {
    fn disturbed(error: impl ToString) -> Self {
        Self::Disturbed(error.to_string())
    }
}

impl EventLog {
    /// The messages on `filters` from `start` on.
    ///
    /// # Errors
    /// [`FollowError::Disturbed`] when the server makes no consumer.
    pub async fn follow(&self, filters: &[&str], start: Start) -> Result<Following, FollowError> {
        let context = jetstream::new(self.client.clone());
        let stream = context.get_stream_no_info(&*self.stream);
        let stream = stream.await.map_err(FollowError::disturbed)?;
        let deliver_policy = match start {
            Start::Behind(position) => {
                DeliverPolicy::ByStartSequence { start_sequence: position.0.saturating_add(1) }
            }
            Start::Since(time) => DeliverPolicy::ByStartTime { start_time: time.as_datetime() },
            Start::LastOfEach => DeliverPolicy::LastPerSubject,
        };
        // One filter stands in the subject of the request too, which is what permissions can name.
        let (filter_subject, filter_subjects) = match filters {
            [one] => ((*one).to_owned(), Vec::new()),
            many => (String::new(), many.iter().map(|filter| (*filter).to_owned()).collect()),
        };
        let consumer = stream
            .create_consumer(Config {
                name: Some(format!("follow-{}", ambient::new_uuid().simple())),
                filter_subject,
                filter_subjects,
                deliver_policy,
                ack_policy: AckPolicy::None,
                memory_storage: true,
                num_replicas: 1,
                inactive_threshold: ABANDONED_AFTER,
                ..Config::default()
            })
            .await
            .map_err(|error| self.no_consumer(&error))?;
        let pending = consumer.cached_info().num_pending;
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES_MAX)
            .expires(PULL_EXPIRES)
            .heartbeat(IDLE_HEARTBEAT)
            .messages()
            .await
            .map_err(FollowError::disturbed)?;

        let log = self.clone();
        let mut expected = 0;
        let checked = messages.map(move |message| {
            let message = message.map_err(FollowError::disturbed)?;
            let info = message.info().map_err(FollowError::disturbed)?;
            expected += 1;
            if info.consumer_sequence != expected {
                return Err(FollowError::Gap { expected, found: info.consumer_sequence });
            }
            let (position, pending) = (Position(info.stream_sequence), info.pending);
            let stored_at = Timestamp::from_datetime(info.published);
            let message = message.message;
            let subject = message.subject.to_string();
            let headers = message.headers.as_ref();
            let has = |name: &str| headers.is_some_and(|headers| headers.get(name).is_some());
            let is_foreign = is_foreign(&subject, has);
            if is_foreign {
                log.passes_over(&subject, position);
            }
            let payload = message.payload;
            Ok(Followed { subject, position, stored_at, pending, payload, is_foreign })
        });
        let ended = stream::once(future::ready(Err(FollowError::disturbed("the server ended it"))));
        let messages = checked.chain(ended).scan(false, |over, next| {
            let next = (!*over).then_some(next);
            *over = next.as_ref().is_none_or(Result::is_err);
            future::ready(next)
        });
        Ok(Following { pending, messages: messages.boxed() })
    }

    /// Why the server made no consumer.
    fn no_consumer(&self, error: &ConsumerError) -> FollowError {
        match error.kind() {
            ConsumerErrorKind::JetStream(error) if error.error_code().0 == CONSUMERS_LIMIT => {
                FollowError::TooManyConsumers { stream: Arc::clone(&self.stream) }
            }
            ConsumerErrorKind::JetStream(_)
            | ConsumerErrorKind::TimedOut
            | ConsumerErrorKind::Request
            | ConsumerErrorKind::InvalidConsumerType
            | ConsumerErrorKind::InvalidName
            | ConsumerErrorKind::Other => FollowError::disturbed(error),
        }
    }
}
