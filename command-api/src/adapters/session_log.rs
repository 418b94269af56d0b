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

    /// One append of the ends of several sessions, each of which is told to everyone for the first time.
    fn append_of_all(ends: &[(SessionEvent, Guard)]) -> Result<Append, String> {
        let mut writes = Vec::new();
        for (event, guard) in ends {
            let (user, session) = (event.after.user_id, event.after.id);
            let payload = event.to_json().map_err(|error| error.to_string())?;
            writes.push(Write::new(subjects::session_revocation(session), Guard::absent(), "{}"));
            let write = Write::new(subjects::session_events(user, session), *guard, payload);
            writes.push(write.event(event.id, event.fact.wire_type()));
        }
        let last = writes.pop().ok_or("no session to end")?;
        let command = ends.first().ok_or("no session to end")?.0.command_id;
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
        let last = self.log.last(&subject).await.map_err(|_| Appended::Unavailable)?;
        let guard = last.map_or(Guard::absent(), |stored| stored.guard());
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
        let loaded = self.log.loaded(&subject, read).await?;
        Ok(loaded.unwrap_or_else(|| Loaded::empty(None)))
    }

    async fn append(&self, event: &SessionEvent, guard: Guard) -> Appended {
        match self.append_of(event, guard).await {
            Ok(append) => self.log.append(&append).await.into(),
            Err(appended) => appended,
        }
    }

    async fn append_ends(&self, ends: &[(SessionEvent, Guard)]) -> Appended {
        match Self::append_of_all(ends) {
            Ok(append) => self.log.append(&append).await.into(),
            Err(why) => Appended::Refused(why),
        }
    }
}
