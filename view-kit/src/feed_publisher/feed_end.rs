//! The end of a feed: its last sequence, how far each log is published, and what is parked. The last message carries
//! all of it in headers, so one write moves all of it.

use std::collections::BTreeMap;

use events::Position;
use events::feed::PARKED_HEADER;
use service_kit::event_log::Tail;

use super::PublishError;
use super::reader::SourceMessage;

/// The end of a feed. Logs are numbered in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedEnd {
    /// The sequence of its last message.
    pub(super) end: Position,
    /// How far each log is published.
    pub(super) published: Vec<Position>,
    /// Aggregates of which nothing is published from a position on, because an event cannot be read.
    pub(super) parked: BTreeMap<(usize, String), Position>,
}

impl FeedEnd {
    /// Reads the headers of the last message. `logs` has the stream of each log, and the header with its position.
    ///
    /// # Errors
    /// [`PublishError::NoPosition`]: another program wrote it.
    pub fn of(tail: &Tail, logs: &[(&str, &str)]) -> Result<Self, PublishError> {
        Self::read(tail, logs).ok_or(PublishError::NoPosition)
    }

    fn read(tail: &Tail, logs: &[(&str, &str)]) -> Option<Self> {
        let Some(last) = &tail.last else { return Some(Self { end: tail.end, ..Self::default() }) };
        let position = |(_, name): &(&str, &str)| last.header(name)?.parse().ok().map(Position);
        let published = logs.iter().map(position).collect::<Option<_>>()?;
        let parked = last.header(PARKED_HEADER).map(|header| parked_of(&header, logs));
        Some(Self {
            end: tail.end,
            published,
            parked: parked.unwrap_or_else(|| Some(BTreeMap::new()))?,
        })
    }

    /// The position of a log up to which the feed is complete.
    #[must_use]
    pub fn published_through(&self, log: usize) -> Position {
        self.published.get(log).copied().unwrap_or_default()
    }

    /// The parked aggregates, each with its log and the position from which on nothing of it is published.
    #[must_use]
    pub fn parked(&self) -> Vec<(usize, String, Position)> {
        let entry = |((log, aggregate), position): (&(usize, String), &Position)| {
            (*log, aggregate.clone(), *position)
        };
        self.parked.iter().map(entry).collect()
    }

    pub(super) fn parked_count(&self) -> usize {
        self.parked.len()
    }

    /// The position from which on nothing of an aggregate is published, if it is parked.
    pub(super) fn parked_at(&self, log: usize, aggregate: &str) -> Option<Position> {
        self.parked.get(&(log, aggregate.to_owned())).copied()
    }

    /// Publishes nothing of an aggregate from a position on.
    pub(super) fn park(&mut self, log: usize, aggregate: &str, position: Position) {
        self.parked.insert((log, aggregate.to_owned()), position);
    }

    /// Publishes everything of an aggregate again.
    pub(super) fn release(&mut self, log: usize, aggregate: &str) {
        self.parked.remove(&(log, aggregate.to_owned()));
    }

    pub(super) fn covers(&self, message: &SourceMessage) -> bool {
        message.followed.position <= self.published_through(message.log)
    }

    /// The feed is complete up to a position of a log.
    pub(super) fn reach(&mut self, log: usize, position: Position) {
        if self.published.len() <= log {
            self.published.resize(log + 1, Position::default());
        }
        if let Some(published) = self.published.get_mut(log) {
            *published = position.max(*published);
        }
    }

    /// The headers that state how far each log is published.
    pub(super) fn position_headers(
        &self,
        logs: &[(&str, &'static str)],
    ) -> Vec<(&'static str, String)> {
        let header = |(n, (_, name)): (usize, &(&str, &'static str))| {
            (*name, self.published_through(n).to_string())
        };
        logs.iter().enumerate().map(header).collect()
    }

    /// Header form: `STREAM:position:aggregate`, separated by spaces; `None` when nothing is parked.
    pub(super) fn parked_header(&self, logs: &[(&str, &str)]) -> Option<String> {
        let entry = |((log, aggregate), position): (&(usize, String), &Position)| {
            Some(format!("{}:{position}:{aggregate}", logs.get(*log)?.0))
        };
        let entries: Vec<String> = self.parked.iter().filter_map(entry).collect();
        (!entries.is_empty()).then(|| entries.join(" "))
    }

    /// After a write by another publisher: takes over the end of the feed. Positions that lead to no message are known
    /// to this process alone and stay.
    pub(super) fn catch_up(&mut self, mut now: Self) -> Result<(), PublishError> {
        if now.end < self.end {
            return Err(PublishError::Shortened(self.end, now.end));
        }
        for (log, aggregate, position) in self.parked() {
            if position > now.published_through(log) {
                now.park(log, &aggregate, position);
            }
        }
        for (log, position) in self.published.iter().enumerate() {
            now.reach(log, *position);
        }
        *self = now;
        Ok(())
    }
}

fn parked_of(header: &str, logs: &[(&str, &str)]) -> Option<BTreeMap<(usize, String), Position>> {
    let entry = |text: &str| {
        let mut parts = text.splitn(3, ':');
        let stream = parts.next()?;
        let log = logs.iter().position(|(name, _)| *name == stream)?;
        let position = parts.next()?.parse().ok()?;
        Some(((log, parts.next()?.to_owned()), Position(position)))
    };
    header.split(' ').map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGS: [(&str, &str); 2] = [("USERS", "Users"), ("SESSIONS", "Sessions")];

    #[test]
    fn what_is_parked_is_read_as_it_was_written() {
        let mut feed_end = FeedEnd::default();
        assert_eq!(feed_end.parked_header(&LOGS), None);
        feed_end.park(0, "0190a1b2", Position(17));
        feed_end.park(1, "0190a1b2.0190ffff", Position(4));
        let header = feed_end.parked_header(&LOGS).unwrap();
        assert_eq!(header, "USERS:17:0190a1b2 SESSIONS:4:0190a1b2.0190ffff");
        assert_eq!(parked_of(&header, &LOGS), Some(feed_end.parked));
        for damaged in ["", "USERS", "USERS:x:y", "OTHER:1:y", "USERS:1:y  "] {
            assert_eq!(parked_of(damaged, &LOGS), None, "{damaged:?}");
        }
    }

    #[test]
    fn positions_that_led_to_no_message_outlast_the_write_of_another_publisher() {
        let mut feed_end = FeedEnd { end: Position(5), ..FeedEnd::default() };
        feed_end.reach(0, Position(9));
        feed_end.park(0, "ahead", Position(8));
        let mut now = FeedEnd { end: Position(6), ..FeedEnd::default() };
        now.reach(0, Position(7));
        now.reach(1, Position(3));
        feed_end.catch_up(now).unwrap();
        assert_eq!(
            (feed_end.end, feed_end.published.as_slice()),
            (Position(6), &[Position(9), Position(3)][..])
        );
        assert_eq!(feed_end.parked(), [(0, "ahead".to_owned(), Position(8))]);
    }

    #[test]
    fn a_feed_that_became_shorter_is_noticed() {
        let mut feed_end = FeedEnd { end: Position(5), ..FeedEnd::default() };
        let noticed = feed_end.catch_up(FeedEnd { end: Position(4), ..FeedEnd::default() });
        assert!(matches!(noticed, Err(PublishError::Shortened(..))), "{noticed:?}");
    }
}
