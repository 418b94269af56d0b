//! A bounded queue in front of threads, fair by client.
//!
//! Clients take turns: a client that sends much waits for its own work and does not delay others. When the queue is
//! full, a client with little in it pushes out the newest work of the one with most, so no client can hold all of it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::ports::HashClient;

/// The queue. Work that is in it when it is dropped is dropped as well.
pub struct FairQueue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    len_max: usize,
}

struct State<T> {
    lanes: HashMap<HashClient, VecDeque<T>>,
    /// Clients with work, in the order of their turns.
    turns: VecDeque<HashClient>,
    len: usize,
    closed: bool,
}

/// What became of work that was to be queued.
pub enum Pushed<T> {
    /// It waits for its turn.
    Queued,
    /// It waits for its turn instead of this, which somebody with more of it had.
    InsteadOf(T),
    /// It does not.
    Refused(T),
}

impl<T> FairQueue<T> {
    pub fn new(len_max: usize) -> Self {
        let state = State { lanes: HashMap::new(), turns: VecDeque::new(), len: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), len_max }
    }

    /// Queues work of a client.
    pub fn push(&self, client: HashClient, work: T) -> Pushed<T> {
        let mut state = self.state();
        let mut out = None;
        if state.len >= self.len_max {
            match state.push_out_for(client) {
                Some(pushed_out) => out = Some(pushed_out),
                None => return Pushed::Refused(work),
            }
        }
        let lane = state.lanes.entry(client).or_default();
        let is_first = lane.is_empty();
        lane.push_back(work);
        state.len += 1;
        if is_first {
            state.turns.push_back(client);
        }
        drop(state);
        self.changed.notify_one();
        out.map_or(Pushed::Queued, Pushed::InsteadOf)
    }

    /// Waits for the next work; `None` when the queue is closed.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state();
        loop {
            if state.closed {
                return None;
            }
            if let Some(work) = state.next() {
                return Some(work);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all waiting.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// The oldest work of the client whose turn it is.
    fn next(&mut self) -> Option<T> {
        let client = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&client)?;
        let work = lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&client);
        } else {
            self.turns.push_back(client);
        }
        self.len = self.len.saturating_sub(1);
        work
    }

    /// Takes out the newest of the longest lane, if a client would still have no more than that one then.
    fn push_out_for(&mut self, client: HashClient) -> Option<T> {
        let own = self.lanes.get(&client).map_or(0, VecDeque::len);
        let (longest, lane) = self.lanes.iter_mut().max_by_key(|(_, lane)| lane.len())?;
        if lane.len() <= own + 1 {
            return None;
        }
        let longest = *longest;
        let out = lane.pop_back();
        debug_assert!(!self.lanes.get(&longest).is_some_and(VecDeque::is_empty), "two at least");
        self.len = self.len.saturating_sub(1);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> HashClient {
        HashClient::network(std::net::IpAddr::from([192, 0, 2, n]))
    }

    #[test]
    fn clients_take_turns() {
        let queue = FairQueue::new(8);
        for work in ["a1", "a2", "a3"] {
            assert!(matches!(queue.push(client(1), work), Pushed::Queued));
        }
        for work in ["b1", "b2"] {
            assert!(matches!(queue.push(client(2), work), Pushed::Queued));
        }
        let order: Vec<_> = (0..5).filter_map(|_| queue.pop()).collect();
        assert_eq!(order, ["a1", "b1", "a2", "b2", "a3"]);
        queue.close();
        assert!(queue.pop().is_none());
    }

    #[test]
    fn no_client_holds_the_whole_queue() {
        let queue = FairQueue::new(4);
        for n in 0..4 {
            assert!(matches!(queue.push(client(1), n), Pushed::Queued));
        }
        assert!(matches!(queue.push(client(1), 4), Pushed::Refused(4)));
        // Others get in up to an equal share, and the newest work of the client with most goes.
        assert!(matches!(queue.push(client(2), 10), Pushed::InsteadOf(3)));
        assert!(matches!(queue.push(client(2), 11), Pushed::InsteadOf(2)));
        assert!(matches!(queue.push(client(2), 12), Pushed::Refused(12)));
        assert!(matches!(queue.push(client(3), 20), Pushed::InsteadOf(_)));
    }

    #[test]
    fn an_ipv6_site_is_one_client() {
        let network = |text: &str| HashClient::network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::3"), network("2001:db8:1:ffff::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }
}
