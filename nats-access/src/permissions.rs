//! The table of permissions: who may publish and subscribe to what.

use std::fmt;

/// One type of NATS user. Every instance of a service has the role of that service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Provisions streams and repairs them by hand. Never given to a running service: permission to update a stream
    /// implies permission to wipe its history.
    Operator,
    /// Decides commands and appends to the log.
    CommandApi,
    /// Answers from the views and never touches the log.
    QueryApi,
    /// Reads the log, writes the views and announces their position.
    Projector,
    /// Sends mails, in the reactor. It talks to mail servers, and cannot delete messages.
    Mailer,
    /// Erases deleted users and replaced passwords, in the reactor. It alone deletes messages, and makes no links.
    Eraser,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 6] = [
        Self::Operator,
        Self::CommandApi,
        Self::QueryApi,
        Self::Projector,
        Self::Mailer,
        Self::Eraser,
    ];

    /// The name of the user on the server, and of its credentials file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::CommandApi => "command-api",
            Self::QueryApi => "query-api",
            Self::Projector => "projector",
            Self::Mailer => "mailer",
            Self::Eraser => "eraser",
        }
    }

    /// The prefix of the reply subjects of a client with this role.
    ///
    /// Replies contain data of the log. With the default prefix that all clients share, every service could read the
    /// replies of every other.
    #[must_use]
    pub const fn inbox_prefix(self) -> &'static str {
        match self {
            Self::Operator => "_INBOX_operator",
            Self::CommandApi => "_INBOX_command-api",
            Self::QueryApi => "_INBOX_query-api",
            Self::Projector => "_INBOX_projector",
            Self::Mailer => "_INBOX_mailer",
            Self::Eraser => "_INBOX_eraser",
        }
    }

    /// The permissions of this role. Everything else is denied.
    pub fn permissions(self) -> impl Iterator<Item = &'static Permission> {
        TABLE.iter().filter(move |permission| permission.roles.contains(&self))
    }

    /// The subjects that this role may use in a direction.
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

/// The direction of a message, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server, including requests to JetStream.
    Publish,
    /// From the server to the client, including replies to its requests.
    Subscribe,
    /// From the client to the server, and denied although another row would allow it.
    NeverPublish,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permission {
    /// The roles that have it.
    pub roles: &'static [Role],
    /// Its direction.
    pub direction: Direction,
    /// The subject, with NATS wildcards.
    pub subject: &'static str,
    /// The reason: what would not work without it.
    pub reason: &'static str,
}

use Direction::{NeverPublish, Publish, Subscribe};
use Role::{CommandApi, Eraser, Mailer, Operator, Projector, QueryApi};

const fn row(
    roles: &'static [Role],
    direction: Direction,
    subject: &'static str,
    reason: &'static str,
) -> Permission {
    Permission { roles, direction, subject, reason }
}

/// All permissions. Note what is absent: only the operator subscribes to a subject of the log, because a plain
/// subscriber also sees messages of batches that are never committed; and only the operator updates, purges or deletes.
#[rustfmt::skip]
const TABLE: &[Permission] = &[
    row(&[Operator], Publish, ">", "provisions streams and repairs by hand"),
    row(&[Operator], Subscribe, ">", "reads what it repairs"),

    row(&[CommandApi], Publish, "ev.user.*", "appends the facts about a user"),
    row(&[CommandApi], Publish, "sec.user.*", "stores the credential with the facts"),
    row(&[CommandApi], Publish, "uq.email.*", "claims and releases an e-mail address"),
    row(&[CommandApi], Publish, "uq.role.*", "guards what may exist only once per role"),
    row(&[CommandApi], Publish, "ik.*", "records the outcome of a command under its idempotency key"),
    row(&[CommandApi], Publish, "rv.user.*", "stores revocations of users"),
    row(&[CommandApi, Mailer], Publish, "lk.*.*", "records which link of a mail is valid, and that it was used"),
    row(&[CommandApi], Publish, "ev.session.*.*", "appends the facts about a session"),
    row(&[CommandApi], Publish, "rv.session.*", "stores revocations of sessions"),
    row(&[CommandApi, Mailer], Publish, "mail.order.*", "stores mail jobs"),
    row(&[CommandApi, Mailer], Publish, "mail.notice.*", "stores mail jobs of notices"),
    row(&[Mailer], Publish, "mail.parked.*", "parks a mail that cannot be sent"),

    row(&[CommandApi, Projector, Mailer, Eraser], Publish, "$JS.API.STREAM.INFO.USERS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi, Projector], Publish, "$JS.API.STREAM.INFO.SESSIONS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.INFO.MAILS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi, Projector, Mailer, Eraser], Publish, "$JS.API.STREAM.MSG.GET.USERS", "loads from the leader; the projector compares its position with the log"),
    row(&[CommandApi, Projector], Publish, "$JS.API.STREAM.MSG.GET.SESSIONS", "the same for sessions"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.MSG.GET.MAILS", "checks whether a mail job is stored already"),
    row(&[CommandApi], Publish, "$KV.THROTTLE.>", "counts attempts, so that passwords cannot be guessed"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.INFO.KV_THROTTLE", "refuses to run on a bucket that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.MSG.GET.KV_THROTTLE", "reads the attempts from the leader"),
    row(&[CommandApi], Publish, "$KV.THROTTLE_CLOSED.>", "stores which accounts have a closed password"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.INFO.KV_THROTTLE_CLOSED", "refuses to run on a bucket that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.MSG.GET.KV_THROTTLE_CLOSED", "reads them from the leader"),
    row(&[CommandApi], Publish, "$KV.THROTTLE_COUNTS.>", "counts mails, requests and permitted actions of users"),
    row(&[Mailer], Publish, "$KV.THROTTLE_COUNTS.sent.*", "counts mails by address, and touches no other count"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.INFO.KV_THROTTLE_COUNTS", "refuses to run on a bucket that is configured wrongly"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.MSG.GET.KV_THROTTLE_COUNTS", "reads them from the leader"),

    // The security record. Both APIs append to it, and neither reads it.
    row(&[CommandApi, QueryApi], Publish, "security.user.*.*", "records login attempts and administrative calls"),
    row(&[CommandApi, QueryApi], Publish, "security.anonymous.*", "the same for unknown users"),
    row(&[CommandApi, QueryApi, Eraser], Publish, "$JS.API.STREAM.INFO.SECURITY", "refuses to run on a stream that is configured wrongly"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.GET.SECURITY", "finds what is to be erased"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.SECURITY", "erases the records of a deleted user"),

    // Always with a name in the subject, which the server compares with the payload. The subject without a name takes
    // it from the payload: it could recreate the mailer's consumer (tried).
    row(&[Projector], Publish, "$JS.API.CONSUMER.CREATE.USERS.>", "creates an ordered consumer with its own name"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.INFO.USERS.>", "reads how many messages are left"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.DELETE.USERS.>", "deletes the consumer that it replaces"),
    row(&[Projector, CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.*", "pulls from a consumer that it created"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.CREATE.SESSIONS.>", "creates a consumer of the facts about sessions"),
    row(&[Projector, CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.MSG.NEXT.SESSIONS.*", "pulls from a consumer that it created"),
    row(&[CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.CREATE.USERS.*.rv.user.*", "follows revocations of users, and nothing else"),
    row(&[CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.CREATE.SESSIONS.*.rv.session.*", "follows revocations of sessions, and nothing else"),
    // Only of its own views: a peer service announces those of its own.
    row(&[Projector], Publish, "roster.position.users", "announces the position of the user views"),
    row(&[Projector], Publish, "roster.position.sessions", "announces the position of the session views"),

    // The feed. Only the projector writes it, and every message is guarded by the last one that it knows.
    row(&[Projector], Publish, "users.v1.*.*", "publishes events of users to peer services"),
    row(&[Projector], Publish, "sessions.v1.*.*", "publishes events of sessions to peer services"),
    row(&[Projector, Eraser], Publish, "$JS.API.STREAM.INFO.USER_EVENTS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.INFO.USER_EVENTS", "rejects commands that can wait before the feed is full"),
    row(&[Projector, Eraser], Publish, "$JS.API.STREAM.MSG.GET.USER_EVENTS", "reads what is published already, and what is to be erased"),

    // Erasure. No other user deletes messages, and the eraser never deletes one that guards the next write.
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.USERS", "erases what came before a deletion, and passwords that were replaced"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.SESSIONS", "erases the sessions of a deleted user"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.USER_EVENTS", "erases published events of a deleted user"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.USER_SNAPSHOTS", "erases the states of a deleted user"),
    row(&[Mailer, Eraser], Publish, "$JS.API.STREAM.INFO.SESSIONS", "refuses to run on a stream that is configured wrongly"),
    row(&[Mailer, Eraser], Publish, "$JS.API.STREAM.MSG.GET.SESSIONS", "finds what is to be erased, and which devices a user has used"),
    row(&[Eraser], Publish, "$JS.API.STREAM.INFO.USER_SNAPSHOTS", "refuses to run on a stream that is configured wrongly"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.GET.USER_SNAPSHOTS", "finds what is to be erased"),
    row(&[Eraser], Publish, "er.session.*", "records that the sessions of a deleted user are erased"),
    row(&[Eraser], Publish, "$JS.API.CONSUMER.INFO.USERS.eraser", "reads how many erasures are left"),
    row(&[Eraser], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser", "pulls the messages that lead to erasures"),
    row(&[Eraser], Publish, "$JS.ACK.USERS.eraser.>", "acknowledges an erasure"),
    row(&[Eraser], Publish, "$JS.ACK.*.*.USERS.eraser.>", "acknowledges an erasure"),
    row(&[Projector], NeverPublish, "$JS.API.CONSUMER.*.USERS.eraser", "the eraser's"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.CREATE.USERS.eraser.>", "the eraser's: to create is to change by name"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser", "the eraser's"),

    // The operator creates the mailer's consumers. No other user may read from them, which would take messages away, or
    // recreate them with another filter.
    row(&[Mailer], Publish, "$JS.API.CONSUMER.INFO.USERS.mailer", "reads how many events are left"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer", "pulls the facts that lead to mails"),
    row(&[Mailer], Publish, "$JS.ACK.USERS.mailer.>", "acknowledges a fact"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.INFO.MAILS.mailer", "reads how many mail jobs are left"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.MSG.NEXT.MAILS.mailer", "pulls mail jobs"),
    row(&[Mailer], Publish, "$JS.ACK.MAILS.mailer.>", "acknowledges a mail job"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.INFO.MAILS.notices", "reads how many notices are left"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.MSG.NEXT.MAILS.notices", "pulls the notices"),
    row(&[Mailer], Publish, "$JS.ACK.MAILS.notices.>", "acknowledges a notice"),
    row(&[Mailer], Publish, "$JS.ACK.*.*.MAILS.notices.>", "acknowledges a notice"),
    // The form that servers use with `js_ack_fc_v2`: domain and account come first.
    row(&[Mailer], Publish, "$JS.ACK.*.*.USERS.mailer.>", "acknowledges a fact"),
    row(&[Mailer], Publish, "$JS.ACK.*.*.MAILS.mailer.>", "acknowledges a mail job"),
    row(&[Projector], NeverPublish, "$JS.API.CONSUMER.*.USERS.mailer", "the mailer's"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.CREATE.USERS.mailer.>", "the mailer's: to create is to change by name"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer", "the mailer's"),

    row(&[CommandApi, QueryApi], Subscribe, "roster.position.*", "waits until the views have what a caller wrote"),
    row(&[Projector], Subscribe, "roster.parked.retry", "receives requests to retry parked aggregates"),
    row(&[CommandApi], Subscribe, "_INBOX_command-api.>", "its own replies"),
    row(&[QueryApi], Subscribe, "_INBOX_query-api.>", "its own replies"),
    row(&[Projector], Subscribe, "_INBOX_projector.>", "its own replies, the messages it pulls among them"),
    row(&[Mailer], Subscribe, "_INBOX_mailer.>", "its own replies, the messages it pulls among them"),
    row(&[Eraser], Subscribe, "_INBOX_eraser.>", "its own replies, the messages it pulls among them"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_subscribes_only_to_its_own_inbox() {
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
    fn no_service_can_change_a_stream_or_subscribe_to_the_log() {
        for role in Role::ALL.into_iter().filter(|role| *role != Operator) {
            for subject in role.subjects(Publish) {
                for forbidden in [
                    "STREAM.CREATE",
                    "STREAM.UPDATE",
                    "DELETE.USERS",
                    "DELETE.KV_THROTTLE",
                    "DELETE.SECURITY",
                    "PURGE",
                    "RESTORE",
                    "STREAM.SNAPSHOT",
                ] {
                    let own_consumer = subject == "$JS.API.CONSUMER.DELETE.USERS.>";
                    let erasure = role == Eraser
                        && (subject.starts_with("$JS.API.STREAM.MSG.DELETE.USER")
                            || subject == "$JS.API.STREAM.MSG.DELETE.SECURITY");
                    assert!(
                        own_consumer || erasure || !subject.contains(forbidden),
                        "{role}: {subject}"
                    );
                }
                assert!(!matches!(subject, ">" | "*" | "$JS.>" | "$JS.API.>"), "{role}: {subject}");
            }
            for subject in role.subjects(Subscribe) {
                assert!(
                    subject.starts_with(role.inbox_prefix()) || subject.starts_with("roster."),
                    "{role}: {subject}"
                );
            }
        }
    }

    /// Each of the two lacks the permissions that make the other one dangerous.
    #[test]
    fn the_mailer_cannot_delete_and_the_eraser_cannot_create_links_or_mails() {
        let of = |role: Role, word: &str| {
            role.subjects(Publish).into_iter().filter(|subject| subject.contains(word)).count()
        };
        assert_eq!((of(Mailer, "MSG.DELETE"), of(Mailer, "USER_EVENTS")), (0, 0));
        // It reads which devices a user has used, message by message.
        let of_sessions = Mailer.subjects(Publish).into_iter().filter(|s| s.contains("SESSIONS"));
        assert_eq!(
            of_sessions.collect::<Vec<_>>(),
            ["$JS.API.STREAM.INFO.SESSIONS", "$JS.API.STREAM.MSG.GET.SESSIONS"]
        );
        assert_eq!((of(Eraser, "lk."), of(Eraser, "mail"), of(Eraser, "MAILS")), (0, 0, 0));
        assert_eq!(of(Eraser, "MSG.DELETE"), 5);
    }

    #[test]
    fn only_the_eraser_reads_the_security_record() {
        for role in Role::ALL.into_iter().filter(|role| *role != Operator) {
            let reads: Vec<_> = role
                .subjects(Publish)
                .into_iter()
                .filter(|subject| subject.contains("SECURITY") && !subject.contains("STREAM.INFO"))
                .collect();
            let erases = ["$JS.API.STREAM.MSG.GET.SECURITY", "$JS.API.STREAM.MSG.DELETE.SECURITY"];
            let may: &[&str] = if role == Eraser { &erases } else { &[] };
            assert_eq!(reads, may, "{role}");
            let writes = role.subjects(Publish).iter().any(|s| s.starts_with("security."));
            assert_eq!(writes, matches!(role, CommandApi | QueryApi), "{role}");
        }
    }

    #[test]
    fn every_row_is_unique_and_has_a_holder_and_a_reason() {
        for (index, permission) in TABLE.iter().enumerate() {
            assert!(!permission.roles.is_empty(), "{permission:?}");
            assert!(!permission.reason.is_empty(), "{permission:?}");
            for other in &TABLE[index + 1..] {
                let same = permission.subject == other.subject
                    && permission.direction == other.direction
                    && permission.roles.iter().any(|role| other.roles.contains(role));
                assert!(!same, "{permission:?} is in the table twice");
            }
        }
    }
}
