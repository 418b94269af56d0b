//! What a decision comes to: events, and what is written together with them.

use std::fmt::Debug;

use events::{CommandId, Envelope, Evolve, Origin, Revision, record};

use super::{Failure, IdempotencyKey, KeyRecord, Loaded};
use crate::ambient;
use crate::event_log::{Append, Guard, Write};

/// Guarded writes of a decision that are no events of its aggregate, such as a claim or a revocation.
pub trait FurtherWrites: Send + Sync {
    /// Whether there is none.
    fn is_empty(&self) -> bool;

    /// Whether views show one of them. Then an answer waits for its position even if there is no event.
    fn are_shown(&self) -> bool;
}

impl FurtherWrites for () {
    fn is_empty(&self) -> bool {
        true
    }

    fn are_shown(&self) -> bool {
        false
    }
}

/// Everything that one command changes: stored as a whole or not at all.
#[derive(Debug)]
pub struct Change<F: Evolve, W = ()> {
    /// The aggregate.
    pub id: F::Id,
    /// Its state before, with the guard of its next event.
    pub before: Loaded<Option<F::After>>,
    /// In order; none if nothing changes, or only further writes are stored.
    pub events: Vec<Envelope<F>>,
    /// Its state after the last event.
    pub after: Option<F::After>,
    /// Written in the same batch.
    pub further: W,
    /// Recorded in the same batch.
    pub key: Option<IdempotencyKey>,
}

impl<F: Evolve, W: Default> Change<F, W> {
    /// The change that facts make of a state.
    ///
    /// # Errors
    /// [`Failure::Internal`]: the facts cannot follow the state.
    pub fn decided(
        id: F::Id,
        before: Loaded<Option<F::After>>,
        facts: Vec<F>,
        origin: &Origin,
    ) -> Result<Self, Failure> {
        let (events, after) = record(id, before.value.clone(), facts, origin, ambient::new_uuid)
            .map_err(|error| Failure::Internal(error.to_string()))?;
        Ok(Self { id, before, events, after, further: W::default(), key: None })
    }

    /// A change of nothing but further writes, which carry their own guards.
    pub fn of_further(id: F::Id, further: W) -> Self {
        let before = Loaded::empty(None);
        Self { id, before, events: Vec::new(), after: None, further, key: None }
    }
}

impl<F: Evolve, W: FurtherWrites> Change<F, W> {
    /// Whether nothing is to be stored.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.further.is_empty() && self.key.is_none()
    }

    /// Whether the position of the command is that of its last write, not that of the event before it.
    pub(super) fn has_position(&self) -> bool {
        !self.events.is_empty() || self.further.are_shown()
    }

    /// Revision after it; 0 if there is no state.
    pub fn revision(&self) -> Revision {
        self.after.as_ref().map_or(Revision(0), F::revision)
    }

    /// The batch that stores it. `subject` is that of the aggregate's events, `further` are the further writes in
    /// their order, and `record` makes the write of the key's record.
    ///
    /// # Errors
    /// In words: it cannot be written.
    pub fn to_append(
        &self,
        subject: String,
        further: Vec<Write>,
        record: impl FnOnce(&IdempotencyKey, KeyRecord) -> Result<Write, String>,
    ) -> Result<Append, String> {
        let mut writes = further;
        // The record goes first: everything else follows it without a gap.
        if let Some(key) = &self.key {
            writes.insert(0, record(key, self.key_record(key, writes.len()))?);
        }
        let mut events = self.events.iter();
        let (command, last) = match events.next() {
            Some(first) => (first.command_id, first_event(subject, self.before.guard, first)?),
            None => {
                let last = writes.pop().ok_or("a change of nothing")?;
                (CommandId::from_uuid(ambient::new_uuid()), last)
            }
        };
        let mut append = writes.into_iter().fold(Append::new(command, last), Append::with);
        for event in events {
            append = append.then(json(event)?, event.id, event.fact.wire_type());
        }
        Ok(append)
    }

    fn key_record(&self, key: &IdempotencyKey, further: usize) -> KeyRecord {
        let messages_after = (further + self.events.len()) as u64;
        if !self.events.is_empty() {
            return KeyRecord::of(key, self.revision(), messages_after);
        }
        let unchanged = KeyRecord::unchanged(key, self.revision(), self.before.position);
        // The write that views show is the last one.
        let events_behind = if self.further.are_shown() { messages_after } else { 0 };
        KeyRecord { events_behind, ..unchanged }
    }
}

/// The write of the first event of a change, which carries the guard of all of them.
///
/// # Errors
/// In words: it cannot be JSON.
pub fn first_event<F: Evolve>(
    subject: String,
    guard: Guard,
    event: &Envelope<F>,
) -> Result<Write, String> {
    Ok(Write::new(subject, guard, json(event)?).event(event.id, event.fact.wire_type()))
}

fn json<F: Evolve>(event: &Envelope<F>) -> Result<Vec<u8>, String> {
    event.to_json().map_err(|error| error.to_string())
}
