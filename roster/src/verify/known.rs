//! What is kept of a user while the log is read: its state, and what is in doubt about it.
//!
//! Whether something is missing shows only at the end: the events of a user who is deleted go from the log,
//! the views and the feed, and the deletion comes last.

use events::{Cutoff, Position, Session, Snapshot, Timestamp};

use super::report::Place;

/// A user.
#[derive(Debug, Default)]
pub struct Known {
    /// Position of the last event.
    pub position: Position,
    /// The state after it; `None` when there is no event of the user.
    pub after: Option<Snapshot>,
    /// What ended the user's access last.
    pub cutoff: Option<Cutoff>,
    /// When the newest session began that the log still has.
    pub last_login: Option<Timestamp>,
    /// Whether there is a document of the user.
    pub has_document: bool,
    /// What is in doubt, by [`Doubt`].
    doubts: [Counted; Doubt::ALL.len()],
    /// Positions of what is not told, or not yet: it may come late, if the user was parked.
    untold: Vec<Position>,
}

/// A session.
#[derive(Debug)]
pub struct KnownSession {
    /// Position of the last event.
    pub position: Position,
    /// The state after it.
    pub after: Session,
    /// Whether there is a document of the session.
    pub has_document: bool,
}

/// A fault, unless the user is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// An event does not come next behind the one before it.
    Gap,
    /// No document for an event.
    HistoryMissing,
    /// A document without an event.
    HistoryExtra,
    /// An event of the user that is not told.
    FeedMissing,
    /// Something that is told and did not happen.
    FeedExtra,
    /// An event of a session that is not told.
    FeedSessionMissing,
}

/// How many, and the first.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counted {
    /// Position of the first.
    pub first: Position,
    /// How many.
    pub count: u32,
}

impl Doubt {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Gap,
        Self::HistoryMissing,
        Self::HistoryExtra,
        Self::FeedMissing,
        Self::FeedExtra,
        Self::FeedSessionMissing,
    ];

    /// Where it is, and in words.
    pub const fn told(self) -> (Place, &'static str) {
        match self {
            Self::Gap => (Place::Log, "an event before this one is missing"),
            Self::HistoryMissing => (Place::History, "document missing"),
            Self::HistoryExtra => (Place::History, "document without an event"),
            Self::FeedMissing => (Place::Feed, "event of the user not told"),
            Self::FeedExtra => (Place::Feed, "told without an event"),
            Self::FeedSessionMissing => (Place::Feed, "event of a session not told"),
        }
    }
}

impl Known {
    /// Notes a doubt at a position.
    pub fn doubt(&mut self, doubt: Doubt, position: Position) {
        if let Some(counted) = self.doubts.get_mut(doubt as usize) {
            if counted.count == 0 {
                counted.first = position;
            }
            counted.count = counted.count.saturating_add(1);
        }
        if matches!(doubt, Doubt::FeedMissing | Doubt::FeedSessionMissing) {
            self.untold.push(position);
        }
    }

    /// What was missing came late: `false` when it was not missing, or others stand before it.
    pub fn settle(&mut self, doubt: Doubt, position: Position) -> bool {
        let Some(index) = self.untold.iter().position(|untold| *untold == position) else {
            return false;
        };
        // Several sessions of a user may be parked at once.
        if doubt == Doubt::FeedMissing && index > 0 {
            return false;
        }
        self.untold.remove(index);
        if let Some(counted) = self.doubts.get_mut(doubt as usize) {
            counted.count = counted.count.saturating_sub(1);
            counted.first = self.untold.first().copied().unwrap_or(counted.first);
        }
        true
    }

    /// Something later is told: what is missing before it cannot come in order any more.
    pub fn told_on(&mut self) {
        self.untold.clear();
    }

    /// The user is deleted: what was before it may be gone everywhere.
    pub fn forget_doubts(&mut self) {
        self.doubts = Default::default();
        self.untold = Vec::new();
    }

    /// What is in doubt.
    pub fn doubts(&self) -> impl Iterator<Item = (Doubt, Counted)> {
        Doubt::ALL.into_iter().zip(self.doubts).filter(|(_, counted)| counted.count > 0)
    }

    /// Whether the user is deleted.
    pub const fn is_deleted(&self) -> bool {
        matches!(self.after, Some(Snapshot::Deleted(_)))
    }
}
