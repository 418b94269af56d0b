//! The commands that change something, by the names that they have on the wire.

/// A command of the operator that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `provision`
    Provision,
    /// `users import`
    UsersImport,
    /// `users remove-unverified`
    UsersRemoveUnverified,
    /// `subscribers add`
    SubscribersAdd,
    /// `subscribers creds`
    SubscribersCreds,
    /// `subscribers remove`
    SubscribersRemove,
    /// `services creds`
    ServicesCreds,
    /// `services revoke`
    ServicesRevoke,
    /// `parked retry`
    ParkedRetry,
    /// `parked drop`
    ParkedDrop,
    /// `backup`
    Backup,
    /// `restore`
    Restore,
    /// `rebuild`
    Rebuild,
    /// `replay`
    Replay,
    /// `admin create`
    AdminCreate,
    /// `keys rotate-application --finish`
    KeysFinish,
    /// `prune consumers`
    PruneConsumers,
    /// `prune messages`
    PruneMessages,
}

impl Operation {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::Provision,
        Self::UsersImport,
        Self::UsersRemoveUnverified,
        Self::SubscribersAdd,
        Self::SubscribersCreds,
        Self::SubscribersRemove,
        Self::ServicesCreds,
        Self::ServicesRevoke,
        Self::ParkedRetry,
        Self::ParkedDrop,
        Self::Backup,
        Self::Restore,
        Self::Rebuild,
        Self::Replay,
        Self::AdminCreate,
        Self::KeysFinish,
        Self::PruneConsumers,
        Self::PruneMessages,
    ];

    /// Its name in the subject of a message: never used again for anything else.
    pub const fn name(self) -> &'static str {
        self.names().0
    }

    /// The type of its events, with a version: never used again for anything else.
    pub const fn kind(self) -> &'static str {
        self.names().1
    }

    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Provision => ("provision", "roster.operator.provisioned.v1"),
            Self::UsersImport => ("users-import", "roster.operator.users_imported.v1"),
            Self::UsersRemoveUnverified => {
                ("users-remove-unverified", "roster.operator.unverified_users_removed.v1")
            }
            Self::SubscribersAdd => ("subscribers-add", "roster.operator.subscriber_added.v1"),
            Self::SubscribersCreds => {
                ("subscribers-creds", "roster.operator.subscriber_credentials_made.v1")
            }
            Self::SubscribersRemove => {
                ("subscribers-remove", "roster.operator.subscriber_removed.v1")
            }
            Self::ServicesCreds => {
                ("services-creds", "roster.operator.service_credentials_made.v1")
            }
            Self::ServicesRevoke => {
                ("services-revoke", "roster.operator.service_credentials_revoked.v1")
            }
            Self::ParkedRetry => ("parked-retry", "roster.operator.parked_retried.v1"),
            Self::Backup => ("backup", "roster.operator.backed_up.v1"),
            Self::Rebuild => ("rebuild", "roster.operator.views_rebuilt.v1"),
            Self::Restore => ("restore", "roster.operator.restored.v1"),
            Self::ParkedDrop => ("parked-drop", "roster.operator.parked_dropped.v1"),
            Self::Replay => ("replay", "roster.operator.events_replayed.v1"),
            Self::AdminCreate => ("admin-create", "roster.operator.administrator_created.v1"),
            Self::KeysFinish => ("keys-finish", "roster.operator.application_key_rotated.v1"),
            Self::PruneConsumers => ("prune-consumers", "roster.operator.consumers_removed.v1"),
            Self::PruneMessages => {
                ("prune-messages", "roster.operator.foreign_messages_removed.v1")
            }
        }
    }
}

/// The names, for the command line.
pub fn names() -> Vec<&'static str> {
    Operation::ALL.into_iter().map(Operation::name).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_command_has_names_of_its_own_that_fit_into_a_subject() {
        let mut seen = HashSet::new();
        for operation in Operation::ALL {
            let (name, kind) = (operation.name(), operation.kind());
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{name}");
            assert!(kind.starts_with("roster.operator.") && kind.ends_with(".v1"), "{kind}");
            assert!(seen.insert(name) && seen.insert(kind), "{operation:?}");
        }
    }
}
