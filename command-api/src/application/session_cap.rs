//! The bound on the sessions of one user: whoever has too many loses the oldest.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::{EndReason, SessionId, User, UserState};
use futures::stream::{self, StreamExt};
use service_kit::ambient;

use super::{CommandError, Users};

/// Sessions looked at after one login, the newest: what started before them has come to its turn with an earlier login.
const LOOKED_AT_MAX: usize = 1_000;
/// Look-ups under way at once.
const LOOK_UPS_MAX: usize = 32;
/// Dead sessions remembered by one process, of all users.
const REMEMBERED_MAX: usize = 100_000;

/// Sessions that are over. None of them ever lives again, so a user with many is not looked up over and over.
#[derive(Debug, Clone, Default)]
pub(super) struct DeadSessions(Arc<Mutex<Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    of: HashMap<events::UserId, HashSet<SessionId>>,
    count: usize,
}

impl DeadSessions {
    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a user that are not known to be dead, in their order.
    fn others(&self, user: events::UserId, ids: Vec<SessionId>) -> Vec<SessionId> {
        let remembered = self.lock();
        let Some(dead) = remembered.of.get(&user) else { return ids };
        ids.into_iter().filter(|id| !dead.contains(id)).collect()
    }

    fn remember(&self, user: events::UserId, id: SessionId) {
        let mut remembered = self.lock();
        if remembered.count >= REMEMBERED_MAX {
            *remembered = Remembered::default();
        }
        remembered.count += usize::from(remembered.of.entry(user).or_default().insert(id));
    }
}

impl Users {
    /// Ends the oldest sessions of a user beyond the bound. A login is not undone for it: what fails is left to the next
    /// one.
    pub(super) async fn cap_sessions(&self, user: &User) {
        if let Err(error) = self.end_oldest(user).await {
            tracing::warn!(%error, user = %user.id, "the oldest sessions of a user are left to the next login");
        }
    }

    async fn end_oldest(&self, user: &User) -> Result<(), CommandError> {
        let max = self.deps.session_rules.per_user_max;
        let started = self.deps.sessions.of_user(user.id).await?;
        if started.len() <= max {
            return Ok(());
        }
        let lineage = self.deps.lineage.current();
        let cutoff = self.log().cutoff(user.id).await?.value;
        let state = UserState::Present(user.clone());
        let ids = self.dead_sessions.others(user.id, started).into_iter().take(LOOKED_AT_MAX);
        let look_ups = ids.map(|id| async move {
            self.deps.sessions.load(user.id, id).await.map(|loaded| (id, loaded.value))
        });
        let mut sessions = stream::iter(look_ups).buffered(LOOK_UPS_MAX);
        let mut alive = 0;
        while let Some(found) = sessions.next().await {
            let (id, session) = found?;
            let rules = &self.deps.session_rules;
            let is_alive = session.is_some_and(|session| {
                let lineage = lineage.as_ref();
                rules.alive(&session, &state, &cutoff, lineage, ambient::now()).is_some()
            });
            alive += usize::from(is_alive);
            if is_alive && alive > max {
                self.end(user.id, id, EndReason::Revoked).await?;
            }
            if !is_alive || alive > max {
                self.dead_sessions.remember(user.id, id);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use events::UserId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_kept_apart_by_user() {
        let dead = DeadSessions::default();
        let (ada, bob) =
            (UserId::from_uuid(Uuid::from_u128(1)), UserId::from_uuid(Uuid::from_u128(2)));
        let ids: Vec<_> = (0..3).map(|n| SessionId::from_uuid(Uuid::from_u128(n))).collect();
        dead.remember(ada, ids[1]);
        assert_eq!(dead.others(ada, ids.clone()), [ids[0], ids[2]]);
        assert_eq!(dead.others(bob, ids.clone()), ids);
        for n in 0..REMEMBERED_MAX as u128 {
            dead.remember(bob, SessionId::from_uuid(Uuid::from_u128(n)));
        }
        assert!(dead.lock().count <= REMEMBERED_MAX);
        assert_eq!(dead.others(ada, ids.clone()), ids, "forgotten, to be looked up again");
    }
}
