//! The messages to publish for a batch of the logs, and what is parked of it.

use events::Position;
use events::feed::PARKED_HEADER;
use service_kit::event_log::{Followed, Sequel};

use super::reader::SourceMessage;
use super::{FeedEnd, FeedPublisher, FeedSource, PublishError, SourceLog, WRITE_MESSAGES_MAX};

/// What moves the feed forward.
pub(super) struct Advance {
    pub(super) messages: Vec<Sequel>,
    /// The end of the feed after them, except for its sequence.
    pub(super) after: FeedEnd,
    /// Why nothing after them can be published, if so.
    pub(super) failure: Option<PublishError>,
}

type Headers = Vec<(&'static str, String)>;

impl SourceLog {
    /// The subject prefixes before the name of an aggregate.
    fn roots(&self) -> impl Iterator<Item = &str> {
        self.filters.iter().filter_map(|filter| filter.split('*').next())
    }

    /// The aggregate that a message is about.
    fn aggregate<'a>(&self, message: &'a Followed) -> &'a str {
        let subject = message.subject.as_str();
        self.roots().find_map(|root| subject.strip_prefix(root)).unwrap_or(subject)
    }
}

impl<S: FeedSource> FeedPublisher<S> {
    /// The messages to publish for a batch. Events before one that can no longer be parked are published before that
    /// failure is reported.
    pub(super) async fn advance(
        &self,
        batch: &[SourceMessage],
        feed_end: &FeedEnd,
    ) -> Result<Advance, PublishError> {
        let (mut after, mut failure) = (feed_end.clone(), None);
        let (mut events, headers) = (Vec::with_capacity(batch.len()), self.feed.headers());
        for message in batch {
            let SourceMessage { log, followed } = message;
            let Some(source) = self.feed.logs.get(*log) else { continue };
            let (stream, aggregate) = (source.log.stream(), source.aggregate(followed));
            let is_parked = after.parked_at(*log, aggregate).is_some();
            let event =
                if followed.is_foreign { Ok(None) } else { self.feed.source.event(followed) };
            match event {
                Err(error) if !is_parked && after.parked_count() >= self.limits.parked_max => {
                    let (stream, parked) = (stream.to_owned(), after.parked_count());
                    failure =
                        Some(PublishError::Unreadable(followed.position, stream, error, parked));
                    break;
                }
                Err(error) if !is_parked => {
                    tracing::error!(
                        stream, aggregate, position = %followed.position, %error,
                        "an event cannot be read: parking its aggregate; nothing more of it is published"
                    );
                    after.park(*log, aggregate, followed.position);
                }
                Ok(Some(event)) if !is_parked || S::is_last(&event) => {
                    after.release(*log, aggregate);
                    after.reach(*log, followed.position);
                    events.push((event, after.position_headers(&headers)));
                }
                Ok(_) | Err(_) => {}
            }
            after.reach(*log, followed.position);
        }
        let messages = self.messages(events, &after).await?;
        Ok(Advance { messages, after, failure })
    }

    /// The messages to publish for a parked aggregate as far as it can be read now; `None` if that is no further than
    /// before.
    pub(super) async fn advance_parked(
        &self,
        log: usize,
        aggregate: &str,
        feed_end: &FeedEnd,
    ) -> Result<Option<Advance>, PublishError> {
        let (Some(position), Some(source)) =
            (feed_end.parked_at(log, aggregate), self.feed.logs.get(log))
        else {
            return Ok(None);
        };
        let subjects: Vec<String> =
            source.roots().map(|root| format!("{root}{aggregate}")).collect();
        let behind = Position(position.0.saturating_sub(1));
        let through = feed_end.published_through(log);
        let messages = source.log.between(&subjects, behind, through, WRITE_MESSAGES_MAX).await?;
        let is_whole = messages.len() < WRITE_MESSAGES_MAX;
        let messages = messages.into_iter().filter(|message| !message.is_foreign);
        let read = messages.map(|message| (message.position, self.feed.source.event(&message)));
        let read: Vec<_> = read.collect();
        let is_last = |event: &_| matches!(event, Ok(Some(event)) if S::is_last(event));
        let counts_from = read.iter().rposition(|(_, event)| is_last(event)).unwrap_or(0);
        let headers = feed_end.position_headers(&self.feed.headers());
        let (mut events, mut stuck, mut next) = (Vec::new(), None, behind);
        for (at, event) in read.into_iter().skip(counts_from) {
            let Ok(event) = event else {
                stuck = Some(at);
                break;
            };
            next = Position(at.0.saturating_add(1));
            events.extend(event.map(|event| (event, headers.clone())));
        }
        let mut after = feed_end.clone();
        match stuck {
            Some(stuck) if stuck == position => return Ok(None),
            Some(stuck) => after.park(log, aggregate, stuck),
            None if is_whole => after.release(log, aggregate),
            None => after.park(log, aggregate, next),
        }
        let messages = self.messages(events, &after).await?;
        Ok(Some(Advance { messages, after, failure: None }))
    }

    /// The messages that publish some events.
    async fn messages(
        &self,
        events: Vec<(S::Event, Headers)>,
        after: &FeedEnd,
    ) -> Result<Vec<Sequel>, PublishError> {
        let (events, headers): (Vec<_>, Vec<_>) = events.into_iter().unzip();
        let parked = after.parked_header(&self.feed.headers());
        let messages = self.feed.source.messages(events).await?.into_iter().zip(headers);
        let complete = |(message, headers): (Option<Sequel>, Headers)| {
            let mut message = message?;
            message.headers.extend(headers);
            message.headers.extend(parked.clone().map(|parked| (PARKED_HEADER, parked)));
            Some(message)
        };
        Ok(messages.filter_map(complete).collect())
    }
}
