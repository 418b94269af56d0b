//! Which events lead to mails.

use events::{Actor, Event, ROLE_ADMIN, Snapshot, UserFact};
use service_kit::mail_jobs::{Mail, MailJob, order_id};

/// Facts that an event does not carry and its mails depend on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OrderedBy {
    /// Whether the user has a password.
    pub has_credential: bool,
    /// The address that the user had before the event, as given.
    pub previous_email: Option<String>,
}

/// The mails of an event.
///
/// A user who registers is asked to verify the address. A user whom somebody else created without a password is asked
/// to choose one, which verifies the address as well. A new administrator with a password is informed. Changes of
/// password, roles or status are reported, and a changed address is reported to the previous one. An import sends no
/// mails: its users are informed elsewhere.
#[must_use]
pub fn orders_for(event: &Event, by: &OrderedBy) -> Vec<Mail> {
    let Snapshot::Present(after) = &event.after else { return Vec::new() };
    let user = after.id;
    match &event.fact {
        UserFact::Registered { imported: Some(_), .. } => Vec::new(),
        UserFact::Registered { email_verified, imported: None, .. } => {
            let made_by_another = match event.actor {
                Actor::Anonymous => false,
                Actor::System => true,
                Actor::User(actor) => actor != user,
            };
            if made_by_another && !by.has_credential {
                vec![Mail::SetPassword { user }]
            } else if *email_verified {
                if made_by_another && after.has_role(ROLE_ADMIN) {
                    vec![Mail::Administrator { user }]
                } else {
                    Vec::new()
                }
            } else {
                vec![Mail::VerifyEmail { user }]
            }
        }
        UserFact::PasswordChanged => vec![Mail::PasswordChanged { user }],
        UserFact::RolesChanged { .. } => vec![Mail::RolesChanged { user }],
        UserFact::Disabled => vec![Mail::Disabled { user }],
        UserFact::Enabled => vec![Mail::Enabled { user }],
        UserFact::EmailChanged { .. } => by
            .previous_email
            .iter()
            .map(|old| Mail::EmailChanged {
                user,
                old_email: old.clone(),
                revision: after.revision,
            })
            .collect(),
        UserFact::ProfileChanged { .. } | UserFact::EmailVerified | UserFact::Deleted => Vec::new(),
    }
}

/// The mail jobs of an event. Their ids are derived from it, so that an event that is read twice leads to one job.
pub(crate) fn orders(event: &Event, by: &OrderedBy) -> Vec<MailJob> {
    let mails = orders_for(event, by).into_iter();
    mails
        .map(|mail| MailJob { id: order_id(event.id, mail.kind()), ordered_at: event.time, mail })
        .collect()
}

#[cfg(test)]
mod tests {
    use events::{CommandId, Revision, Timestamp, UserId, UserState};
    use uuid::Uuid;

    use super::*;

    const USER: u128 = 1;

    fn event(actor: Actor, facts: &[UserFact]) -> Event {
        let time = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        let id = UserId::from_uuid(Uuid::from_u128(USER));
        let state = facts
            .iter()
            .fold(UserState::Absent, |state, fact| state.evolve(id, fact, time).unwrap());
        Event {
            id: Uuid::from_u128(9),
            time,
            actor,
            command_id: CommandId::from_uuid(Uuid::from_u128(8)),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            fact: facts.last().unwrap().clone(),
            after: state.snapshot().unwrap(),
        }
    }

    fn registered(email_verified: bool) -> UserFact {
        UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified,
            full_name: None,
            roles: vec!["user".to_owned()],
            metadata: serde_json::Map::new(),
            imported: None,
        }
    }

    #[test]
    fn which_events_lead_to_which_mails() {
        let user = UserId::from_uuid(Uuid::from_u128(USER));
        let other = Actor::User(UserId::from_uuid(Uuid::from_u128(2)));
        let verify = vec![Mail::VerifyEmail { user }];
        let set_password = vec![Mail::SetPassword { user }];
        for (actor, verified, has_credential, mails) in [
            (Actor::Anonymous, false, true, verify.clone()),
            (Actor::Anonymous, true, true, vec![]),
            (Actor::User(user), false, true, verify.clone()),
            (other, false, true, verify),
            (other, false, false, set_password.clone()),
            (other, true, false, set_password.clone()),
            (Actor::System, true, true, vec![]),
            (Actor::System, true, false, set_password),
        ] {
            let by = OrderedBy { has_credential, previous_email: None };
            assert_eq!(orders_for(&event(actor, &[registered(verified)]), &by), mails, "{actor}");
        }
        let imported = UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified: false,
            full_name: None,
            roles: vec!["user".to_owned()],
            metadata: serde_json::Map::new(),
            imported: Timestamp::from_unix_seconds(1_500_000_000),
        };
        for has_credential in [true, false] {
            let event = event(Actor::System, std::slice::from_ref(&imported));
            let by = OrderedBy { has_credential, previous_email: None };
            assert_eq!(orders_for(&event, &by), vec![]);
        }
        let old_email = "ada@example.com".to_owned();
        let by = OrderedBy { has_credential: true, previous_email: Some(old_email.clone()) };
        let moved = UserFact::EmailChanged { email: "new@example.com".to_owned() };
        let roles = vec!["auditor".to_owned(), "user".to_owned()];
        for (fact, mails) in [
            (UserFact::PasswordChanged, vec![Mail::PasswordChanged { user }]),
            (UserFact::RolesChanged { roles }, vec![Mail::RolesChanged { user }]),
            (UserFact::EmailVerified, vec![]),
            (UserFact::Disabled, vec![Mail::Disabled { user }]),
            (moved, vec![Mail::EmailChanged { user, old_email, revision: Revision(2) }]),
            (UserFact::Deleted, vec![]),
        ] {
            let event = event(Actor::User(user), &[registered(false), fact]);
            assert_eq!(orders_for(&event, &by), mails, "{:?}", event.fact);
        }
        let enabled = [registered(true), UserFact::Disabled, UserFact::Enabled];
        let enabled = event(Actor::System, &enabled);
        assert_eq!(orders_for(&enabled, &by), vec![Mail::Enabled { user }]);
    }

    #[test]
    fn the_first_administrator_is_told() {
        let user = UserId::from_uuid(Uuid::from_u128(USER));
        let mut made = registered(true);
        if let UserFact::Registered { roles, .. } = &mut made {
            roles.insert(0, ROLE_ADMIN.to_owned());
        }
        let event = event(Actor::System, &[made]);
        let with = |has_credential| OrderedBy { has_credential, previous_email: None };
        assert_eq!(orders_for(&event, &with(true)), vec![Mail::Administrator { user }]);
        assert_eq!(orders_for(&event, &with(false)), vec![Mail::SetPassword { user }]);
    }

    #[test]
    fn an_event_always_makes_the_same_order() {
        let event = event(Actor::Anonymous, &[registered(false)]);
        let by = OrderedBy { has_credential: true, previous_email: None };
        assert_eq!(orders(&event, &by), orders(&event, &by));
    }
}
