//! The end of the feed: its last sequence, how far each log is published, and what is parked. The last message carries
//! all of it in headers, so one write moves all of it.

use std::collections::BTreeMap;

use events::Position;
use events::feed::{PARKED_HEADER, SESSIONS_POSITION_HEADER, USERS_POSITION_HEADER};
use service_kit::event_log::Tail;

use super::FeedError;
use super::reader::{Read, Source};

/// How far each stream is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PublishedThrough {
    /// Position in `USERS`.
    pub(super) users: Position,
    /// Position in `SESSIONS`.
    pub(super) sessions: Position,
}

impl PublishedThrough {
    /// How far one stream is published.
    pub(super) const fn of(self, from: Source) -> Position {
        match from {
            Source::Users => self.users,
            Source::Sessions => self.sessions,
        }
    }

    pub(super) fn covers(self, message: &Read) -> bool {
        message.followed.position <= self.of(message.from)
    }

    pub(super) fn and(&mut self, message: &Read) {
        match message.from {
            Source::Users => self.users = self.users.max(message.followed.position),
            Source::Sessions => self.sessions = self.sessions.max(message.followed.position),
        }
    }

    fn max(self, other: Self) -> Self {
        Self { users: self.users.max(other.users), sessions: self.sessions.max(other.sessions) }
    }
}

/// Users and sessions of which nothing is published from some position on, because an event cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Parked(BTreeMap<(Source, String), Position>);

impl Parked {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    pub(super) fn holds(&self, from: Source, aggregate: &str) -> bool {
        self.0.contains_key(&(from, aggregate.to_owned()))
    }

    /// The position from which on nothing of it is published.
    pub(super) fn position(&self, from: Source, aggregate: &str) -> Option<Position> {
        self.0.get(&(from, aggregate.to_owned())).copied()
    }

    pub(super) fn entries(&self) -> Vec<(Source, String, Position)> {
        let entry = |((from, aggregate), position): (&(Source, String), &Position)| {
            (*from, aggregate.clone(), *position)
        };
        self.0.iter().map(entry).collect()
    }

    /// Publishes nothing of it from a position on.
    pub(super) fn hold(&mut self, from: Source, aggregate: &str, position: Position) {
        self.0.insert((from, aggregate.to_owned()), position);
    }

    /// Publishes everything of it again.
    pub(super) fn release(&mut self, from: Source, aggregate: &str) {
        self.0.remove(&(from, aggregate.to_owned()));
    }

    /// Header form: `STREAM:position:aggregate`, separated by spaces; `None` when nothing is parked.
    pub(super) fn header(&self) -> Option<String> {
        let entries = self.entries().into_iter();
        let entries: Vec<String> = entries
            .map(|(from, aggregate, position)| format!("{}:{position}:{aggregate}", from.stream()))
            .collect();
        (!entries.is_empty()).then(|| entries.join(" "))
    }

    fn read(header: &str) -> Option<Self> {
        let entry = |text: &str| {
            let mut parts = text.splitn(3, ':');
            let from = Source::of(parts.next()?)?;
            let position = parts.next()?.parse().ok()?;
            Some(((from, parts.next()?.to_owned()), Position(position)))
        };
        header.split(' ').map(entry).collect::<Option<_>>().map(Self)
    }
}

/// The end of the feed.
#[derive(Debug, Clone, Default)]
pub(crate) struct FeedEnd {
    /// The sequence of its last message.
    pub(super) end: Position,
    pub(super) published: PublishedThrough,
    pub(super) parked: Parked,
}

impl FeedEnd {
    /// Reads the headers of the last message.
    pub(super) fn of(tail: &Tail) -> Result<Self, FeedError> {
        let Some(last) = &tail.last else { return Ok(Self { end: tail.end, ..Self::default() }) };
        let position = |name| {
            let value = last.header(name).and_then(|value| value.parse().ok());
            value.map(Position).ok_or(FeedError::NoPosition)
        };
        let published = PublishedThrough {
            users: position(USERS_POSITION_HEADER)?,
            sessions: position(SESSIONS_POSITION_HEADER)?,
        };
        let parked = match last.header(PARKED_HEADER) {
            Some(header) => Parked::read(&header).ok_or(FeedError::NoPosition)?,
            None => Parked::default(),
        };
        Ok(Self { end: tail.end, published, parked })
    }

    /// After a write by another projector: takes over the end of the feed. Positions that lead to no message are known
    /// to this process alone and stay.
    pub(super) fn catch_up(&mut self, tail: &Tail) -> Result<(), FeedError> {
        if tail.end < self.end {
            return Err(FeedError::Shortened { before: self.end, now: tail.end });
        }
        let mut now = Self::of(tail)?;
        for (from, aggregate, position) in self.parked.entries() {
            if position > now.published.of(from) {
                now.parked.hold(from, &aggregate, position);
            }
        }
        now.published = now.published.max(self.published);
        *self = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_parked_is_read_as_it_was_written() {
        let mut parked = Parked::default();
        assert_eq!(parked.header(), None);
        parked.hold(Source::Users, "0190a1b2", Position(17));
        parked.hold(Source::Sessions, "0190a1b2.0190ffff", Position(4));
        let header = parked.header().unwrap();
        assert_eq!(header, "USERS:17:0190a1b2 SESSIONS:4:0190a1b2.0190ffff");
        assert_eq!(Parked::read(&header), Some(parked));
        for damaged in ["", "USERS", "USERS:x:y", "OTHER:1:y", "USERS:1:y  "] {
            assert_eq!(Parked::read(damaged), None, "{damaged:?}");
        }
    }
}
