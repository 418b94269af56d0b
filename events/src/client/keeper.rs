//! Tells the server that messages are being worked on, so that it gives them to nobody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::Subject;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::wire::{Key, Wire};

/// The messages this process has, and how each is answered. Every one is announced again after a third of
/// the time in which it had to be acknowledged: two of the announcements may get lost.
///
/// They are sent by a task of its own, so that a handler that keeps its thread busy does not keep them back.
#[derive(Debug)]
pub(super) struct Keeper {
    held: Arc<Mutex<HashMap<Key, Subject>>>,
    /// Ends with the keeper.
    _announcer: JoinSet<()>,
}

impl Keeper {
    pub(super) fn new(wire: &Wire, ack_wait: Duration) -> Self {
        let held: Arc<Mutex<HashMap<Key, Subject>>> = Arc::default();
        let mut announcer = JoinSet::new();
        announcer.spawn(announce(wire.clone(), Arc::clone(&held), ack_wait / 3));
        Self { held, _announcer: announcer }
    }

    pub(super) fn len(&self) -> usize {
        self.with(|held| held.len())
    }

    pub(super) fn hold(&self, key: Key, reply: Subject) {
        self.with(|held| held.insert(key, reply));
    }

    /// Takes the newest way to answer of a message that is held already; `false` when it is not.
    pub(super) fn renew(&self, key: Key, reply: &Subject) -> bool {
        self.with(|held| held.get_mut(&key).map(|held| *held = reply.clone()).is_some())
    }

    pub(super) fn release(&self, key: Key) -> Option<Subject> {
        self.with(|held| held.remove(&key))
    }

    pub(super) fn release_all(&self) -> Vec<Subject> {
        self.with(|held| held.drain().map(|(_, reply)| reply).collect())
    }

    fn with<R>(&self, what: impl FnOnce(&mut HashMap<Key, Subject>) -> R) -> R {
        what(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn announce(wire: Wire, held: Arc<Mutex<HashMap<Key, Subject>>>, every: Duration) {
    let every = every.max(Duration::from_millis(10));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !wire.is_connected() {
            continue;
        }
        let replies: Vec<Subject> =
            held.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for reply in replies {
            if wire.in_progress(&reply).await.is_err() {
                return;
            }
        }
    }
}
