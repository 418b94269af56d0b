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
    /// Sends mails, in the reactor. It talks to mail servers, and deletes nothing.
    Mailer,
    /// Erases deleted users and replaced passwords, in the reactor. It alone deletes messages, and makes no link.
    Eraser,
}

impl Role {
    /// Every role there is.
    pub const ALL: [Self; 6] = [
        Self::Operator,
        Self::CommandApi,
        Self::QueryApi,
        Self::Projector,
        Self::Mailer,
        Self::Eraser,
    ];

    /// The name of the user on the server, and of the file with its credentials.
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
            Self::Mailer => "_INBOX_mailer",
            Self::Eraser => "_INBOX_eraser",
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
    /// From the client to the server, and refused although another row would allow it.
    NeverPublish,
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
    row(&[CommandApi, Mailer], Publish, "lk.*.*", "says which link of a mail is good, and that it was used"),
    row(&[CommandApi], Publish, "ev.session.*.*", "appends the facts about a session"),
    row(&[CommandApi], Publish, "rv.session.*", "tells that a session ended"),
    row(&[CommandApi, Mailer], Publish, "mail.order.*", "asks for a mail"),
    row(&[CommandApi, Mailer], Publish, "mail.notice.*", "asks for a notice"),
    row(&[Mailer], Publish, "mail.parked.*", "puts a mail aside that cannot be sent"),

    row(&[CommandApi, Projector, Mailer, Eraser], Publish, "$JS.API.STREAM.INFO.USERS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi, Projector], Publish, "$JS.API.STREAM.INFO.SESSIONS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.INFO.MAILS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi, Projector, Mailer, Eraser], Publish, "$JS.API.STREAM.MSG.GET.USERS", "loads from the leader; the projector compares its position with the log"),
    row(&[CommandApi, Projector], Publish, "$JS.API.STREAM.MSG.GET.SESSIONS", "the same for sessions"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.MSG.GET.MAILS", "looks whether an order is placed already"),
    row(&[CommandApi], Publish, "$KV.THROTTLE.>", "counts attempts, so that passwords cannot be guessed"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.INFO.KV_THROTTLE", "refuses to run on a bucket that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.MSG.GET.KV_THROTTLE", "reads the attempts from the leader"),
    row(&[CommandApi], Publish, "$KV.THROTTLE_CLOSED.>", "keeps the accounts whose password is closed"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.INFO.KV_THROTTLE_CLOSED", "refuses to run on a bucket that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.MSG.GET.KV_THROTTLE_CLOSED", "reads them from the leader"),
    row(&[CommandApi], Publish, "$KV.THROTTLE_COUNTS.>", "counts mails, requests and what users do rightly"),
    row(&[Mailer], Publish, "$KV.THROTTLE_COUNTS.sent.*", "counts mails by address, and touches no other count"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.INFO.KV_THROTTLE_COUNTS", "refuses to run on a bucket that is configured wrongly"),
    row(&[CommandApi, Mailer], Publish, "$JS.API.STREAM.MSG.GET.KV_THROTTLE_COUNTS", "reads them from the leader"),

    // The security record. Both APIs add to it; none of them reads it.
    row(&[CommandApi, QueryApi], Publish, "security.user.*.*", "records who tried to get in, and who called"),
    row(&[CommandApi, QueryApi], Publish, "security.anonymous.*", "the same of nobody in particular"),
    row(&[CommandApi, QueryApi, Eraser], Publish, "$JS.API.STREAM.INFO.SECURITY", "refuses to run on a stream that is configured wrongly"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.GET.SECURITY", "finds what is to be erased"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.SECURITY", "erases the records of a deleted user"),

    // Always under a name in the subject, which the server holds the payload to. The other subject,
    // without one, takes a name out of the payload: it could make the mailer's consumer anew (tried).
    row(&[Projector], Publish, "$JS.API.CONSUMER.CREATE.USERS.>", "makes an ordered consumer under a name of its own"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.INFO.USERS.>", "learns how much is left to read"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.DELETE.USERS.>", "clears away the consumer it replaces"),
    row(&[Projector, CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.*", "pulls from a consumer it made"),
    row(&[Projector], Publish, "$JS.API.CONSUMER.CREATE.SESSIONS.>", "makes a consumer of the facts about sessions"),
    row(&[Projector, CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.MSG.NEXT.SESSIONS.*", "pulls from a consumer it made"),
    row(&[CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.CREATE.USERS.*.rv.user.*", "follows what ends the access of users, and nothing else"),
    row(&[CommandApi, QueryApi], Publish, "$JS.API.CONSUMER.CREATE.SESSIONS.*.rv.session.*", "follows the ends of sessions, and nothing else"),
    // Of its own views alone: a further service announces those of its own.
    row(&[Projector], Publish, "roster.position.users", "announces how far the views of users are"),
    row(&[Projector], Publish, "roster.position.sessions", "announces how far the views of sessions are"),

    // The feed. Its only writer is the projector, and a message is let in behind the one it knows as the last.
    row(&[Projector], Publish, "users.v1.*.*", "tells other services what happened to users"),
    row(&[Projector], Publish, "sessions.v1.*.*", "tells other services what happened to sessions"),
    row(&[Projector, Eraser], Publish, "$JS.API.STREAM.INFO.USER_EVENTS", "refuses to run on a stream that is configured wrongly"),
    row(&[CommandApi], Publish, "$JS.API.STREAM.INFO.USER_EVENTS", "refuses what can wait before the feed is full"),
    row(&[Projector, Eraser], Publish, "$JS.API.STREAM.MSG.GET.USER_EVENTS", "finds out what is told already, and what is to be erased"),

    // Erasure. Nobody else deletes a message, and the eraser never one that guards the next write.
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.USERS", "erases what came before a deletion, and passwords that were replaced"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.SESSIONS", "erases the sessions of a deleted user"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.USER_EVENTS", "erases what the feed told of a deleted user"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.DELETE.USER_SNAPSHOTS", "erases the states of a deleted user"),
    row(&[Mailer, Eraser], Publish, "$JS.API.STREAM.INFO.SESSIONS", "refuses to run on a stream that is configured wrongly"),
    row(&[Mailer, Eraser], Publish, "$JS.API.STREAM.MSG.GET.SESSIONS", "finds what is to be erased, and which devices a user has used"),
    row(&[Eraser], Publish, "$JS.API.STREAM.INFO.USER_SNAPSHOTS", "refuses to run on a stream that is configured wrongly"),
    row(&[Eraser], Publish, "$JS.API.STREAM.MSG.GET.USER_SNAPSHOTS", "finds what is to be erased"),
    row(&[Eraser], Publish, "er.session.*", "records that the sessions of a deleted user are erased"),
    row(&[Eraser], Publish, "$JS.API.CONSUMER.INFO.USERS.eraser", "learns how much is left to erase"),
    row(&[Eraser], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser", "pulls what leads to erasures"),
    row(&[Eraser], Publish, "$JS.ACK.USERS.eraser.>", "says that something is erased"),
    row(&[Eraser], Publish, "$JS.ACK.*.*.USERS.eraser.>", "says that something is erased"),
    row(&[Projector], NeverPublish, "$JS.API.CONSUMER.*.USERS.eraser", "the eraser's"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.CREATE.USERS.eraser.>", "the eraser's: to create is to change by name"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser", "the eraser's"),

    // The consumers of the mailer are made by the operator. Nobody else may read from them, which
    // would take messages away, or make them anew with another filter.
    row(&[Mailer], Publish, "$JS.API.CONSUMER.INFO.USERS.mailer", "learns how much is left to do"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer", "pulls the facts that lead to mails"),
    row(&[Mailer], Publish, "$JS.ACK.USERS.mailer.>", "says that a fact is worked on"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.INFO.MAILS.mailer", "learns how much is left to send"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.MSG.NEXT.MAILS.mailer", "pulls the orders"),
    row(&[Mailer], Publish, "$JS.ACK.MAILS.mailer.>", "says that a mail is sent"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.INFO.MAILS.notices", "learns how many notices are left to send"),
    row(&[Mailer], Publish, "$JS.API.CONSUMER.MSG.NEXT.MAILS.notices", "pulls the notices"),
    row(&[Mailer], Publish, "$JS.ACK.MAILS.notices.>", "says that a notice is sent"),
    row(&[Mailer], Publish, "$JS.ACK.*.*.MAILS.notices.>", "says that a notice is sent"),
    // The form that a server uses once `js_ack_fc_v2` is on: domain and account come first.
    row(&[Mailer], Publish, "$JS.ACK.*.*.USERS.mailer.>", "says that a fact is worked on"),
    row(&[Mailer], Publish, "$JS.ACK.*.*.MAILS.mailer.>", "says that a mail is sent"),
    row(&[Projector], NeverPublish, "$JS.API.CONSUMER.*.USERS.mailer", "the mailer's"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.CREATE.USERS.mailer.>", "the mailer's: to create is to change by name"),
    row(&[Projector, CommandApi, QueryApi], NeverPublish, "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer", "the mailer's"),

    row(&[CommandApi, QueryApi], Subscribe, "roster.position.*", "waits until the views have what a caller wrote"),
    row(&[Projector], Subscribe, "roster.parked.retry", "hears that what is parked is to be read again"),
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

    /// Each does without what makes the other dangerous.
    #[test]
    fn the_mailer_deletes_nothing_and_the_eraser_makes_no_link_and_no_mail() {
        let of = |role: Role, word: &str| {
            role.subjects(Publish).into_iter().filter(|subject| subject.contains(word)).count()
        };
        assert_eq!((of(Mailer, "MSG.DELETE"), of(Mailer, "USER_EVENTS")), (0, 0));
        // It looks which devices a user has used, message by message.
        let of_sessions = Mailer.subjects(Publish).into_iter().filter(|s| s.contains("SESSIONS"));
        assert_eq!(
            of_sessions.collect::<Vec<_>>(),
            ["$JS.API.STREAM.INFO.SESSIONS", "$JS.API.STREAM.MSG.GET.SESSIONS"]
        );
        assert_eq!((of(Eraser, "lk."), of(Eraser, "mail"), of(Eraser, "MAILS")), (0, 0, 0));
        assert_eq!(of(Eraser, "MSG.DELETE"), 5);
    }

    #[test]
    fn no_service_reads_the_security_record_except_the_one_that_erases() {
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
