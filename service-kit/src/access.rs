//! Permissions of roles in Roster.
//!
//! `admin` may do everything, `operator` may read every user, `user` may manage its own account. Other roles get
//! permissions by configuration. A role without permissions is still a role: it is in tokens, for the services that
//! know what it means.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use events::{ROLE_ADMIN, ROLE_OPERATOR, ROLE_USER};

/// A permission that not every user has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Read every user: `users:read`.
    ReadUsers,
    /// Create users, and change and delete those without a privileged role: `users:write`, which includes `users:read`.
    WriteUsers,
    /// Assign roles, import, and change users with a privileged role. Only `admin` has it.
    Administer,
}

impl Permission {
    /// The name in configuration and in errors.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadUsers => "users:read",
            Self::WriteUsers => "users:write",
            Self::Administer => "administer",
        }
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The permissions of all roles. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Access {
    custom: Arc<BTreeMap<String, BTreeSet<Permission>>>,
}

impl Access {
    /// Whether one of the roles has the permission.
    #[must_use]
    pub fn allows(&self, roles: &[String], permission: Permission) -> bool {
        roles.iter().any(|role| self.role_allows(role, permission))
    }

    /// Whether one of the roles has any permission beyond those of plain users.
    #[must_use]
    pub fn is_privileged(&self, roles: &[String]) -> bool {
        // Every permission includes this one.
        self.allows(roles, Permission::ReadUsers)
    }

    fn role_allows(&self, role: &str, permission: Permission) -> bool {
        match role {
            ROLE_ADMIN => true,
            ROLE_OPERATOR => permission == Permission::ReadUsers,
            role => self.custom.get(role).is_some_and(|all| all.contains(&permission)),
        }
    }
}

/// Parses `helpdesk = users:write; auditor = users:read`.
impl FromStr for Access {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut custom = BTreeMap::new();
        for item in text.split(';').map(str::trim).filter(|item| !item.is_empty()) {
            let (role, names) =
                item.split_once('=').ok_or_else(|| format!("{item:?} has no \"=\""))?;
            let role = role.trim();
            if [ROLE_ADMIN, ROLE_OPERATOR, ROLE_USER].contains(&role) {
                return Err(format!("what {role} may do is fixed"));
            }
            if !events::is_role(role) {
                return Err(format!("{role:?} is no name of a role: [a-z][a-z0-9-]{{1,31}}"));
            }
            let mut permissions = BTreeSet::new();
            for name in names.split_whitespace() {
                match name {
                    "users:read" => permissions.extend([Permission::ReadUsers]),
                    "users:write" => {
                        permissions.extend([Permission::ReadUsers, Permission::WriteUsers]);
                    }
                    _ => return Err(format!("{name:?} is no permission: users:read, users:write")),
                }
            }
            if custom.insert(role.to_owned(), permissions).is_some() {
                return Err(format!("{role} is given twice"));
            }
        }
        Ok(Self { custom: Arc::new(custom) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_what_they_were_given_and_no_more() {
        let access: Access = "helpdesk = users:write; auditor=users:read ;guest =".parse().unwrap();
        let all = [Permission::ReadUsers, Permission::WriteUsers, Permission::Administer];
        let allowed = |role: &str| all.map(|one| access.allows(&[role.to_owned()], one));
        assert_eq!(allowed("admin"), [true, true, true]);
        assert_eq!(allowed("operator"), [true, false, false]);
        assert_eq!(allowed("helpdesk"), [true, true, false]);
        assert_eq!(allowed("auditor"), [true, false, false]);
        for role in ["user", "guest", "unknown", ""] {
            assert_eq!(allowed(role), [false, false, false], "{role}");
            assert!(!access.is_privileged(&[role.to_owned()]));
        }
        let both = ["guest".to_owned(), "auditor".to_owned()];
        assert!(access.allows(&both, Permission::ReadUsers) && access.is_privileged(&both));
        assert!("".parse::<Access>().is_ok());
    }

    #[test]
    fn a_slip_of_the_pen_is_refused() {
        for text in [
            "helpdesk",
            "helpdesk = users:delete",
            "helpdesk = users:read, users:write",
            "helpdesk = administer",
            "admin = users:read",
            "user = users:write",
            "Helpdesk = users:read",
            "a = users:read",
            "helpdesk = users:read; helpdesk = users:write",
        ] {
            assert!(text.parse::<Access>().is_err(), "{text}");
        }
    }
}
