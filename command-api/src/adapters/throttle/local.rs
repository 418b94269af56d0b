//! The part of the users' quotas that a process lets through without asking the others.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use events::UserId;

use crate::domain::{Quota, QuotaPolicy};
use crate::ports::throttle::UserAction;

/// One part in so many is let through from memory, by each process.
const SHARE: u32 = 10;
/// Users and deeds that are remembered, some 100 bytes each. Beyond that everything is counted in the bucket.
const REMEMBERED_MAX: usize = 100_000;
/// Shortest time between two looks for what can be forgotten, in milliseconds.
const SWEEP_PERIOD_MS: u64 = 60_000;

/// What this process has let through.
#[derive(Default)]
pub(super) struct LocalQuotas(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    quotas: HashMap<(UserId, u8), Quota>,
    swept_at_ms: u64,
}

impl LocalQuotas {
    /// Lets one more through, if it is within this process's part of the policy.
    pub(super) fn let_in(
        &self,
        user: UserId,
        action: UserAction,
        policy: QuotaPolicy,
        now_ms: u64,
    ) -> bool {
        let part = QuotaPolicy {
            per_minute_max: policy.per_minute_max / SHARE,
            per_day_max: policy.per_day_max / SHARE,
        };
        if part.per_minute_max == 0 || part.per_day_max == 0 {
            return false;
        }
        let mut remembered = self.remembered();
        let key = key(user, action);
        if !remembered.quotas.contains_key(&key) && !remembered.has_room(now_ms) {
            return false;
        }
        remembered.quotas.entry(key).or_default().count(now_ms, part).is_ok()
    }

    /// Forgets what a user did.
    pub(super) fn forget(&self, user: UserId, action: UserAction) {
        self.remembered().quotas.remove(&key(user, action));
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Remembered {
    fn has_room(&mut self, now_ms: u64) -> bool {
        if self.quotas.len() >= REMEMBERED_MAX
            && now_ms >= self.swept_at_ms.saturating_add(SWEEP_PERIOD_MS)
        {
            self.swept_at_ms = now_ms;
            self.quotas.retain(|_, quota| !quota.is_over(now_ms));
        }
        self.quotas.len() < REMEMBERED_MAX
    }
}

const fn key(user: UserId, action: UserAction) -> (UserId, u8) {
    let action = match action {
        UserAction::Write => 0,
        UserAction::Refresh => 1,
        UserAction::Login => 2,
        UserAction::PasswordCheck => 3,
    };
    (user, action)
}

#[cfg(test)]
mod tests {
    use service_kit::ambient;

    use super::*;

    #[test]
    fn a_tenth_is_let_through_from_memory() {
        let policy = QuotaPolicy { per_minute_max: 30, per_day_max: 1_000 };
        let (quotas, user) = (LocalQuotas::default(), UserId::from_uuid(ambient::new_uuid()));
        let day = 86_400_000;
        let mut let_in = 0;
        for minute in 0..60 {
            for _ in 0..5 {
                let now_ms = day + minute * 60_000;
                let_in += u32::from(quotas.let_in(user, UserAction::Write, policy, now_ms));
            }
        }
        assert_eq!(let_in, 100, "3 a minute, and 100 a day");
        assert!(quotas.let_in(user, UserAction::Refresh, policy, day), "each action has its own");
        // Of a limit below ten nothing is let through without the others.
        let tight = QuotaPolicy { per_minute_max: 9, per_day_max: 1_000 };
        assert!(!quotas.let_in(user, UserAction::Login, tight, day));
    }
}
