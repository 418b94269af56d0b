//! The log of sessions, and beside it what is told of each event.

use events::{Position, SessionEvent, SessionId, UserId, evolve_session, subjects};
use projector::feed::project;
use service_kit::event_log::Followed;

use super::compare;
use super::feed::{Message, OF_SESSIONS};
use super::known::KnownSession;
use super::report::{Difference, FOREIGN, Place};
use super::{Scope, Verifier};
use crate::reading::Reading;

impl Verifier {
    /// Reads the log of sessions.
    pub(super) async fn log_of_sessions(&mut self) -> anyhow::Result<()> {
        let end = self.edge.sessions;
        let filters = match self.scope {
            Scope::Sample(_) => [subjects::SESSION_EVENTS_FILTER.to_owned()],
            Scope::One(user) => [subjects::session_events_of(user)],
        };
        let mut log = Reading::new(&self.streams.sessions, &filters, Position(0), end);
        let mut told = self.told(&OF_SESSIONS);
        while let Some(message) = log.next().await? {
            self.bar.set_position(self.edge.users.0 + message.position.0);
            if message.is_foreign {
                self.report.add(Difference::new(Place::SessionsLog, FOREIGN).at(message.position));
                continue;
            }
            let told = self.told_at(&mut told, message.position, false).await?;
            let mut ids = message.subject.split('.').skip(2);
            let user = ids.next().and_then(|id| id.parse::<UserId>().ok());
            let session = ids.next().and_then(|id| id.parse::<SessionId>().ok());
            let (Some(user), Some(session)) = (user, session) else {
                let nobody = Difference::new(Place::SessionsLog, "the subject names nobody");
                self.report.add(nobody.at(message.position));
                continue;
            };
            if self.is_checked(user) {
                self.report.looked.events += 1;
                self.session_event(user, session, &message, told).await?;
            }
        }
        self.told_at(&mut told, Position(end.0 + 1), false).await?;
        self.report.looked.sessions = self.sessions.len() as u64;
        Ok(())
    }

    async fn session_event(
        &mut self,
        user: UserId,
        session: SessionId,
        message: &Followed,
        told: Option<Message>,
    ) -> anyhow::Result<()> {
        let position = message.position;
        let event = match SessionEvent::from_json(&message.payload) {
            Ok(event) if event.after.user_id == user && event.after.id == session => event,
            Ok(_) | Err(_) => {
                let unreadable = Difference::new(Place::SessionsLog, "an event cannot be read");
                self.report.add(unreadable.of(user).of_session(session).at(position));
                return Ok(());
            }
        };
        let before = self.sessions.remove(&session);
        let difference = |what: &str| {
            Difference::new(Place::SessionsLog, what).of(user).of_session(session).at(position)
        };
        match before {
            // The log keeps the last messages of a session: the first there is may be any.
            None if event.revision().0 > 1 => {}
            Some(before) if before.after.revision.next() != event.revision() => {
                // The oldest go first: while the one before this is there, nothing between them may be gone.
                let is_there = self.streams.sessions.at(before.position).await?.is_some();
                if is_there && !self.is_deleted(user).await? {
                    self.report.add(difference("an event before this one is missing"));
                }
            }
            before => {
                let before = before.map(|before| before.after);
                let folded = evolve_session(before, user, session, &event.fact, event.time);
                match folded {
                    Ok(folded) if folded == event.after => {}
                    Ok(folded) => {
                        let members = compare::states(&folded, &event.after);
                        let differs = difference("the carried state does not fold");
                        self.report.add(differs.in_members(members));
                    }
                    Err(_) => self.report.add(difference("the carried state does not fold")),
                }
            }
        }
        let expected = project::of_session(&event, position);
        let began = event.after.created_at;
        let known = KnownSession { position, after: event.after, has_document: false };
        self.sessions.insert(session, known);
        let of_user = self.known.entry(user).or_default();
        of_user.last_login = of_user.last_login.max(Some(began));
        if of_user.is_deleted() {
            // Nothing is told of who is gone; what was told before may be erased.
            return Ok(());
        }
        self.compare_told(user, expected.as_ref(), told.as_ref(), position)
    }
}
