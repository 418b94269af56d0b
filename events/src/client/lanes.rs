//! One event of a user at a time, in order; those of different users side by side.

use std::collections::{HashMap, HashSet, VecDeque};

use async_nats::Subject;

use super::wire::{Delivery, Key};
use crate::UserId;

/// How many handled messages are remembered. They come again when the server died before it had written
/// down that they were acknowledged, which is a moment's worth of them.
const HANDLED_MAX: usize = 8_192;

/// Whose events are being worked on, and what waits for that.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    busy: HashSet<UserId>,
    waiting: HashMap<UserId, VecDeque<Delivery>>,
}

impl Lanes {
    pub(super) fn is_busy(&self, user: UserId) -> bool {
        self.busy.contains(&user)
    }

    pub(super) fn begin(&mut self, user: UserId) {
        self.busy.insert(user);
    }

    pub(super) fn end(&mut self, user: UserId) {
        self.busy.remove(&user);
    }

    pub(super) fn wait(&mut self, delivery: Delivery) {
        self.waiting.entry(delivery.user).or_default().push_back(delivery);
    }

    /// The next that waits for a user whose turn it is.
    pub(super) fn next(&mut self, user: UserId) -> Option<Delivery> {
        if self.is_busy(user) {
            return None;
        }
        let waiting = self.waiting.get_mut(&user)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&user);
        }
        next
    }

    /// Whether the end of a user waits, which makes all before it void.
    pub(super) fn deletion_waits(&self, user: UserId) -> bool {
        self.waiting.get(&user).is_some_and(|waiting| waiting.iter().any(Delivery::is_deletion))
    }

    /// All that wait, none of them begun.
    pub(super) fn take_waiting(&mut self) -> Vec<Delivery> {
        self.waiting.drain().flat_map(|(_, waiting)| waiting).collect()
    }
}

/// The messages that were handled last, so that one that comes again is only acknowledged again.
#[derive(Debug, Default)]
pub(super) struct Handled {
    order: VecDeque<Key>,
    replies: HashMap<Key, Subject>,
}

impl Handled {
    pub(super) fn add(&mut self, key: Key, reply: Subject) {
        if self.replies.insert(key, reply).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > HANDLED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.replies.remove(&oldest);
        }
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.replies.contains_key(&key)
    }

    /// How those are acknowledged that lie behind a place in the stream, in the order they were handled.
    pub(super) fn behind(&self, floor: u64) -> impl Iterator<Item = &Subject> {
        let behind = self.order.iter().filter(move |key| key.sequence > floor);
        behind.filter_map(|key| self.replies.get(key))
    }
}
