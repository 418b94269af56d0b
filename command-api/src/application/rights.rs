//! Whom a caller may change.

use events::{ROLE_USER, Status, UserState};
use service_kit::access::{Access, Permission};

use crate::domain::{Change, Command, Register};

/// What a caller's roles allow, by the log and not by the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    Administrator,
    /// Users without a privileged role, and no roles at all: whoever could give roles, or take over an
    /// account that has one, would have every right.
    PlainUsers,
    /// The caller's own account.
    Own,
}

impl Rights {
    /// The rights over others that a user has; `None` for a user who may change nobody else.
    pub fn over_others(state: &UserState, access: &Access) -> Option<Self> {
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

    /// Whether a user may be touched at all.
    pub fn reach(self, target: &UserState, access: &Access) -> bool {
        match (self, target) {
            (Self::PlainUsers, UserState::Present(user)) => !access.is_privileged(&user.roles),
            (Self::PlainUsers | Self::Administrator | Self::Own, _) => true,
        }
    }

    /// Whether a command may be decided on a user.
    pub fn allow(self, command: &Command, target: &UserState, access: &Access) -> bool {
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
        (self == Self::Administrator || !touches_roles) && self.reach(target, access)
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
    fn rights_come_from_roles_while_their_user_is_active() {
        let rights = |state: &UserState| Rights::over_others(state, &access());
        assert_eq!(rights(&with(ROLE_ADMIN)), Some(Rights::Administrator));
        assert_eq!(rights(&with("helpdesk")), Some(Rights::PlainUsers));
        for role in [ROLE_USER, ROLE_OPERATOR, "auditor", "unknown"] {
            assert_eq!(rights(&with(role)), None, "{role}");
        }
        let UserState::Present(mut admin) = with(ROLE_ADMIN) else { panic!("a living user") };
        admin.status = Status::Disabled;
        assert_eq!(rights(&UserState::Present(admin)), None);
        assert_eq!(rights(&UserState::Absent), None);
    }

    #[test]
    fn whoever_is_no_administrator_reaches_no_privilege() {
        let roles = Some(Roles::parse(vec!["editor".to_owned()]).unwrap());
        let rename = Command::Change(Change::default());
        let promote = Command::Change(Change { roles, ..Change::default() });
        let allowed = |rights: Rights, command: &Command, role: &str| {
            rights.allow(command, &with(role), &access())
        };
        for role in [ROLE_ADMIN, ROLE_OPERATOR, "helpdesk", "auditor", ROLE_USER, "unknown"] {
            let plain = role == ROLE_USER || role == "unknown";
            assert!(allowed(Rights::Administrator, &promote, role));
            assert_eq!(allowed(Rights::PlainUsers, &rename, role), plain, "{role}");
            assert_eq!(allowed(Rights::PlainUsers, &Command::Delete, role), plain, "{role}");
            assert!(!allowed(Rights::PlainUsers, &promote, role));
            assert!(allowed(Rights::Own, &rename, role));
            assert!(!allowed(Rights::Own, &promote, role));
        }
        // To say what is there already gives nothing.
        assert!(allowed(Rights::PlainUsers, &promote, "editor"));
    }
}
