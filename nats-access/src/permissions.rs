//! The one table of who may publish and subscribe what.

use std::fmt;

/// One kind of NATS user. Every instance of a service shares the role of that service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Provisions streams and repairs by hand. Never given to a running service: whoever may
    /// update a stream may also wipe its history.
    Operator,
    /// Decides commands and appends to the log.
    CommandApi,
    /// Answers from the views and never touches the log.
    QueryApi,
    /// Reads the log, writes the views and announces how far they are.
    Projector,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Self; 4] = [Self::Operator, Self::CommandApi, Self::QueryApi, Self::Projector];

    /// The name of the user on the server, and of the file with its credentials.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projector => "projector",
        }
    }

    /// The prefix under which a client of this role must receive its replies.
    ///
    /// Replies carry the content of the log. With the prefix all clients share by default, every
    /// service could listen to the replies of every other.
    #[must_use]
    pub const fn inbox_prefix(self) -> &'static str {
        match self {
            Self::Operator => "_INBOX_operator",
            Self::CommandApi => "_INBOX_command-api",
            Self::QueryApi => "_INBOX_query-api",
            Self::Projector => "_INBOX_projector",
        }
    }

    /// What this role may do. What is not in here it may not.
    pub fn permissions(self) -> impl Iterator<Item = &'static Permission> {
        TABLE.iter().filter(move |permission| permission.roles.contains(&self))
    }

    /// The subjects this role may use in that direction.
    pub(crate) fn subjects(self, direction: Direction) -> Vec<&'static str> {
        self.permissions()
            .filter(|permission| permission.direction == direction)
            .map(|permission| permission.subject)
            .collect()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which way a message goes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server; requests too, those to JetStream among them.
    Publish,
    /// From the server to the client; the replies to its requests too.
    Subscribe,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// Who has it.
    pub roles: &'static [Role],
    /// What it is for.
    pub direction: Direction,
    /// The subject, with the wildcards of NATS.
    pub subject: &'static str,
    /// What would not work without it.
    pub reason: &'static str,
}

use Direction::{Publish, Subscribe};
use Role::{CommandApi, Operator, Projector, QueryApi};

const fn row(
    roles: &'static [Role],
    direction: Direction,
    subject: &'static str,
    reason: &'static str,
) -> Permission {
    Permission { roles, direction, subject, reason }
}

/// Every permission. Note what is absent: nobody but the operator subscribes to a subject of the
/// log, because a plain subscriber also sees the messages of batches that are never committed;
/// and nobody but the operator updates, purges or deletes.
#[rustfmt::skip]
const TABLE: &[Permission] = &[
    row(&[Operator], Publish, ">", "provisions streams and repairs by hand"),
    row(&[Operator], Subscribe, ">", "sees what it repairs"),

    row(&[CommandApi], Publish, "ev.user.*", "appends the facts about a user"),
    row(&[CommandApi], Publish, "sec.user.*", "stores the credential beside the facts"),
    row(&[CommandApi], Publish, "uq.email.*", "claims and releases an e-mail address"),
    row(&[CommandApi], Publish, "uq.role.*", "guards what may exist only once per role"),
    row(&[CommandApi], Publish, "ik.*", "records the outcome of a command under its idempotency key"),
    row(&[CommandApi], Publish, "rv.user.*", "tells what ends the access of a user"),
    row(&[CommandApi, Projector], Publish, "$JS.API.STREAM.INFO.USERS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.MSG.GET.USERS", "loads an aggregate from the leader"),

    row(&[Projector], Publish, "$JS.API.STREAM.MSG.GET.USERS", "compares its position with the log when it starts"),
    // The client leaves the naming to the server unless told otherwise, on a subject of its own.
    // It allows nothing that the next row does not: both take any configuration.
    row(&[Projector], Publish, "$JS.API.CONSUMER.CREATE.USERS", "makes an ordered consumer the server names"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.CREATE.USERS.>", "makes an ordered consumer under a name of its own"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.INFO.USERS.>", "learns how much is left to read"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.DELETE.USERS.>", "clears away the consumer it replaces"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.>", "pulls the facts"),
    row(&[Projector], Publish, "roster.position.users", "announces how far the views are"),

    row(&[CommandApi, QueryApi], Subscribe, "roster.position.*", "waits until the views have what a caller wrote"),
    row(&[CommandApi], Subscribe, "_INBOX_command-api.>", "its own replies"),
    row(&[QueryApi], Subscribe, "_INBOX_query-api.>", "its own replies"),
    row(&[Projector], Subscribe, "_INBOX_projector.>", "its own replies, the messages it pulls among them"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_listens_to_its_own_inbox_and_to_no_other() {
        for role in Role::ALL {
            assert_eq!(role.inbox_prefix(), format!("_INBOX_{}", role.name()));
            let inboxes: Vec<_> = role
                .subjects(Subscribe)
                .into_iter()
                .filter(|subject| subject.starts_with("_INBOX"))
                .collect();
            if role == Operator {
                assert!(inboxes.is_empty(), "{inboxes:?}: it has everything already");
            } else {
                assert_eq!(inboxes, [format!("{}.>", role.inbox_prefix())]);
            }
        }
    }

    #[test]
    fn no_service_may_change_a_stream_or_listen_to_the_log() {
        for role in Role::ALL.into_iter().filter(|role| *role != Operator) {
            for subject in role.subjects(Publish) {
                for forbidden in [
                    "STREAM.CREATE",
                    "STREAM.UPDATE",
                    "DELETE.USERS",
                    "PURGE",
                    "RESTORE",
                    "SNAPSHOT",
                ] {
                    let own_consumer = subject == "$JS.API.CONSUMER.DELETE.USERS.>";
                    assert!(own_consumer || !subject.contains(forbidden), "{role}: {subject}");
                }
                assert!(!matches!(subject, ">" | "*" | "$JS.>" | "$JS.API.>"), "{role}: {subject}");
            }
            for subject in role.subjects(Subscribe) {
                assert!(
                    subject.starts_with(role.inbox_prefix()) || subject == "roster.position.*",
                    "{role}: {subject}"
                );
            }
        }
    }

    #[test]
    fn every_row_has_a_holder_and_a_reason_and_stands_once() {
        for (index, permission) in TABLE.iter().enumerate() {
            assert!(!permission.roles.is_empty(), "{permission:?}");
            assert!(!permission.reason.is_empty(), "{permission:?}");
            for other in &TABLE[index + 1..] {
                let same = permission.subject == other.subject
                    && permission.direction == other.direction
                    && permission.roles.iter().any(|role| other.roles.contains(role));
                assert!(!same, "{permission:?} stands twice");
            }
        }
    }
}
