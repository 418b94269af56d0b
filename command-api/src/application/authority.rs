//! Which users a caller may modify.

use events::{ROLE_USER, Status, UserState};
use service_kit::access::{Access, Permission};

use crate::domain::{Change, Command, Register};

/// What a caller's roles allow, according to the log and not to the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Everything.
    Administrator,
    /// Users without a privileged role, and no assignment of roles: a caller who could assign roles, or take over a
    /// privileged account, would have every permission.
    PlainUsers,
    /// The caller's own account.
    Own,
}

impl Authority {
    /// The authority of a user over others; `None` for a user who may modify nobody else.
    pub fn of(state: &UserState, access: &Access) -> Option<Self> {
        let UserState::Present(user) = state else { return None };
        if user.status != Status::Active {
            None
        } else if access.allows(&user.roles, Permission::Administer) {
            Some(Self::Administrator)
        } else if access.allows(&user.roles, Permission::WriteUsers) {
            Some(Self::PlainUsers)
        } else {
            None
        }
    }

    /// Whether a user may be modified at all.
    pub fn may_modify(self, target: &UserState, access: &Access) -> bool {
        match (self, target) {
            (Self::PlainUsers, UserState::Present(user)) => !access.is_privileged(&user.roles),
            (Self::PlainUsers | Self::Administrator | Self::Own, _) => true,
        }
    }

    /// Whether a command may be decided on a user.
    pub fn allows(self, command: &Command, target: &UserState, access: &Access) -> bool {
        let wanted = match command {
            Command::Register(Register { roles, .. }) | Command::Change(Change { roles, .. }) => {
                roles.as_ref()
            }
            Command::Delete
            | Command::ChangePassword { .. }
            | Command::VerifyEmail
            | Command::ChangeEmail(_) => None,
        };
        let touches_roles = wanted.is_some_and(|roles| match target {
            UserState::Present(user) => roles.as_slice() != user.roles,
            UserState::Absent | UserState::Deleted(_) => roles.as_slice() != [ROLE_USER],
        });
        (self == Self::Administrator || !touches_roles) && self.may_modify(target, access)
    }
}

#[cfg(test)]
mod tests {
    use events::{ROLE_ADMIN, ROLE_OPERATOR, Timestamp, UserFact, UserId};

    use super::*;
    use crate::domain::Roles;

    fn access() -> Access {
        "helpdesk = users:write; auditor = users:read".parse().unwrap()
    }

    fn with(role: &str) -> UserState {
        let registered = UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified: true,
            full_name: None,
            roles: vec![role.to_owned()],
            metadata: events::Metadata::new(),
            imported: None,
        };
        let id: UserId = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b".parse().unwrap();
        let time = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        UserState::Absent.evolve(id, &registered, time).unwrap()
    }

    #[test]
    fn authority_comes_from_the_roles_of_an_active_user() {
        let authority = |state: &UserState| Authority::of(state, &access());
        assert_eq!(authority(&with(ROLE_ADMIN)), Some(Authority::Administrator));
        assert_eq!(authority(&with("helpdesk")), Some(Authority::PlainUsers));
        for role in [ROLE_USER, ROLE_OPERATOR, "auditor", "unknown"] {
            assert_eq!(authority(&with(role)), None, "{role}");
        }
        let UserState::Present(mut admin) = with(ROLE_ADMIN) else { panic!("a living user") };
        admin.status = Status::Disabled;
        assert_eq!(authority(&UserState::Present(admin)), None);
        assert_eq!(authority(&UserState::Absent), None);
    }

    #[test]
    fn only_an_administrator_modifies_privileged_users_and_roles() {
        let roles = Some(Roles::parse(vec!["editor".to_owned()]).unwrap());
        let rename = Command::Change(Change::default());
        let promote = Command::Change(Change { roles, ..Change::default() });
        let allowed = |authority: Authority, command: &Command, role: &str| {
            authority.allows(command, &with(role), &access())
        };
        for role in [ROLE_ADMIN, ROLE_OPERATOR, "helpdesk", "auditor", ROLE_USER, "unknown"] {
            let plain = role == ROLE_USER || role == "unknown";
            assert!(allowed(Authority::Administrator, &promote, role));
            assert_eq!(allowed(Authority::PlainUsers, &rename, role), plain, "{role}");
            assert_eq!(allowed(Authority::PlainUsers, &Command::Delete, role), plain, "{role}");
            assert!(!allowed(Authority::PlainUsers, &promote, role));
            assert!(allowed(Authority::Own, &rename, role));
            assert!(!allowed(Authority::Own, &promote, role));
        }
        // Roles that the user already has are no assignment.
        assert!(allowed(Authority::PlainUsers, &promote, "editor"));
    }
}
