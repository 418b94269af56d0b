//! Folding what was read into the writes it leads to: pure.

use std::collections::{HashMap, HashSet};

use events::{
    Cutoff, DecodeError, Event, Position, Session, SessionId, Snapshot, Timestamp, UserFact, UserId,
};
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{Bson, DateTime, Document, doc};
use service_kit::event_log::Followed;
use views::{
    CutoffDocument, HistoryDocument, SessionDocument, UserDocument, history_collection,
    sessions_collection, user_key, users_collection,
};

use crate::generations::View;
use crate::read;

/// The messages of one stream, folded to one write per document, whatever their number.
pub trait Fold: Default + Send + Sync + 'static {
    /// What it leads to.
    const VIEW: View;

    /// Takes in the next message. An older one than what is there changes nothing.
    ///
    /// # Errors
    /// [`DecodeError`]: the message cannot be understood, and nothing behind it may be taken.
    fn add(&mut self, message: &Followed) -> Result<(), DecodeError>;

    /// Position of the last message; `None` when there is none.
    fn end(&self) -> Option<Position>;

    /// The writes to a generation: a collection and its updates, in order.
    ///
    /// # Errors
    /// Never for states that were read from the log.
    fn writes(&self, generation: u32) -> Result<Vec<(String, Vec<Document>)>, BsonError>;

    /// Documents that never change, and their collection.
    ///
    /// # Errors
    /// Never for events that were read from the log.
    fn inserts(&self, _generation: u32) -> Result<Option<(String, Vec<Document>)>, BsonError> {
        Ok(None)
    }

    /// Whether a message ends its aggregate, so that nothing counts which came before it.
    fn ends(_: &Followed) -> bool {
        false
    }

    /// Users of whom the writes add something that a deletion takes away: to the history, or sessions.
    fn added_to(&self) -> HashSet<UserId>;

    /// Keeps of each user what the last message says, and not every event.
    fn keep_states(&mut self) {}

    /// Drops what the last message of each user up to a position says: it is written already.
    fn drop_states(&mut self, _: Position) {}
}

/// Users: the last state of each, what ended their access last, and every event.
#[derive(Debug, Default, PartialEq)]
pub struct Users {
    states: HashMap<UserId, (Position, Snapshot)>,
    history: Vec<(UserId, HistoryDocument)>,
    cutoffs: HashMap<UserId, Cutoff>,
    end: Option<Position>,
}

impl Users {
    /// Takes in an event.
    ///
    /// # Errors
    /// Only when a value cannot be JSON, which no event read from the log has.
    pub fn event(&mut self, position: Position, event: Event) -> Result<(), serde_json::Error> {
        let entry = HistoryDocument::project(&event, position)?;
        self.history.push((event.user_id(), entry));
        self.state(position, event.after);
        Ok(())
    }

    fn state(&mut self, position: Position, after: Snapshot) {
        self.end = self.end.max(Some(position));
        let slot = self.states.entry(after.user_id()).or_insert_with(|| (position, after.clone()));
        if slot.0 < position {
            *slot = (position, after);
        }
    }

    /// Takes in a revocation.
    pub fn cutoff(&mut self, user: UserId, cutoff: Cutoff) {
        self.end = self.end.max(Some(cutoff.position));
        let slot = self.cutoffs.entry(user).or_insert(cutoff);
        if slot.position < cutoff.position {
            *slot = cutoff;
        }
    }
}

impl Users {
    /// Whether the user is deleted later in the same batch: then only the deletion is left.
    fn erases(&self, user: UserId, entry: &HistoryDocument) -> bool {
        self.states.get(&user).is_some_and(|(position, after)| {
            matches!(after, Snapshot::Deleted(_)) && entry.position() < *position
        })
    }
}

impl Fold for Users {
    const VIEW: View = View::Users;

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let Some(user) = message.subject.strip_prefix("rv.user.") else {
            let event = read::user_event(&message.subject, &message.payload)?;
            self.event(message.position, event)?;
            return Ok(());
        };
        let (user, revocation) = read::revocation(user, &message.payload)?;
        self.cutoff(user, Cutoff::of(revocation, message.position));
        Ok(())
    }

    fn end(&self) -> Option<Position> {
        self.end
    }

    fn writes(&self, generation: u32) -> Result<Vec<(String, Vec<Document>)>, BsonError> {
        let mut updates = Vec::with_capacity(self.states.len() + self.cutoffs.len());
        for (position, after) in self.states.values() {
            let document = UserDocument::project(after, *position);
            let content = match after {
                // What comes from sessions and revocations stays; a tombstone keeps nothing.
                Snapshot::Present(_) => doc! {"$mergeObjects": [
                    {"$literal": document.to_bson()?},
                    {"last_login_at": "$last_login_at", "cutoff": "$cutoff"},
                ]},
                Snapshot::Deleted(_) => doc! {"$literal": document.to_bson()?},
            };
            updates.push(replacement(document.id.into(), document.position, content));
        }
        for (user, cutoff) in &self.cutoffs {
            let document = CutoffDocument::project(cutoff);
            let newer =
                doc! {"$lt": [{"$ifNull": ["$cutoff.position", -1_i64]}, document.position]};
            let new = doc! {"$cond": [newer, {"$literal": document.to_bson()?}, "$cutoff"]};
            updates.push(addition(user_key(*user).into(), "cutoff", new));
        }
        Ok(vec![(users_collection(generation), updates)])
    }

    fn inserts(&self, generation: u32) -> Result<Option<(String, Vec<Document>)>, BsonError> {
        let left = self.history.iter().filter(|(user, entry)| !self.erases(*user, entry));
        let history = left.map(|(_, entry)| entry.to_bson()).collect::<Result<_, _>>()?;
        Ok(Some((history_collection(generation), history)))
    }

    fn ends(message: &Followed) -> bool {
        read::user_event(&message.subject, &message.payload)
            .is_ok_and(|event| event.fact == UserFact::Deleted)
    }

    fn added_to(&self) -> HashSet<UserId> {
        self.history.iter().map(|(user, _)| *user).collect()
    }

    fn keep_states(&mut self) {
        self.history.clear();
    }

    fn drop_states(&mut self, to: Position) {
        // A deletion is what tells which events of the same batch need not be written.
        let is_kept = |after: &Snapshot| matches!(after, Snapshot::Deleted(_));
        self.states.retain(|_, (position, after)| *position > to || is_kept(after));
        self.cutoffs.retain(|_, cutoff| cutoff.position > to);
    }
}

/// Sessions: the last state of each.
#[derive(Debug, Default, PartialEq)]
pub struct Sessions {
    states: HashMap<SessionId, (Position, Session)>,
    end: Option<Position>,
}

impl Sessions {
    /// Takes in the state after an event.
    pub fn state(&mut self, position: Position, after: Session) {
        self.end = self.end.max(Some(position));
        let slot = self.states.entry(after.id).or_insert_with(|| (position, after.clone()));
        if slot.0 < position {
            *slot = (position, after);
        }
    }
}

impl Fold for Sessions {
    const VIEW: View = View::Sessions;

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let event = read::session_event(&message.subject, &message.payload)?;
        self.state(message.position, event.after);
        Ok(())
    }

    fn end(&self) -> Option<Position> {
        self.end
    }

    fn writes(&self, generation: u32) -> Result<Vec<(String, Vec<Document>)>, BsonError> {
        let mut sessions = Vec::with_capacity(self.states.len());
        for (position, after) in self.states.values() {
            let document = SessionDocument::project(after, *position);
            let content = doc! {"$literal": document.to_bson()?};
            sessions.push(replacement(document.id.into(), document.position, content));
        }
        Ok(vec![(sessions_collection(generation), sessions)])
    }

    fn added_to(&self) -> HashSet<UserId> {
        self.states.values().map(|(_, session)| session.user_id).collect()
    }
}

/// What the views of users have out of the log of sessions: the last login of each.
#[derive(Debug, Default, PartialEq)]
pub struct Logins {
    logins: HashMap<UserId, Timestamp>,
    end: Option<Position>,
}

impl Logins {
    /// Takes in the state after an event.
    pub fn state(&mut self, position: Position, after: &Session) {
        self.end = self.end.max(Some(position));
        let login = self.logins.entry(after.user_id).or_insert(after.created_at);
        *login = (*login).max(after.created_at);
    }
}

impl Fold for Logins {
    const VIEW: View = View::Logins;

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let event = read::session_event(&message.subject, &message.payload)?;
        self.state(message.position, &event.after);
        Ok(())
    }

    fn end(&self) -> Option<Position> {
        self.end
    }

    fn writes(&self, generation: u32) -> Result<Vec<(String, Vec<Document>)>, BsonError> {
        let logins = self.logins.iter().map(|(user, at)| {
            let at = DateTime::from_millis(at.as_datetime().timestamp_millis());
            let latest = doc! {"$max": ["$last_login_at", at]};
            addition(user_key(*user).into(), "last_login_at", latest)
        });
        Ok(vec![(users_collection(generation), logins.collect())])
    }

    /// A tombstone takes no login in.
    fn added_to(&self) -> HashSet<UserId> {
        HashSet::new()
    }
}

/// Replaces a document unless it comes from a later position. One from the same position is written
/// again: it comes out the same, or in the layout of today. As a pipeline, so that the comparison is part
/// of the write and an existing newer document is no duplicate-key error; `$literal` in the content,
/// because a name may begin with `$`.
fn replacement(id: Bson, position: i64, content: Document) -> Document {
    let no_newer = doc! {"$lte": [{"$ifNull": ["$position", -1_i64]}, position]};
    doc! {
        "q": {"_id": id},
        "u": [{"$replaceWith": {"$cond": [no_newer, content, "$$ROOT"]}}],
        "upsert": true,
    }
}

/// Sets one member of a user's document, and of no tombstone. A document that is not there yet begins
/// with this member and has no `position`: readers pass it over until the user's event fills it.
fn addition(id: Bson, member: &str, value: Document) -> Document {
    let is_tombstone = doc! {"$gt": ["$deleted_at", Bson::Null]};
    doc! {
        "q": {"_id": id},
        "u": [{"$set": {member: {"$cond": [is_tombstone, "$$REMOVE", value]}}}],
        "upsert": true,
    }
}
