//! The log of sessions in NATS.

use async_trait::async_trait;
use events::{EncodeError, Fact, Session, SessionEvent, SessionId, UserId, subjects};
use service_kit::commands::{Appended, Loaded, LogError};
use service_kit::event_log::{Append, EventLog, Guard, Stored, Write};

use crate::ports::SessionLog;

/// The real log.
pub struct NatsSessionLog {
    log: EventLog,
    /// Where events of sessions are published next, if its room is known.
    feed: Option<EventLog>,
}

impl NatsSessionLog {
    /// Uses a verified stream.
    pub const fn new(log: EventLog, feed: Option<EventLog>) -> Self {
        Self { log, feed }
    }

    /// One append of the ends of several sessions.
    async fn append_of_all(&self, ends: &[(SessionEvent, Guard)]) -> Result<Append, Appended> {
        let refused = |why: &str| Appended::Refused(why.to_owned());
        let mut writes = Vec::new();
        for (event, guard) in ends {
            let (user, session) = (event.after.user_id, event.after.id);
            let payload = event.to_json().map_err(|error| refused(&error.to_string()))?;
            let subject = subjects::session_revocation(session);
            // Nobody was told of the end before, but the subject need not be empty: `foreign.rs` of the log.
            let top = self.log.top(&subject).await.map_err(|_| Appended::Unavailable)?;
            writes.push(Write::new(subject, top.guard, "{}"));
            let write = Write::new(subjects::session_events(user, session), *guard, payload);
            writes.push(write.event(event.id, event.fact.wire_type()));
        }
        let last = writes.pop().ok_or_else(|| refused("no session to end"))?;
        let first = ends.first().ok_or_else(|| refused("no session to end"))?;
        let command = first.0.command_id;
        Ok(writes.into_iter().fold(Append::new(command, last), Append::with))
    }

    async fn append_of(&self, event: &SessionEvent, guard: Guard) -> Result<Append, Appended> {
        let (user, session) = (event.after.user_id, event.after.id);
        let refused = |error: EncodeError| Appended::Refused(error.to_string());
        let payload = event.to_json().map_err(refused)?;
        let write = Write::new(subjects::session_events(user, session), guard, payload)
            .event(event.id, event.fact.wire_type());
        let append = Append::new(event.command_id, write);
        if event.after.ended.is_none() {
            return Ok(append);
        }
        let subject = subjects::session_revocation(session);
        let guard = self.log.top(&subject).await.map_err(|_| Appended::Unavailable)?.guard;
        Ok(append.with(Write::new(subject, guard, "{}")))
    }
}

#[async_trait]
impl SessionLog for NatsSessionLog {
    fn has_headroom(&self) -> bool {
        self.log.has_headroom() && self.feed.as_ref().is_none_or(EventLog::has_headroom)
    }

    async fn load(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<Loaded<Option<Session>>, LogError> {
        let subject = subjects::session_events(user, session);
        let read = |stored: &Stored| {
            let event = SessionEvent::from_json(&stored.payload).map_err(|e| e.to_string())?;
            Ok(Some(event.after))
        };
        self.log.loaded_or(&subject, None, read).await
    }

    async fn of_user(&self, user: UserId) -> Result<Vec<SessionId>, LogError> {
        let filter = subjects::session_events_of(user);
        let subjects = self.log.subjects(&filter).await.map_err(LogError::Unavailable)?;
        let id = |subject: &String| subject.rsplit('.').next().and_then(|id| id.parse().ok());
        let mut ids: Vec<SessionId> = subjects.iter().filter_map(id).collect();
        // The ids carry the time of the start.
        ids.sort_unstable_by_key(|id| std::cmp::Reverse(*id.as_uuid()));
        Ok(ids)
    }

    async fn append(&self, event: &SessionEvent, guard: Guard) -> Appended {
        match self.append_of(event, guard).await {
            Ok(append) => self.log.append(&append).await.into(),
            Err(appended) => appended,
        }
    }

    async fn append_ends(&self, ends: &[(SessionEvent, Guard)]) -> Appended {
        match self.append_of_all(ends).await {
            Ok(append) => self.log.append(&append).await.into(),
            Err(appended) => appended,
        }
    }
}
