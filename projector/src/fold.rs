//! Folding messages of the log into writes to the views. Pure.

use std::collections::{HashMap, HashSet};

use events::{
    Cutoff, DecodeError, Event, Position, Session, SessionId, Snapshot, Timestamp, UserFact, UserId,
};
use mongodb::bson::error::Error as BsonError;
use mongodb::bson::{Bson, DateTime, Document, doc};
use service_kit::event_log::Followed;
use view_kit::{Fold, Inserts, Writes, replacement};
use views::{
    CutoffDocument, HistoryDocument, SessionDocument, UserDocument, history_collection,
    sessions_collection, user_key, users_collection,
};

use crate::generations::View;
use crate::read;

/// A fold that leads to one view of a generation.
pub trait IntoView: Fold {
    /// The view.
    const VIEW: View;

    /// Users for whom the writes add data that a deletion removes: history entries or sessions.
    fn added_to(&self) -> HashSet<UserId>;

    /// Keeps only the last state of each user, and not every event.
    fn keep_states(&mut self) {}
}

/// Users: the last state of each, the last end of their access, and every event.
#[derive(Debug, Default, PartialEq)]
pub struct Users {
    states: HashMap<UserId, (Position, Snapshot)>,
    history: Vec<(UserId, HistoryDocument)>,
    cutoffs: HashMap<UserId, Cutoff>,
}

impl Users {
    /// Adds an event.
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
        let slot = self.states.entry(after.user_id()).or_insert_with(|| (position, after.clone()));
        if slot.0 < position {
            *slot = (position, after);
        }
    }

    /// Adds a revocation.
    pub fn cutoff(&mut self, user: UserId, cutoff: Cutoff) {
        let slot = self.cutoffs.entry(user).or_insert(cutoff);
        if slot.position < cutoff.position {
            *slot = cutoff;
        }
    }
}

impl Users {
    /// Whether the user is deleted later in the same batch. Then only the deletion is kept.
    fn erases(&self, user: UserId, entry: &HistoryDocument) -> bool {
        self.states.get(&user).is_some_and(|(position, after)| {
            matches!(after, Snapshot::Deleted(_)) && entry.position() < *position
        })
    }
}

impl Fold for Users {
    const STREAM: &'static str = View::Users.stream();
    const FILTERS: &'static [&'static str] = View::Users.filters();
    const ROOTS: &'static [&'static str] = &["ev.user.", "rv.user."];

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

    fn writes(&self, generation: u32) -> Result<Vec<Writes>, BsonError> {
        let mut updates = Vec::with_capacity(self.states.len() + self.cutoffs.len());
        for (position, after) in self.states.values() {
            let document = UserDocument::project(after, *position);
            let content = match after {
                // Members from sessions and revocations stay. A tombstone keeps nothing.
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
        Ok(vec![Writes { collection: users_collection(generation), updates }])
    }

    fn inserts(&self, generation: u32) -> Result<Option<Inserts>, BsonError> {
        let left = self.history.iter().filter(|(user, entry)| !self.erases(*user, entry));
        let documents = left.map(|(_, entry)| entry.to_bson()).collect::<Result<_, _>>()?;
        Ok(Some(Inserts { collection: history_collection(generation), documents }))
    }

    fn ends(message: &Followed) -> bool {
        read::user_event(&message.subject, &message.payload)
            .is_ok_and(|event| event.fact == UserFact::Deleted)
    }

    fn drop_states(&mut self, to: Position) {
        // Only a deletion must be written: it determines which events of the same batch need not be.
        let is_kept = |after: &Snapshot| matches!(after, Snapshot::Deleted(_));
        self.states.retain(|_, (position, after)| *position > to || is_kept(after));
        self.cutoffs.retain(|_, cutoff| cutoff.position > to);
    }
}

impl IntoView for Users {
    const VIEW: View = View::Users;

    fn added_to(&self) -> HashSet<UserId> {
        self.history.iter().map(|(user, _)| *user).collect()
    }

    fn keep_states(&mut self) {
        self.history.clear();
    }
}

/// Sessions: the last state of each.
#[derive(Debug, Default, PartialEq)]
pub struct Sessions {
    states: HashMap<SessionId, (Position, Session)>,
}

impl Sessions {
    /// Adds the state after an event.
    pub fn state(&mut self, position: Position, after: Session) {
        let slot = self.states.entry(after.id).or_insert_with(|| (position, after.clone()));
        if slot.0 < position {
            *slot = (position, after);
        }
    }
}

impl Fold for Sessions {
    const STREAM: &'static str = View::Sessions.stream();
    const FILTERS: &'static [&'static str] = View::Sessions.filters();
    const ROOTS: &'static [&'static str] = &["ev.session."];

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let event = read::session_event(&message.subject, &message.payload)?;
        self.state(message.position, event.after);
        Ok(())
    }

    fn writes(&self, generation: u32) -> Result<Vec<Writes>, BsonError> {
        let mut updates = Vec::with_capacity(self.states.len());
        for (position, after) in self.states.values() {
            let document = SessionDocument::project(after, *position);
            let content = doc! {"$literal": document.to_bson()?};
            updates.push(replacement(document.id.into(), document.position, content));
        }
        Ok(vec![Writes { collection: sessions_collection(generation), updates }])
    }
}

impl IntoView for Sessions {
    const VIEW: View = View::Sessions;

    fn added_to(&self) -> HashSet<UserId> {
        self.states.values().map(|(_, session)| session.user_id).collect()
    }
}

/// The members of user documents that come from the log of sessions: the last login of each user.
#[derive(Debug, Default, PartialEq)]
pub struct Logins {
    logins: HashMap<UserId, Timestamp>,
}

impl Logins {
    /// Adds the state after an event.
    pub fn state(&mut self, after: &Session) {
        let login = self.logins.entry(after.user_id).or_insert(after.created_at);
        *login = (*login).max(after.created_at);
    }
}

impl Fold for Logins {
    const STREAM: &'static str = View::Logins.stream();
    const FILTERS: &'static [&'static str] = View::Logins.filters();
    const ROOTS: &'static [&'static str] = Sessions::ROOTS;

    fn add(&mut self, message: &Followed) -> Result<(), DecodeError> {
        let event = read::session_event(&message.subject, &message.payload)?;
        self.state(&event.after);
        Ok(())
    }

    fn writes(&self, generation: u32) -> Result<Vec<Writes>, BsonError> {
        let updates = self.logins.iter().map(|(user, at)| {
            let at = DateTime::from_millis(at.as_datetime().timestamp_millis());
            let latest = doc! {"$max": ["$last_login_at", at]};
            addition(user_key(*user).into(), "last_login_at", latest)
        });
        Ok(vec![Writes { collection: users_collection(generation), updates: updates.collect() }])
    }
}

impl IntoView for Logins {
    const VIEW: View = View::Logins;

    /// A tombstone takes no login.
    fn added_to(&self) -> HashSet<UserId> {
        HashSet::new()
    }
}

/// Sets one member of a user's document unless it is a tombstone. A document that does not exist yet starts with this
/// member and without `position`: readers ignore it until the user's event completes it.
fn addition(id: Bson, member: &str, value: Document) -> Document {
    let is_tombstone = doc! {"$gt": ["$deleted_at", Bson::Null]};
    doc! {
        "q": {"_id": id},
        "u": [{"$set": {member: {"$cond": [is_tombstone, "$$REMOVE", value]}}}],
        "upsert": true,
    }
}
