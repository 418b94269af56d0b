//! Decisions about a user.

use events::{
    Cutoff, EmailAddress, Metadata, ROLE_USER, Status, Timestamp, UserFact, UserRevocation,
    UserState,
};
use serde_json::Value;

use super::fields::{FullName, Roles, merge_metadata};

/// A request that may be rejected.
#[derive(Debug, Clone)]
pub enum Command {
    /// Create the user.
    Register(Register),
    /// Change the given members.
    Change(Change),
    /// Delete the user for ever.
    Delete,
    /// Change the password; by a link from a mail it also proves the address.
    ChangePassword {
        /// Whether it was set by a link.
        by_link: bool,
    },
    /// Mark the address as verified.
    VerifyEmail,
    /// Change the address; the new one is verified.
    ChangeEmail(EmailAddress),
}

/// The members of a registration.
#[derive(Debug, Clone)]
pub struct Register {
    /// The address. Its claim ensures that no other user holds it.
    pub email: EmailAddress,
    /// Display name.
    pub full_name: Option<FullName>,
    /// Metadata.
    pub metadata: Metadata,
    /// Roles; `None` is the role that every user has.
    pub roles: Option<Roles>,
    /// Whether the address counts as verified.
    pub email_verified: bool,
    /// For an imported user: when the user was created in the other system.
    pub imported: Option<Timestamp>,
}

/// A merge patch on a user: `None` leaves a member unchanged.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// New name, or its removal.
    pub full_name: Option<Option<FullName>>,
    /// New metadata.
    pub metadata: Option<NewMetadata>,
    /// All roles from now on.
    pub roles: Option<Roles>,
    /// Whether the user may log in.
    pub status: Option<Status>,
}

/// A change of metadata.
#[derive(Debug, Clone)]
pub enum NewMetadata {
    /// By a merge patch (RFC 7396).
    Patch(Value),
    /// By replacement.
    Whole(Metadata),
}

/// Why a command is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The user already exists.
    Exists,
    /// The user does not exist.
    NoSuchUser,
    /// No administrator would be left.
    LastAdmin,
    /// The result would violate a rule: member, code, text.
    Invalid(&'static str, &'static str, String),
}

/// Decides. No event means that nothing has to change.
pub fn decide(state: &UserState, command: &Command) -> Result<Vec<UserFact>, Rejection> {
    match (state, command) {
        (UserState::Absent, Command::Register(register)) => Ok(vec![UserFact::Registered {
            email: register.email.as_given().to_owned(),
            email_verified: register.email_verified,
            full_name: register.full_name.clone().map(FullName::into_string),
            roles: register
                .roles
                .clone()
                .map_or_else(|| vec![ROLE_USER.to_owned()], Roles::into_vec),
            metadata: register.metadata.clone(),
            imported: register.imported,
        }]),
        (UserState::Present(_) | UserState::Deleted(_), Command::Register(_)) => {
            Err(Rejection::Exists)
        }
        (UserState::Present(user), Command::Change(change)) => change_facts(user, change),
        (UserState::Present(_), Command::Delete) => Ok(vec![UserFact::Deleted]),
        (UserState::Present(user), Command::ChangePassword { by_link }) => {
            let mut facts = vec![UserFact::PasswordChanged];
            if *by_link && !user.email_verified {
                facts.push(UserFact::EmailVerified);
            }
            Ok(facts)
        }
        (UserState::Present(user), Command::VerifyEmail) => {
            Ok(if user.email_verified { Vec::new() } else { vec![UserFact::EmailVerified] })
        }
        (UserState::Present(_), Command::ChangeEmail(email)) => {
            Ok(vec![UserFact::EmailChanged { email: email.as_given().to_owned() }])
        }
        (UserState::Deleted(_), Command::Delete) => Ok(Vec::new()),
        (UserState::Absent | UserState::Deleted(_), _) => Err(Rejection::NoSuchUser),
    }
}

/// The revocation that a change of state causes, following the user's last one; `None` for most changes.
pub fn revocation(
    before: &UserState,
    after: &UserState,
    cutoff: &Cutoff,
) -> Option<UserRevocation> {
    match (before, after) {
        (UserState::Present(before), UserState::Present(after)) => {
            if before.status == Status::Active && after.status == Status::Disabled {
                Some(cutoff.all())
            } else if before.roles != after.roles {
                Some(cutoff.tokens())
            } else {
                None
            }
        }
        (UserState::Present(_), UserState::Deleted(_)) => Some(cutoff.all()),
        (UserState::Absent | UserState::Deleted(_) | UserState::Present(_), _) => None,
    }
}

fn change_facts(user: &events::User, change: &Change) -> Result<Vec<UserFact>, Rejection> {
    let full_name = change
        .full_name
        .clone()
        .map(|name| name.map(FullName::into_string))
        .filter(|name| *name != user.full_name);
    let metadata = change
        .metadata
        .as_ref()
        .map(|change| match change {
            NewMetadata::Patch(patch) => merge_metadata(&user.metadata, patch),
            NewMetadata::Whole(whole) => Ok(whole.clone()),
        })
        .transpose()
        .map_err(|(code, detail)| Rejection::Invalid("metadata", code, detail))?
        .filter(|merged| *merged != user.metadata);
    let roles = change.roles.clone().map(Roles::into_vec).filter(|roles| *roles != user.roles);
    let status = change.status.filter(|status| *status != user.status);

    let mut facts = Vec::new();
    if full_name.is_some() || metadata.is_some() {
        facts.push(UserFact::ProfileChanged { full_name, metadata });
    }
    if let Some(roles) = roles {
        facts.push(UserFact::RolesChanged { roles });
    }
    match status {
        Some(Status::Disabled) => facts.push(UserFact::Disabled),
        Some(Status::Active) => facts.push(UserFact::Enabled),
        None => {}
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::UserId;
    use serde_json::json;

    struct Given(UserState);

    fn user_id() -> UserId {
        "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap()
    }

    fn time() -> Timestamp {
        Timestamp::try_from("2026-01-31T12:00:00.000Z".to_owned()).unwrap()
    }

    fn given(facts: &[UserFact]) -> Given {
        let fold = |state: UserState, fact| state.evolve(user_id(), fact, time()).unwrap();
        Given(facts.iter().fold(UserState::Absent, fold))
    }

    impl Given {
        fn when(&self, command: &Command) -> Result<Vec<UserFact>, Rejection> {
            decide(&self.0, command)
        }
    }

    fn registered() -> UserFact {
        UserFact::Registered {
            email: "Ada@example.com".to_owned(),
            email_verified: false,
            full_name: Some("Ada".to_owned()),
            roles: vec!["user".to_owned()],
            metadata: json!({"a": 1}).as_object().unwrap().clone(),
            imported: None,
        }
    }

    fn register() -> Command {
        Command::Register(Register {
            email: EmailAddress::parse("Ada@example.com").unwrap(),
            full_name: Some(FullName::parse("Ada".to_owned()).unwrap()),
            metadata: json!({"a": 1}).as_object().unwrap().clone(),
            roles: None,
            email_verified: false,
            imported: None,
        })
    }

    fn change(change: Change) -> Command {
        Command::Change(change)
    }

    fn name(name: &str) -> Option<Option<FullName>> {
        Some(Some(FullName::parse(name.to_owned()).unwrap()))
    }

    #[test]
    fn registering() {
        assert_eq!(given(&[]).when(&register()), Ok(vec![registered()]));
        assert_eq!(given(&[registered()]).when(&register()), Err(Rejection::Exists));
        // An id is never reused.
        let deleted = given(&[registered(), UserFact::Deleted]);
        assert_eq!(deleted.when(&register()), Err(Rejection::Exists));
    }

    #[test]
    fn changing_the_profile() {
        let user = given(&[registered()]);
        let renamed = change(Change { full_name: name("Ada L."), ..Change::default() });
        let fact =
            UserFact::ProfileChanged { full_name: Some(Some("Ada L.".to_owned())), metadata: None };
        assert_eq!(user.when(&renamed), Ok(vec![fact]));

        let removed = change(Change { full_name: Some(None), ..Change::default() });
        let fact = UserFact::ProfileChanged { full_name: Some(None), metadata: None };
        assert_eq!(user.when(&removed), Ok(vec![fact]));

        let same = change(Change {
            full_name: name("Ada"),
            metadata: Some(NewMetadata::Patch(json!({"a": 1}))),
            status: Some(Status::Active),
            roles: Some(Roles::parse(vec!["user".to_owned()]).unwrap()),
        });
        assert_eq!(user.when(&same), Ok(Vec::new()), "nothing changes, nothing happened");

        assert_eq!(given(&[]).when(&renamed), Err(Rejection::NoSuchUser));
        let deleted = given(&[registered(), UserFact::Deleted]);
        assert_eq!(deleted.when(&renamed), Err(Rejection::NoSuchUser));
    }

    #[test]
    fn one_command_may_have_several_facts_in_order() {
        let all = change(Change {
            full_name: name("Ada L."),
            metadata: Some(NewMetadata::Patch(json!({"b": 2}))),
            roles: Some(Roles::parse(vec!["admin".to_owned()]).unwrap()),
            status: Some(Status::Disabled),
        });
        let merged = json!({"a": 1, "b": 2}).as_object().unwrap().clone();
        assert_eq!(
            given(&[registered()]).when(&all),
            Ok(vec![
                UserFact::ProfileChanged {
                    full_name: Some(Some("Ada L.".to_owned())),
                    metadata: Some(merged),
                },
                UserFact::RolesChanged { roles: vec!["admin".to_owned()] },
                UserFact::Disabled,
            ])
        );
    }

    #[test]
    fn metadata_is_checked_after_merging() {
        let large = change(Change {
            metadata: Some(NewMetadata::Patch(json!({"b": "x".repeat(4090)}))),
            ..Change::default()
        });
        let refused = given(&[registered()]).when(&large);
        assert!(matches!(refused, Err(Rejection::Invalid("metadata", "too-long", _))));
    }

    #[test]
    fn deleting() {
        assert_eq!(given(&[registered()]).when(&Command::Delete), Ok(vec![UserFact::Deleted]));
        let deleted = given(&[registered(), UserFact::Deleted]);
        assert_eq!(deleted.when(&Command::Delete), Ok(Vec::new()));
        assert_eq!(given(&[]).when(&Command::Delete), Err(Rejection::NoSuchUser));
    }

    #[test]
    fn passwords_and_addresses() {
        let user = given(&[registered()]);
        let by_link = Command::ChangePassword { by_link: true };
        let changed = UserFact::PasswordChanged;
        assert_eq!(user.when(&by_link), Ok(vec![changed.clone(), UserFact::EmailVerified]));
        let by_hand = Command::ChangePassword { by_link: false };
        assert_eq!(user.when(&by_hand), Ok(vec![changed.clone()]));
        assert_eq!(user.when(&Command::VerifyEmail), Ok(vec![UserFact::EmailVerified]));
        let verified = given(&[registered(), UserFact::EmailVerified]);
        assert_eq!(verified.when(&by_link), Ok(vec![changed]));
        assert_eq!(verified.when(&Command::VerifyEmail), Ok(Vec::new()));
        let move_to = Command::ChangeEmail(EmailAddress::parse("New@example.com").unwrap());
        let moved = UserFact::EmailChanged { email: "New@example.com".to_owned() };
        assert_eq!(user.when(&move_to), Ok(vec![moved]));
        for gone in [given(&[]), given(&[registered(), UserFact::Deleted])] {
            for command in [&by_link, &Command::VerifyEmail, &move_to] {
                assert_eq!(gone.when(command), Err(Rejection::NoSuchUser));
            }
        }
    }

    #[test]
    fn what_ends_access() {
        let cutoff = Cutoff::default();
        let ends = |facts: &[UserFact], fact: UserFact| {
            let before = given(facts).0;
            let after = before.clone().evolve(user_id(), &fact, time()).unwrap();
            revocation(&before, &after, &cutoff)
        };
        let roles = UserFact::RolesChanged { roles: vec!["admin".to_owned()] };
        assert_eq!(ends(&[registered()], UserFact::Disabled), Some(cutoff.all()));
        assert_eq!(ends(&[registered()], UserFact::Deleted), Some(cutoff.all()));
        assert_eq!(ends(&[registered()], roles), Some(cutoff.tokens()));
        let renamed = UserFact::ProfileChanged { full_name: Some(None), metadata: None };
        assert_eq!(ends(&[registered()], renamed), None);
        assert_eq!(ends(&[registered(), UserFact::Disabled], UserFact::Enabled), None);
        assert_eq!(ends(&[], registered()), None);
    }

    #[test]
    fn the_last_administrator_stays() {
        use crate::domain::Admins;
        let other: UserId = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5c".parse().unwrap();
        let plain = given(&[registered()]).0;
        let admin =
            given(&[registered(), UserFact::RolesChanged { roles: vec!["admin".to_owned()] }]).0;
        assert!(Admins::counts(&admin) && !Admins::counts(&plain));
        let both =
            Admins::default().after(user_id(), &admin).unwrap().after(other, &admin).unwrap();
        let one = both.after(user_id(), &plain).unwrap();
        assert_eq!(one.0.iter().copied().collect::<Vec<_>>(), [other]);
        assert_eq!(one.after(other, &plain), Err(Rejection::LastAdmin));
    }
}
