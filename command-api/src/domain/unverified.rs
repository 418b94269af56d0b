//! Which unverified accounts are abandoned.

use events::{Actor, Event, ROLE_USER, Status, Timestamp, User, UserFact};

/// Whether an event is a self-registration with an unverified address. Accounts from an administrator or an import
/// belong to their creator.
#[must_use]
pub fn is_self_registration(event: &Event) -> bool {
    matches!(event.fact, UserFact::Registered { email_verified: false, imported: None, .. })
        && event.actor == Actor::Anonymous
}

/// Whether an account is unchanged since its registration, and has been for long enough. A disabled one is kept:
/// removing it would let a banned user register again.
#[must_use]
pub fn is_abandoned(user: &User, used_since: Timestamp) -> bool {
    !user.email_verified
        && user.status == Status::Active
        && user.roles == [ROLE_USER]
        && user.updated_at < used_since
}

#[cfg(test)]
mod tests {
    use events::{CommandId, Metadata, Origin, Snapshot, UserId, record};
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap()
    }

    fn registration(email_verified: bool, imported: Option<Timestamp>, actor: Actor) -> Event {
        let fact = UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified,
            full_name: None,
            roles: vec![ROLE_USER.to_owned()],
            metadata: Metadata::new(),
            imported,
        };
        let origin = Origin {
            actor,
            command_id: CommandId::from_uuid(Uuid::from_u128(1)),
            time: at(0),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
        };
        let user = UserId::from_uuid(Uuid::from_u128(2));
        let (mut events, _) =
            record(user, None, vec![fact], &origin, || Uuid::from_u128(3)).unwrap();
        events.pop().unwrap()
    }

    #[test]
    fn only_who_registered_alone_and_unproven_is_a_candidate() {
        let admin = Actor::User(UserId::from_uuid(Uuid::from_u128(9)));
        assert!(is_self_registration(&registration(false, None, Actor::Anonymous)));
        assert!(!is_self_registration(&registration(true, None, Actor::Anonymous)));
        assert!(!is_self_registration(&registration(false, None, admin)));
        assert!(!is_self_registration(&registration(false, None, Actor::System)));
        assert!(!is_self_registration(&registration(false, Some(at(-9)), Actor::Anonymous)));
    }

    #[test]
    fn an_account_that_anybody_cares_for_is_not_abandoned() {
        let Snapshot::Present(user) = registration(false, None, Actor::Anonymous).after else {
            panic!("a living user")
        };
        let abandoned = |change: fn(&mut User)| {
            let mut user = user.clone();
            change(&mut user);
            is_abandoned(&user, at(100))
        };
        assert!(abandoned(|_| {}));
        assert!(!abandoned(|user| user.email_verified = true));
        assert!(!abandoned(|user| user.status = Status::Disabled));
        assert!(!abandoned(|user| user.roles.push("editor".to_owned())));
        assert!(!abandoned(|user| user.updated_at = at(100)), "the bound itself counts as use");
        assert!(abandoned(|user| user.updated_at = at(99)));
    }
}
