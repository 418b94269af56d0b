//! Records on subjects without events: claims, revocations, links.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Actor, CommandId, Position, Revision, SessionId, Timestamp, UserId};

/// The claim on an e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmailClaim {
    /// The user who has or had the address.
    pub user_id: UserId,
    /// Whether the address is taken.
    pub state: ClaimState,
    /// For a released address: how long it is reserved. For a held one: the same for when it is released again. Absent
    /// in records from before reservations existed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Reservation>,
}

/// Reserves an address that a user changed for this user as long as the link that undoes the change is valid: an
/// attacker who has taken over the account must not defeat that link by registering with the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// When it ends.
    pub until: Timestamp,
    /// Revision of the change. Once that is undone ([`UndoneChanges`]), the reservation ends, too.
    pub change: Revision,
}

impl EmailClaim {
    /// The claim of a user who has the address.
    #[must_use]
    pub const fn held(user_id: UserId) -> Self {
        Self { user_id, state: ClaimState::Held, reserved: None }
    }

    /// The claim of a user who has an address again that was reserved for them.
    #[must_use]
    pub const fn taken_back(user_id: UserId, reserved: Reservation) -> Self {
        Self { user_id, state: ClaimState::Held, reserved: Some(reserved) }
    }

    /// The claim after the user gave up the address.
    #[must_use]
    pub const fn released(user_id: UserId, reserved: Option<Reservation>) -> Self {
        Self { user_id, state: ClaimState::Released, reserved }
    }

    /// The user who has the address now.
    #[must_use]
    pub fn holder(&self) -> Option<UserId> {
        (self.state == ClaimState::Held).then_some(self.user_id)
    }

    /// The reservation for [`EmailClaim::user_id`], if no user has the address and the reservation has not expired. It
    /// also ends when the user is deleted or the change is undone: ask the log for both.
    #[must_use]
    pub fn reservation(&self, now: Timestamp) -> Option<Reservation> {
        let is_free = self.state == ClaimState::Released;
        self.reserved.filter(|reserved| is_free && now < reserved.until)
    }
}

/// The position at which a user's password was set, given the message on `sec.user.<id>` and its own position. A
/// password that was only rehashed or sealed again keeps its position, and with it the links that are bound to it.
#[must_use]
pub fn credential_position(message: &[u8], stored: Position) -> Position {
    #[derive(Default, Deserialize)]
    struct Since {
        since: Option<Position>,
    }
    let Since { since } = serde_json::from_slice(message).unwrap_or_default();
    since.map_or(stored, |since| since.min(stored))
}

/// Whether an address is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimState {
    /// A user has it.
    Held,
    /// It is free again.
    Released,
}

/// The end of a user's access. Older access tokens are rejected; the record states which sessions survive.
///
/// Older and newer are positions, never times: a token and a session carry the position of the last revocation that
/// they know of, which is their *epoch*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRevocation {
    /// The sessions that survive.
    pub sessions: SessionsKept,
}

/// The sessions that survive a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kept", rename_all = "snake_case")]
pub enum SessionsKept {
    /// None that is older than this revocation.
    None,
    /// Only this one, if it was alive.
    Only {
        /// The session.
        session: SessionId,
        /// The epoch from which on it was alive.
        from: Position,
    },
    /// All that were alive: those from an epoch on, and one more.
    Alive {
        /// The epoch.
        from: Position,
        /// The additional one, with its own epoch.
        except: Option<(SessionId, Position)>,
    },
}

/// Records that the sessions of a deleted user were erased. It contains nothing about the user. It is in the stream so
/// that an erased message is never the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionErasure {
    /// When they were erased.
    pub erased_at: Timestamp,
}

/// A revocation in the log, with its cause, for subscribers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredRevocation {
    /// What it ends.
    #[serde(flatten)]
    pub revocation: UserRevocation,
    /// Its cause. Absent in records from before there was a feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<RevocationCause>,
}

/// The cause of a revocation. An event's envelope has the same members, but a revocation is not an event: it does not
/// change the state of the user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationCause {
    /// Unique per revocation.
    pub id: Uuid,
    /// The time of the decision.
    pub time: Timestamp,
    /// The reason.
    pub reason: RevocationReason,
    /// The originator.
    pub actor: Actor,
    /// The command.
    pub command_id: CommandId,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Why the access of a user ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    /// The user was logged out everywhere.
    LoggedOut,
    /// The password was changed or reset.
    PasswordChanged,
    /// The address was verified.
    EmailProven,
    /// The roles changed.
    RolesChanged,
    /// The user was disabled.
    Disabled,
    /// The user was deleted.
    Deleted,
}

/// The last revocation of a user with its position: decides which tokens and sessions are still valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cutoff {
    /// Position of the revocation; 0 if there is none. Access tokens with an older epoch are rejected.
    pub position: Position,
    /// Sessions with an older epoch are dead.
    pub sessions_from: Position,
    /// Except this one, which lives from its own epoch on.
    pub except: Option<(SessionId, Position)>,
}

impl Cutoff {
    /// The content of a stored revocation.
    #[must_use]
    pub const fn of(revocation: UserRevocation, position: Position) -> Self {
        let (sessions_from, except) = match revocation.sessions {
            SessionsKept::None => (position, None),
            SessionsKept::Only { session, from } => (position, Some((session, from))),
            SessionsKept::Alive { from, except } => (from, except),
        };
        Self { position, sessions_from, except }
    }

    /// Whether a session with that epoch is alive.
    #[must_use]
    pub fn spares(&self, session: SessionId, epoch: Position) -> bool {
        epoch >= self.sessions_from
            || self.except.is_some_and(|(kept, from)| kept == session && epoch >= from)
    }

    /// The next revocation: one that ends every session.
    #[must_use]
    pub const fn all(&self) -> UserRevocation {
        UserRevocation { sessions: SessionsKept::None }
    }

    /// The next revocation: one that ends every session except this one, if it is alive.
    #[must_use]
    pub fn all_but(&self, session: SessionId) -> UserRevocation {
        let from = match self.except {
            Some((kept, from)) if kept == session => from,
            Some(_) | None => self.sessions_from,
        };
        UserRevocation { sessions: SessionsKept::Only { session, from } }
    }

    /// The next revocation: one that ends only access tokens.
    #[must_use]
    pub const fn tokens(&self) -> UserRevocation {
        let (from, except) = (self.sessions_from, self.except);
        UserRevocation { sessions: SessionsKept::Alive { from, except } }
    }
}

/// The purpose of a link in a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkPurpose {
    /// Choosing a password, the first one or another.
    Password,
    /// Verifying the address.
    Verify,
    /// Confirming a new address, or cancelling the change.
    Email,
}

impl LinkPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Password, Self::Verify, Self::Email];

    /// Its name in a subject.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Verify => "verify",
            Self::Email => "email",
        }
    }
}

/// The valid link for a purpose: only the newest link is valid, until it is used. The link itself is not stored.
///
/// The time of the request is kept after the use, because a mail job may be delivered again after its link was used,
/// and an older job may have been delayed: neither may make a link valid again.
/// after the link was used, and an older one may have been held up: neither may bring a link to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The serial of the valid link; `None` after it was used or cancelled.
    pub serial: Option<Uuid>,
    /// When the newest link was requested, whether it was used or not.
    pub ordered_at: Timestamp,
    /// The session that requested the valid link, if the link must not outlive that session. Absent in records from
    /// before links were bound to sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionId>,
}

/// Changes of address that were undone: the links that undo them are no longer valid.
///
/// A change is identified by the revision of its event. Undoing one also undoes all later ones, so that an attacker who
/// took over an account cannot undo the undoing. Links to earlier addresses stay valid.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UndoneChanges {
    undone: Vec<UndoneRange>,
}

/// The revisions that one undo covers, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct UndoneRange {
    from: Revision,
    through: Revision,
}

impl UndoneChanges {
    /// Ranges that are kept apart. Beyond that, the two oldest are merged, including the gap between them.
    const RANGES_MAX: usize = 32;

    /// Whether a change was undone.
    #[must_use]
    pub fn covers(&self, change: Revision) -> bool {
        self.undone.iter().any(|range| (range.from..=range.through).contains(&change))
    }

    /// The record after the event with revision `by` undid a change.
    #[must_use]
    pub fn after(&self, change: Revision, by: Revision) -> Self {
        let mut undone = self.undone.clone();
        undone.retain(|range| range.from < change);
        undone.push(UndoneRange { from: change, through: by });
        if undone.len() > Self::RANGES_MAX
            && let [first, second, ..] = undone.as_mut_slice()
        {
            second.from = first.from;
            undone.remove(0);
        }
        Self { undone }
    }
}

/// The result of comparing a mail job with the link record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkStanding {
    /// The job is newer than the record: store its link, then send it.
    Newest,
    /// Its link is the valid one already: send it again.
    Good,
    /// Its link was used or cancelled, or a newer one was requested: do not send it.
    Void,
}

impl LinkRecord {
    /// The record after its link was used or cancelled.
    #[must_use]
    pub const fn used(self) -> Self {
        Self { serial: None, ordered_at: self.ordered_at, session: None }
    }

    /// Compares a mail job with the link record. Two jobs from the same millisecond are ordered by their serials, so
    /// that two mailers agree on the newer one.
    #[must_use]
    pub fn standing(record: Option<Self>, serial: Uuid, ordered_at: Timestamp) -> LinkStanding {
        match record {
            None => LinkStanding::Newest,
            Some(Self { serial: Some(good), .. }) if good == serial => LinkStanding::Good,
            Some(Self { serial: good, ordered_at: newest, .. }) => {
                let ties = newest == ordered_at && good.is_some_and(|good| good < serial);
                if newest < ordered_at || ties { LinkStanding::Newest } else { LinkStanding::Void }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: u128) -> SessionId {
        SessionId::from_uuid(Uuid::from_u128(n))
    }

    /// A revocation at its position.
    type Step = (u64, fn(&Cutoff) -> UserRevocation);

    /// Revocations one after the other.
    fn after(steps: &[Step]) -> Cutoff {
        steps.iter().fold(Cutoff::default(), |cutoff, (position, next)| {
            Cutoff::of(next(&cutoff), Position(*position))
        })
    }

    const ALL: fn(&Cutoff) -> UserRevocation = |c| c.all();
    const TOKENS: fn(&Cutoff) -> UserRevocation = |c| c.tokens();
    const BUT_1: fn(&Cutoff) -> UserRevocation = |c| c.all_but(session(1));
    const BUT_2: fn(&Cutoff) -> UserRevocation = |c| c.all_but(session(2));

    #[test]
    fn who_lives_on() {
        let alive = |steps: &[Step], n, epoch| after(steps).spares(session(n), Position(epoch));
        assert!(alive(&[], 1, 0), "nothing was revoked");
        assert!(!alive(&[(5, ALL)], 1, 0));
        assert!(alive(&[(5, ALL)], 1, 5), "it began afterwards");
        assert!(alive(&[(5, TOKENS)], 1, 0), "only access tokens die");
        assert!(!alive(&[(5, ALL), (9, TOKENS)], 1, 0), "the dead stay dead");
        assert!(alive(&[(5, ALL), (9, TOKENS)], 1, 5));

        assert!(alive(&[(5, BUT_1)], 1, 0) && !alive(&[(5, BUT_1)], 2, 0));
        // Twice in a row, without a refresh in between.
        assert!(alive(&[(5, BUT_1), (9, BUT_1)], 1, 0));
        assert!(alive(&[(5, BUT_1), (7, TOKENS), (9, BUT_1)], 1, 0));
        assert!(!alive(&[(5, ALL), (9, BUT_1)], 1, 0), "being excepted brings nobody back");
        assert!(!alive(&[(5, BUT_1), (9, BUT_2)], 1, 0), "the other one ended it");
        assert!(!alive(&[(5, BUT_1), (9, BUT_2)], 2, 0), "the first one ended this");
        assert!(!alive(&[(5, BUT_1), (9, ALL)], 1, 0));
        assert!(!alive(&[(5, BUT_1), (9, ALL), (12, BUT_1)], 1, 5));
    }

    #[test]
    fn undoing_a_change_undoes_what_came_after_it_and_nothing_from_before() {
        let covered = |record: &UndoneChanges| {
            (1..=12).filter(|n| record.covers(Revision(*n))).collect::<Vec<u64>>()
        };
        let none = UndoneChanges::default();
        assert!(covered(&none).is_empty());
        // The thief's second change is undone by the thief: the owner's link, to the first, stays good.
        let by_thief = none.after(Revision(4), Revision(5));
        assert_eq!(covered(&by_thief), [4, 5]);
        let by_owner = by_thief.after(Revision(2), Revision(6));
        assert_eq!(covered(&by_owner), [2, 3, 4, 5, 6]);
        // A later change is another matter.
        let later = by_owner.after(Revision(9), Revision(10));
        assert_eq!(covered(&later), [2, 3, 4, 5, 6, 9, 10]);
        let json = serde_json::to_string(&later).unwrap();
        assert_eq!(serde_json::from_str::<UndoneChanges>(&json).unwrap(), later);
        let many =
            (1..=100).fold(none, |record, n| record.after(Revision(n * 3), Revision(n * 3 + 1)));
        assert_eq!(many.undone.len(), UndoneChanges::RANGES_MAX);
        assert!((1..=100).all(|n| many.covers(Revision(n * 3))), "none is forgotten");
    }

    #[test]
    fn a_released_address_is_reserved_until_the_reservation_ends() {
        let at = |second: i64| Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap();
        let user = UserId::from_uuid(Uuid::from_u128(1));
        let reserved = Reservation { until: at(60), change: Revision(4) };
        let released = EmailClaim::released(user, Some(reserved));
        assert_eq!(released.holder(), None);
        assert_eq!(released.reservation(at(59)), Some(reserved));
        assert_eq!(released.reservation(at(60)), None);
        assert_eq!(EmailClaim::released(user, None).reservation(at(0)), None);
        assert_eq!(EmailClaim::held(user).reservation(at(0)), None);
        assert_eq!(EmailClaim::taken_back(user, reserved).reservation(at(0)), None);
        assert_eq!(EmailClaim::taken_back(user, reserved).holder(), Some(user));
        let wire = serde_json::to_string(&released).unwrap();
        assert_eq!(
            wire,
            r#"{"user_id":"00000000-0000-0000-0000-000000000001","state":"released","reserved":{"until":"2027-01-15T08:01:00.000Z","change":4}}"#
        );
        assert_eq!(serde_json::from_str::<EmailClaim>(&wire).unwrap(), released);
        let old = r#"{"user_id":"00000000-0000-0000-0000-000000000001","state":"released"}"#;
        let read: EmailClaim = serde_json::from_str(old).unwrap();
        assert_eq!(read, EmailClaim::released(user, None));
        assert_eq!(serde_json::to_string(&read).unwrap(), old);
    }

    #[test]
    fn a_link_that_was_used_or_overtaken_stays_void() {
        let at = |second: i64| Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap();
        let id = Uuid::from_u128;
        let record =
            |serial, second| Some(LinkRecord { serial, ordered_at: at(second), session: None });
        for (record, standing) in [
            (None, LinkStanding::Newest),
            (record(Some(id(5)), 10), LinkStanding::Good),
            (record(Some(id(4)), 9), LinkStanding::Newest),
            (record(Some(id(6)), 11), LinkStanding::Void),
            (record(None, 9), LinkStanding::Newest),
            (record(None, 10), LinkStanding::Void),
            (record(None, 11), LinkStanding::Void),
            (record(Some(id(4)), 10), LinkStanding::Newest),
            (record(Some(id(6)), 10), LinkStanding::Void),
        ] {
            assert_eq!(LinkRecord::standing(record, id(5), at(10)), standing, "{record:?}");
        }
        let used = record(Some(id(5)), 10).unwrap().used();
        assert_eq!(LinkRecord::standing(Some(used), id(5), at(10)), LinkStanding::Void);
        assert_eq!(
            serde_json::to_string(&used).unwrap(),
            r#"{"serial":null,"ordered_at":"2027-01-15T08:00:10.000Z"}"#
        );
    }

    #[test]
    fn a_record_of_a_link_is_read_with_and_without_its_session() {
        let old = r#"{"serial":null,"ordered_at":"2027-01-15T08:00:10.000Z"}"#;
        let read: LinkRecord = serde_json::from_str(old).unwrap();
        assert_eq!(read.session, None);
        let bound = LinkRecord { session: Some(session(1)), ..read };
        let wire = serde_json::to_string(&bound).unwrap();
        assert!(wire.ends_with(r#""session":"00000000-0000-0000-0000-000000000001"}"#), "{wire}");
        assert_eq!(serde_json::from_str::<LinkRecord>(&wire).unwrap(), bound);
    }

    #[test]
    fn a_revocation_is_read_with_and_without_its_cause() {
        let plain = r#"{"sessions":{"kept":"none"}}"#;
        let read: StoredRevocation = serde_json::from_str(plain).unwrap();
        let revocation = UserRevocation { sessions: SessionsKept::None };
        assert_eq!(read, StoredRevocation { revocation, cause: None });
        assert_eq!(serde_json::to_string(&read).unwrap(), plain);

        let cause = RevocationCause {
            id: Uuid::from_u128(7),
            time: Timestamp::from_unix_seconds(1_800_000_000).unwrap(),
            reason: RevocationReason::LoggedOut,
            actor: Actor::System,
            command_id: CommandId::from_uuid(Uuid::from_u128(8)),
            correlation_id: Some("req-1".to_owned()),
            traceparent: None,
        };
        let told = StoredRevocation { cause: Some(cause), ..read };
        let wire = serde_json::to_string(&told).unwrap();
        assert_eq!(
            wire,
            r#"{"sessions":{"kept":"none"},"cause":{"id":"00000000-0000-0000-0000-000000000007","time":"2027-01-15T08:00:00.000Z","reason":"logged_out","actor":"system","command_id":"00000000-0000-0000-0000-000000000008","correlation_id":"req-1"}}"#
        );
        assert_eq!(serde_json::from_str::<StoredRevocation>(&wire).unwrap(), told);
        // Whoever only wants to know who may still come in reads the same bytes.
        assert_eq!(serde_json::from_str::<UserRevocation>(&wire).unwrap(), revocation);
    }

    #[test]
    fn the_wire_forms_stay() {
        let wire = |r: UserRevocation| serde_json::to_string(&r).unwrap();
        let cutoff = Cutoff { position: Position(9), sessions_from: Position(5), except: None };
        assert_eq!(wire(cutoff.all()), r#"{"sessions":{"kept":"none"}}"#);
        assert_eq!(
            wire(cutoff.all_but(session(1))),
            r#"{"sessions":{"kept":"only","session":"00000000-0000-0000-0000-000000000001","from":5}}"#
        );
        assert_eq!(
            wire(cutoff.tokens()),
            r#"{"sessions":{"kept":"alive","from":5,"except":null}}"#
        );
    }
}
