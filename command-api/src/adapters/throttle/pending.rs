//! How many attempts of this process may stand before one record.
//!
//! Attempts at one account take turns at its record, and each turn asks the server. Without a bound a flood makes its
//! owner wait behind it for seconds, only to be refused. So a few may wait and the others are refused at once; and one
//! network may have half of the places, so that there is one for whoever comes from elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Attempts at one account that wait.
const PENDING_MAX: usize = 64;
/// Of these, attempts from one network.
const PENDING_PER_NETWORK_MAX: usize = 32;

type Counts = HashMap<Option<String>, usize>;

/// Attempts that wait, by the record of the account and that of the network.
#[derive(Default)]
pub(super) struct Pending(Mutex<HashMap<String, Counts>>);

/// An attempt's place among those that wait, as long as it lives.
pub(super) struct Entered<'a> {
    pending: &'a Pending,
    account: &'a str,
    network: Option<&'a str>,
}

impl Pending {
    /// Takes a place. `None` when there is none.
    pub(super) fn enter<'a>(
        &'a self,
        account: &'a str,
        network: Option<&'a str>,
    ) -> Option<Entered<'a>> {
        let mut all = self.all();
        let counts = all.entry(account.to_owned()).or_default();
        let waiting: usize = counts.values().sum();
        let own = counts.entry(network.map(str::to_owned)).or_default();
        let network_is_full = network.is_some() && *own >= PENDING_PER_NETWORK_MAX;
        if waiting >= PENDING_MAX || network_is_full {
            return None;
        }
        *own += 1;
        Some(Entered { pending: self, account, network })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut all = self.pending.all();
        let Some(counts) = all.get_mut(self.account) else { return };
        if let Some(own) = counts.get_mut(&self.network.map(str::to_owned)) {
            *own = own.saturating_sub(1);
        }
        counts.retain(|_, own| *own > 0);
        if counts.is_empty() {
            all.remove(self.account);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_has_half_of_the_places() {
        let pending = Pending::default();
        let enter = |network| pending.enter("ada", Some(network));
        let first: Vec<_> = (0..40).map_while(|_| enter("one")).collect();
        assert_eq!(first.len(), PENDING_PER_NETWORK_MAX);
        let second: Vec<_> = (0..40).map_while(|_| enter("two")).collect();
        assert_eq!(second.len(), PENDING_MAX - PENDING_PER_NETWORK_MAX);
        assert!(enter("three").is_none(), "no place is left");
        assert!(pending.enter("eve", Some("one")).is_some(), "another account is another matter");
        drop(first);
        assert!(enter("three").is_some());
        drop(second);
        assert!(pending.all().is_empty());
    }
}
