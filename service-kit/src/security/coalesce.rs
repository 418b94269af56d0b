//! How much is written: repetitions within a minute become one record with a count, and what nobody has to be known
//! for has a budget.
//!
//! - The first occurrence is written at once. Those of the same kind, user, address, actor and client that follow
//!   within the minute are written as one record with their number when the minute is over.
//! - What an anonymous client can cause (refused logins, limits, requests for a link) is written one by one up to a
//!   number a minute, counted apart for users that exist and for addresses that nobody has: who sprays addresses
//!   cannot hide an attack on an account. Beyond that only the numbers are written: one record for each kind and
//!   reason, without anybody in it.
//! - Of calls that the caller may not make, those to different users are repetitions as well.
//! - A change that was made is written each time. Its work bounds it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use events::{Actor, UserId};

use super::{Kind, Outcome, SecurityRecord};
use crate::ambient;

/// Length of a window.
const WINDOW_S: u64 = 60;
/// Different things that are told apart within one window. Further ones are counted without anybody.
const KEYS_MAX: usize = 20_000;

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    kind: Kind,
    outcome: Outcome,
    reason: Option<Cow<'static, str>>,
    operation: Option<String>,
    user: Option<UserId>,
    address: Option<String>,
    actor: Actor,
    ip: Option<IpAddr>,
}

impl Key {
    fn of(record: &SecurityRecord) -> Self {
        // Whoever may not call chooses the ids in the path: they are no other thing each time.
        let is_denied =
            record.kind == Kind::AdministrativeCall && record.outcome == Outcome::Refused;
        Self {
            kind: record.kind,
            outcome: record.outcome,
            reason: record.reason.clone(),
            operation: record.operation.clone(),
            user: if is_denied { None } else { record.user_id },
            address: record.address_key.clone(),
            actor: record.actor,
            ip: record.ip,
        }
    }
}

/// The last of what was repeated, and how often it was.
struct Repeated {
    last: SecurityRecord,
    count: u64,
}

/// How a kind of record is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Written each time.
    Each,
    /// Repetitions are put together.
    Repetitions,
    /// The same, and within the budget of what is anonymous.
    Budget,
}

const fn bound(record: &SecurityRecord) -> Bound {
    match (record.kind, record.outcome) {
        (Kind::Login, Outcome::Succeeded)
        | (Kind::AdministrativeCall | Kind::PasswordCheck | Kind::RefreshTokenTheft, _) => {
            Bound::Repetitions
        }
        (Kind::Login | Kind::AttemptLimited | Kind::PasswordResetRequested, _) => Bound::Budget,
        (
            Kind::PasswordReset
            | Kind::PasswordChanged
            | Kind::EmailChanged
            | Kind::RolesChanged
            | Kind::UserDisabled
            | Kind::UserEnabled
            | Kind::UserDeleted,
            _,
        ) => Bound::Each,
    }
}

/// What was seen within the present minute.
pub struct Coalescer {
    window: u64,
    seen: HashMap<Key, Repeated>,
    per_minute_max: u32,
    /// Anonymous records of this window about users, and about nobody.
    written: [u32; 2],
    due: Vec<SecurityRecord>,
}

impl Coalescer {
    /// With a budget a minute for what is anonymous.
    #[must_use]
    pub fn new(per_minute_max: u32) -> Self {
        Self { window: 0, seen: HashMap::new(), per_minute_max, written: [0; 2], due: Vec::new() }
    }

    /// The record, if it is to be written now; otherwise it is counted. `now_s` never goes back.
    pub fn admit(&mut self, now_s: u64, record: SecurityRecord) -> Option<SecurityRecord> {
        self.turn(now_s);
        let bound = bound(&record);
        if bound == Bound::Each {
            return Some(record);
        }
        if let Some(repeated) = self.seen.get_mut(&Key::of(&record)) {
            repeated.count += 1;
            repeated.last = record;
            return None;
        }
        let is_budgeted = bound == Bound::Budget;
        if self.seen.len() >= KEYS_MAX || (is_budgeted && !self.is_within_budget(&record)) {
            let record = without_anybody(record);
            let repeated = self.seen.entry(Key::of(&record));
            let repeated = repeated.or_insert_with(|| Repeated { last: record.clone(), count: 0 });
            repeated.count += 1;
            repeated.last = record;
            return None;
        }
        self.seen.insert(Key::of(&record), Repeated { last: record.clone(), count: 0 });
        Some(record)
    }

    /// What was counted in minutes that are over.
    pub fn take_due(&mut self, now_s: u64) -> Vec<SecurityRecord> {
        self.turn(now_s);
        std::mem::take(&mut self.due)
    }

    /// Everything that was counted, as at the end of the service.
    pub fn take_all(&mut self) -> Vec<SecurityRecord> {
        self.close();
        std::mem::take(&mut self.due)
    }

    fn is_within_budget(&mut self, record: &SecurityRecord) -> bool {
        let [users, nobody] = &mut self.written;
        let written = if record.user_id.is_some() { users } else { nobody };
        if *written >= self.per_minute_max {
            return false;
        }
        *written += 1;
        true
    }

    fn turn(&mut self, now_s: u64) {
        let window = now_s / WINDOW_S;
        if window != self.window {
            self.close();
            self.window = window;
            self.written = [0; 2];
        }
    }

    fn close(&mut self) {
        let repeated = self.seen.drain().map(|(_, repeated)| repeated);
        self.due.extend(repeated.filter(|repeated| repeated.count > 0).map(|repeated| {
            // Of its own: the first occurrence is stored under its own id.
            SecurityRecord { id: ambient::new_uuid(), count: repeated.count, ..repeated.last }
        }));
    }
}

fn without_anybody(record: SecurityRecord) -> SecurityRecord {
    SecurityRecord {
        user_id: None,
        address_key: None,
        actor: Actor::Anonymous,
        session_id: None,
        ip: None,
        user_agent: None,
        request_id: None,
        ..record
    }
}

#[cfg(test)]
mod tests {
    use events::UserId;

    use super::*;
    use crate::security::SecurityEvent;

    fn refused(address: &str, user: Option<UserId>) -> SecurityRecord {
        let mut event = SecurityEvent::new(Kind::Login, Outcome::Refused).because("wrong-password");
        if let Some(user) = user {
            event = event.about(user);
        }
        SecurityRecord { address_key: Some(address.to_owned()), ..event.record(None) }
    }

    #[test]
    fn repetitions_within_a_minute_become_one_record_with_their_number() {
        let mut coalescer = Coalescer::new(10);
        assert!(coalescer.admit(60, refused("a", None)).is_some());
        for second in 61..64 {
            assert!(coalescer.admit(second, refused("a", None)).is_none());
        }
        assert!(coalescer.admit(64, refused("b", None)).is_some(), "another address");
        assert!(coalescer.take_due(119).is_empty());
        let due = coalescer.take_due(120);
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].count, due[0].address_key.as_deref()), (3, Some("a")));
        assert!(coalescer.admit(121, refused("a", None)).is_some(), "another minute");
        assert!(coalescer.take_all().is_empty(), "nothing was repeated");
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_by_the_budget() {
        let mut coalescer = Coalescer::new(10);
        let written =
            (0..1_000).filter_map(|n| coalescer.admit(60, refused(&n.to_string(), None))).count();
        assert_eq!(written, 10);
        let due = coalescer.take_due(120);
        assert_eq!(due.len(), 1, "one record for the rest");
        let rest = &due[0];
        assert_eq!((rest.count, &rest.address_key, rest.ip), (990, &None, None));
        assert_eq!(rest.actor, Actor::Anonymous);
    }

    #[test]
    fn a_flood_of_unknown_addresses_does_not_hide_an_attack_on_a_user() {
        let mut coalescer = Coalescer::new(10);
        for n in 0..1_000 {
            coalescer.admit(60, refused(&n.to_string(), None));
        }
        let user = UserId::from_uuid(ambient::new_uuid());
        let record = coalescer.admit(61, refused("ada", Some(user))).unwrap();
        assert_eq!(record.filed_under(), Some(user));
    }

    #[test]
    fn a_change_is_written_each_time() {
        let mut coalescer = Coalescer::new(1);
        let user = UserId::from_uuid(ambient::new_uuid());
        for _ in 0..5 {
            let event = SecurityEvent::new(Kind::RolesChanged, Outcome::Succeeded).about(user);
            assert!(coalescer.admit(60, event.record(None)).is_some());
        }
    }
}
