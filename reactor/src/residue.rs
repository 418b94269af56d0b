//! Residue of a user in the streams: shows whether an erasure is complete.

use events::{CommandId, Event, Position, Snapshot, UserId, feed, subjects};
use service_kit::event_log::{EVENT_TYPE_HEADER, EventLog, ReadError, Stored};
use service_kit::mail_jobs::{Mail, MailJobs};
use service_kit::security::{SECURITY_STREAM, records_of};
use uuid::Uuid;

/// The state of a user in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// No user has or had this id.
    Unknown,
    /// The user is not deleted.
    Present,
    /// The user is deleted, by the message at this position.
    Deleted(Position),
}

/// A message about a deleted user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResidualMessage {
    /// Its stream.
    pub stream: &'static str,
    /// Its position.
    pub position: Position,
    /// A description of its content.
    pub what: &'static str,
}

/// The residue cannot be determined.
#[derive(Debug, thiserror::Error)]
pub enum ResidueError {
    /// The log does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The last event of the user cannot be read.
    #[error("the last event of the user cannot be read: {0}")]
    Unreadable(#[from] events::DecodeError),
}

/// Every stream that can hold messages about a user. Needs the operator's permissions.
pub struct Streams {
    users: EventLog,
    sessions: EventLog,
    mails: EventLog,
    feed: EventLog,
    snapshots: EventLog,
    security: EventLog,
    orders: MailJobs,
}

impl Streams {
    /// `open` returns the handle of a stream.
    pub fn new(open: impl Fn(&'static str) -> EventLog, orders: MailJobs) -> Self {
        Self {
            users: open(subjects::USERS_STREAM),
            sessions: open(subjects::SESSIONS_STREAM),
            mails: open(subjects::MAILS_STREAM),
            feed: open(feed::FEED_STREAM),
            snapshots: open(feed::SNAPSHOTS_STREAM),
            security: open(SECURITY_STREAM),
            orders,
        }
    }

    /// Whether a user is deleted.
    ///
    /// # Errors
    /// [`ResidueError`]: unknown.
    pub async fn standing(&self, user: UserId) -> Result<Standing, ResidueError> {
        let Some(last) = self.users.last(&subjects::user_events(user)).await? else {
            return Ok(Standing::Unknown);
        };
        Ok(match Event::from_json(&last.payload)?.after {
            Snapshot::Present(_) => Standing::Present,
            Snapshot::Deleted(_) => Standing::Deleted(last.position),
        })
    }

    /// Whether the deletion of a user is published in the feed. Until then, more messages may appear in it.
    ///
    /// # Errors
    /// [`ResidueError::Read`].
    pub async fn is_told(&self, user: UserId) -> Result<bool, ResidueError> {
        Ok(self.feed.last(&feed::deletion_of(user)).await?.is_some())
    }

    /// Every message about a deleted user, except the tombstones.
    ///
    /// # Errors
    /// [`ResidueError::Read`].
    pub async fn left(
        &self,
        user: UserId,
        deletion: Position,
    ) -> Result<Vec<ResidualMessage>, ResidueError> {
        let mut left = Vec::new();
        let events = subjects::user_events(user);
        let is_deletion = |found: &Stored| found.position == deletion;
        self.find(&self.users, &events, "an event", is_deletion, &mut left).await?;

        // The deletion wrote an empty credential; one of another command is a password.
        let subject = subjects::user_credential(user);
        let emptied = match self.users.last(&subject).await? {
            Some(last) if last.command_id == self.command_at(deletion).await? => last.position,
            _ => Position::default(),
        };
        let is_empty = |found: &Stored| found.position == emptied;
        self.find(&self.users, &subject, "a credential", is_empty, &mut left).await?;

        let sessions = subjects::session_events_of(user);
        self.find(&self.sessions, &sessions, "an event of a session", |_| false, &mut left).await?;
        let told = feed::deletion_of(user);
        for filter in feed::of_user(user) {
            let is_told = |found: &Stored| found.subject == told;
            self.find(&self.feed, &filter, "an event of the feed", is_told, &mut left).await?;
        }
        let snapshots = feed::snapshots_of(user);
        let is_deletion =
            |found: &Stored| found.header(EVENT_TYPE_HEADER).as_deref() == Some(feed::DELETED);
        let what = "a state or an event that waits for a subscriber";
        self.find(&self.snapshots, &snapshots, what, is_deletion, &mut left).await?;
        let records = records_of(user);
        self.find(&self.security, &records, "a security record", |_| false, &mut left).await?;
        self.find_mails(user, &mut left).await?;
        Ok(left)
    }

    async fn command_at(&self, position: Position) -> Result<Option<CommandId>, ResidueError> {
        Ok(self.users.at(position).await?.and_then(|stored| stored.command_id))
    }

    /// Adds the messages of a stream that match a filter and must not remain.
    async fn find(
        &self,
        log: &EventLog,
        filter: &str,
        what: &'static str,
        may_stay: impl Fn(&Stored) -> bool + Send,
        left: &mut Vec<ResidualMessage>,
    ) -> Result<(), ResidueError> {
        let stream = self.name(log);
        let mut behind = Position::default();
        while let Some(found) = log.next(filter, behind).await? {
            behind = found.position;
            if !may_stay(&found) {
                left.push(ResidualMessage { stream, position: behind, what });
            }
        }
        Ok(())
    }

    /// Adds the mail jobs and parked mails that contain an address of the user. The others contain an id.
    async fn find_mails(
        &self,
        user: UserId,
        left: &mut Vec<ResidualMessage>,
    ) -> Result<(), ResidueError> {
        for (filter, what) in [
            (subjects::MAIL_ORDERS_FILTER, "a mail job; it ends by itself"),
            (subjects::MAIL_NOTICES_FILTER, "a job of a notice; it ends by itself"),
            (subjects::PARKED_MAILS_FILTER, "a parked mail; see `roster parked`"),
        ] {
            let mut behind = Position::default();
            while let Some(found) = self.mails.next(filter, behind).await? {
                behind = found.position;
                let id = found.subject.rsplit('.').next().and_then(|id| id.parse::<Uuid>().ok());
                let order = id.and_then(|id| self.orders.open(id, &found.payload).ok());
                if let Some(
                    Mail::EmailChange { user: whose, .. } | Mail::EmailChanged { user: whose, .. },
                ) = order.map(|order| order.mail)
                    && whose == user
                {
                    left.push(ResidualMessage {
                        stream: subjects::MAILS_STREAM,
                        position: behind,
                        what,
                    });
                }
            }
        }
        Ok(())
    }

    fn name(&self, log: &EventLog) -> &'static str {
        [subjects::SESSIONS_STREAM, feed::FEED_STREAM, feed::SNAPSHOTS_STREAM, SECURITY_STREAM]
            .into_iter()
            .find(|name| *name == log.stream())
            .unwrap_or(subjects::USERS_STREAM)
    }
}
