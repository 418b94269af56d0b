//! Decisions about a session.

use std::net::IpAddr;

use events::{
    Cutoff, EndReason, Lineage, LineageRecord, Position, Session, SessionFact, SessionSeed, Status,
    Timestamp, User, UserState,
};

/// Lifetimes and limits of sessions.
#[derive(Debug, Clone, Copy)]
pub struct SessionRules {
    /// Longest time between two refreshes, in seconds.
    pub idle_s: u64,
    /// Longest lifetime, in seconds.
    pub absolute_s: u64,
    /// How long a replaced refresh token still gets the same successor, in seconds.
    pub reuse_window_s: u64,
    /// Whether users may log in before their address is verified.
    pub login_unverified: bool,
    /// Most live sessions of one user.
    pub per_user_max: usize,
}

/// A client's address and user agent, as shown to the owner of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The address.
    pub ip: IpAddr,
    /// The user agent.
    pub user_agent: Option<String>,
}

impl SessionRules {
    /// Whether a user may be logged in at all.
    #[must_use]
    pub fn admits(&self, user: &User) -> bool {
        user.status == Status::Active && (user.email_verified || self.login_unverified)
    }

    /// A new session of a user who may log in; `None` for any other.
    #[must_use]
    pub fn start(
        &self,
        user: &UserState,
        (lineage, epoch): (Option<Lineage>, Position),
        seed: SessionSeed,
        device: &Device,
        now: Timestamp,
    ) -> Option<(SessionFact, User)> {
        let UserState::Present(user) = user else { return None };
        if !self.admits(user) {
            return None;
        }
        let ends_at = now.plus_seconds(self.absolute_s);
        let fact = SessionFact::Started {
            epoch,
            lineage,
            seed,
            expires_at: now.plus_seconds(self.idle_s).min(ends_at),
            ends_at,
            user_agent: device.user_agent.clone(),
            ip: Some(device.ip.to_string()),
        };
        Some((fact, user.clone()))
    }

    /// Decides on a refresh token of a generation. The user is the present one, not that of the login.
    #[must_use]
    pub fn refresh(
        &self,
        session: &Session,
        generation: u32,
        user: &UserState,
        cutoff: &Cutoff,
        lineage: Option<&LineageRecord>,
        now: Timestamp,
    ) -> Refresh {
        let Some(user) = self.alive(session, user, cutoff, lineage, now) else {
            return Refresh::Refused;
        };
        if generation == session.generation {
            let expires_at = now.plus_seconds(self.idle_s).min(session.ends_at);
            let lineage = lineage.map(|record| record.lineage);
            let fact = SessionFact::Refreshed { epoch: cutoff.position, lineage, expires_at };
            return Refresh::Rotated(fact, user.clone());
        }
        if generation > session.generation {
            return Refresh::Refused;
        }
        let in_time = now <= session.refreshed_at.plus_seconds(self.reuse_window_s);
        if generation + 1 == session.generation && in_time {
            return Refresh::Repeated(user.clone());
        }
        Refresh::Stolen(SessionFact::TheftDetected)
    }

    /// The user of a live session.
    #[must_use]
    pub fn alive<'a>(
        &self,
        session: &Session,
        user: &'a UserState,
        cutoff: &Cutoff,
        lineage: Option<&LineageRecord>,
        now: Timestamp,
    ) -> Option<&'a User> {
        let UserState::Present(user) = user else { return None };
        let alive = session.ended.is_none()
            && now < session.expires_at
            && now < session.ends_at
            && self.admits(user)
            // Positions of another history cannot be compared.
            && lineage.is_none_or(|record| record.admits(session.lineage))
            && cutoff.spares(session.id, session.epoch)
            // The session knows a revocation that the log does not contain: the log went back, and later revocations
            // are lost with it.
            && session.epoch <= cutoff.position;
        alive.then_some(user)
    }
}

/// The result of a refresh.
#[derive(Debug, Clone, PartialEq)]
pub enum Refresh {
    /// The next refresh token.
    Rotated(SessionFact, User),
    /// The refresh token that is already valid: the answer was lost, or another tab was faster.
    Repeated(User),
    /// A replaced token was used again: neither its holder nor the holder of the newest one can be trusted.
    Stolen(SessionFact),
    /// Rejected.
    Refused,
}

/// Ends a session; `None` if it has ended.
#[must_use]
pub fn end(session: &Session, reason: EndReason) -> Option<SessionFact> {
    session.ended.is_none().then_some(SessionFact::Ended { reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::{Metadata, SessionId, UserFact, UserId, UserRevocation, evolve_session};

    const RULES: SessionRules = SessionRules {
        idle_s: 100,
        absolute_s: 250,
        reuse_window_s: 10,
        login_unverified: true,
        per_user_max: 100,
    };

    fn user_id() -> UserId {
        "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap()
    }

    fn session_id() -> SessionId {
        "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c".parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap()
    }

    fn user(facts: &[UserFact]) -> UserState {
        let registered = UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified: false,
            full_name: None,
            roles: vec!["user".to_owned()],
            metadata: Metadata::new(),
            imported: None,
        };
        let fold = |state: UserState, fact| state.evolve(user_id(), fact, at(0)).unwrap();
        [registered].iter().chain(facts).fold(UserState::Absent, fold)
    }

    fn start(user: &UserState) -> Option<(SessionFact, User)> {
        let seed = SessionSeed::from_bytes([1; 16]);
        let device = Device { ip: IpAddr::from([192, 0, 2, 1]), user_agent: None };
        RULES.start(user, (None, Position(0)), seed, &device, at(0))
    }

    /// A session that starts at 0 and is refreshed at these seconds.
    fn session(refreshed_at: &[i64]) -> Session {
        let (started, _) = start(&user(&[])).unwrap();
        let start = evolve_session(None, user_id(), session_id(), &started, at(0)).unwrap();
        refreshed_at.iter().fold(start, |session, second| {
            let generation = session.generation;
            let refreshed = RULES.refresh(
                &session,
                generation,
                &user(&[]),
                &Cutoff::default(),
                None,
                at(*second),
            );
            let Refresh::Rotated(fact, _) = refreshed else { panic!("{refreshed:?}") };
            evolve_session(Some(session), user_id(), session_id(), &fact, at(*second)).unwrap()
        })
    }

    fn present(session: &Session, generation: u32, second: i64) -> Refresh {
        RULES.refresh(session, generation, &user(&[]), &Cutoff::default(), None, at(second))
    }

    #[test]
    fn the_good_token_is_replaced_and_the_one_before_repeated_for_a_while() {
        let session = session(&[50]);
        assert_eq!(session.generation, 2);
        assert!(matches!(present(&session, 2, 60), Refresh::Rotated(..)));
        assert!(matches!(present(&session, 1, 60), Refresh::Repeated(_)));
        assert!(matches!(present(&session, 1, 61), Refresh::Stolen(_)));
        assert!(matches!(present(&session, 3, 60), Refresh::Refused));
    }

    #[test]
    fn an_ancestor_is_theft_at_any_time() {
        let session = session(&[50, 51]);
        assert!(matches!(present(&session, 2, 51), Refresh::Repeated(_)));
        assert!(matches!(present(&session, 1, 51), Refresh::Stolen(_)));
    }

    #[test]
    fn a_session_ends_when_idle_and_in_any_case() {
        assert!(matches!(present(&session(&[]), 1, 99), Refresh::Rotated(..)));
        assert!(matches!(present(&session(&[]), 1, 100), Refresh::Refused));
        let kept = session(&[90, 180]);
        assert_eq!(kept.expires_at, at(250), "refreshing does not move the end");
        assert!(matches!(present(&kept, 3, 249), Refresh::Rotated(..)));
        assert!(matches!(present(&kept, 3, 250), Refresh::Refused));
        // A dead session has nothing left to protect, so this is not theft.
        assert!(matches!(present(&kept, 1, 250), Refresh::Refused));
    }

    #[test]
    fn the_user_of_now_decides() {
        let session = session(&[]);
        let refresh = |state: &UserState, cutoff: &Cutoff| {
            RULES.refresh(&session, 1, state, cutoff, None, at(1))
        };
        let roles = vec!["admin".to_owned()];
        let promoted = user(&[UserFact::RolesChanged { roles: roles.clone() }]);
        let Refresh::Rotated(_, now) = refresh(&promoted, &Cutoff::default()) else { panic!() };
        assert_eq!(now.roles, roles);
        for gone in [UserState::Absent, user(&[UserFact::Disabled]), user(&[UserFact::Deleted])] {
            assert_eq!(refresh(&gone, &Cutoff::default()), Refresh::Refused);
        }
        let cutoff =
            |next: fn(&Cutoff) -> UserRevocation| Cutoff::of(next(&Cutoff::default()), Position(9));
        assert_eq!(refresh(&user(&[]), &cutoff(|c| c.all())), Refresh::Refused);
        let Refresh::Rotated(SessionFact::Refreshed { epoch, .. }, _) =
            refresh(&user(&[]), &cutoff(|c| c.tokens()))
        else {
            panic!("only access tokens end")
        };
        assert_eq!(epoch, Position(9), "the session has taken note");
    }

    /// The files of the log were restored: the revocation that the session knows is gone, and others may be.
    #[test]
    fn a_session_that_knows_of_a_later_revocation_than_the_log_is_refused() {
        let cutoff = Cutoff::of(Cutoff::default().tokens(), Position(9));
        let before = session(&[]);
        let Refresh::Rotated(fact, _) = RULES.refresh(&before, 1, &user(&[]), &cutoff, None, at(1))
        else {
            panic!("only access tokens end")
        };
        let session = evolve_session(Some(before), user_id(), session_id(), &fact, at(1)).unwrap();
        let refresh = |cutoff: &Cutoff| RULES.refresh(&session, 2, &user(&[]), cutoff, None, at(2));
        assert!(matches!(refresh(&cutoff), Refresh::Rotated(..)));
        let earlier = Cutoff::of(Cutoff::default().tokens(), Position(8));
        for lost in [Cutoff::default(), earlier] {
            assert_eq!(refresh(&lost), Refresh::Refused);
        }
    }

    #[test]
    fn a_session_of_another_history_is_refused_whatever_its_epoch() {
        let record = |n| LineageRecord::new(Lineage::from_bytes([n; 8]), None);
        let started = |lineage| {
            let seed = SessionSeed::from_bytes([1; 16]);
            let device = Device { ip: IpAddr::from([192, 0, 2, 1]), user_agent: None };
            let epoch = (lineage, Position(0));
            let (fact, _) = RULES.start(&user(&[]), epoch, seed, &device, at(0)).unwrap();
            evolve_session(None, user_id(), session_id(), &fact, at(0)).unwrap()
        };
        let refresh = |session: &Session, record: &LineageRecord| {
            RULES.refresh(session, 1, &user(&[]), &Cutoff::default(), Some(record), at(1))
        };
        let (first, second) = (record(1), record(2));
        let session = started(Some(first.lineage));
        assert_eq!(refresh(&session, &second), Refresh::Refused);
        // Sessions from before histories had names, and those that the operator kept, join this history.
        for (session, current) in [
            (&session, first.clone()),
            (&session, second.clone().keeping(&first)),
            (&started(None), second.clone()),
        ] {
            let Refresh::Rotated(SessionFact::Refreshed { lineage, .. }, _) =
                refresh(session, &current)
            else {
                panic!("{session:?} lives on in {current:?}")
            };
            assert_eq!(lineage, Some(current.lineage));
        }
    }

    #[test]
    fn a_session_starts_for_an_active_user_alone() {
        assert!(start(&user(&[])).is_some());
        assert!(start(&user(&[UserFact::Disabled, UserFact::Enabled])).is_some());
        for gone in [UserState::Absent, user(&[UserFact::Disabled]), user(&[UserFact::Deleted])] {
            assert_eq!(start(&gone), None);
        }
    }

    #[test]
    fn whoever_must_verify_first_has_no_session() {
        let rules = SessionRules { login_unverified: false, ..RULES };
        let refreshed = |user: &UserState| {
            rules.refresh(&session(&[]), 1, user, &Cutoff::default(), None, at(1))
                != Refresh::Refused
        };
        for (facts, admitted) in [(vec![], false), (vec![UserFact::EmailVerified], true)] {
            let UserState::Present(now) = user(&facts) else { panic!("a living user") };
            assert_eq!(rules.admits(&now), admitted);
            assert_eq!(refreshed(&user(&facts)), admitted);
        }
    }

    #[test]
    fn an_end_happens_once() {
        let session = session(&[]);
        let fact = end(&session, EndReason::Logout).unwrap();
        let ended = evolve_session(Some(session), user_id(), session_id(), &fact, at(5)).unwrap();
        assert_eq!(end(&ended, EndReason::Revoked), None);
        assert!(matches!(present(&ended, 1, 6), Refresh::Refused));
    }
}
