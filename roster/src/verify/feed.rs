//! The feed beside the log.

use events::feed::FeedEvent;
use events::{Position, UserId};
use futures::StreamExt;
use projector::feed::event_of;
use service_kit::event_log::Followed;

use super::Verifier;
use super::compare;
use super::known::{Doubt, Known};
use super::ordered::{Next, Ordered};
use super::report::{Difference, FOREIGN, Place};
use crate::reading::Reading;

/// What the log of users leads to.
pub const OF_USERS: [&str; 2] = ["users.v1.*.*", "sessions.v1.all_ended.*"];
/// What the log of sessions leads to.
pub const OF_SESSIONS: [&str; 3] =
    ["sessions.v1.started.*", "sessions.v1.ended.*", "sessions.v1.theft_detected.*"];

/// A message of the feed.
pub struct Message {
    subject: String,
    sequence: Position,
    /// `None` when it cannot be read.
    event: Option<FeedEvent>,
    is_foreign: bool,
}

impl Message {
    fn user(&self) -> Option<UserId> {
        self.subject.rsplit('.').next()?.parse().ok()
    }
}

impl Verifier {
    /// The messages of the feed on some subjects, by the position of their events.
    pub(super) fn told(&self, filters: &[&str]) -> Ordered<Message> {
        if !self.edge.is_told {
            return Ordered::new(futures::stream::empty().boxed());
        }
        let filters = self.subjects(filters);
        let reading = Reading::new(&self.streams.feed, &filters, Position(0), self.edge.feed);
        let messages = reading.into_stream().map(|message| {
            let message = message?;
            let event = FeedEvent::from_json(&message.payload).ok();
            // What cannot be read has no place beside the log.
            let position = event.as_ref().map_or(Position(0), |event| event.position);
            let position = if message.is_foreign { Position(0) } else { position };
            let Followed { subject, position: sequence, is_foreign, .. } = message;
            Ok((position, Message { subject, sequence, event, is_foreign }))
        });
        Ordered::new(messages.boxed())
    }

    /// Walks the feed up to a position and gives the message that stands there.
    pub(super) async fn told_at(
        &mut self,
        told: &mut Ordered<Message>,
        position: Position,
        is_of_users: bool,
    ) -> anyhow::Result<Option<Message>> {
        let mut there = None;
        while let Some(next) = told.next_to(position).await? {
            self.report.looked.feed += 1;
            let (at, message) = match next {
                Next::InPlace(at, message) => (at, message),
                Next::Late(at, message) => {
                    self.told_late(at, message, is_of_users).await?;
                    continue;
                }
            };
            let user = message.user().filter(|user| is_of_users && self.is_checked(*user));
            let known = user.map(|user| self.known.entry(user).or_default());
            if at == position {
                known.map(Known::told_on);
                there = Some(message);
            } else if let Some(known) = known {
                // The log of sessions keeps the last messages alone: what is told may be gone from it.
                known.doubt(Doubt::FeedExtra, at);
            }
        }
        Ok(there)
    }

    /// A message that comes behind those of later events. It may: its user or session was parked. Then it is
    /// what was missing there, and nothing else of the same was told before it.
    async fn told_late(
        &mut self,
        at: Position,
        message: Message,
        is_of_users: bool,
    ) -> anyhow::Result<()> {
        let user = message.user();
        let difference = |what: &str| {
            let mut difference = Difference::new(Place::Feed, what).at(message.sequence);
            difference.user_id = user;
            difference
        };
        if message.is_foreign {
            // It is about nobody, whomever its subject names.
            self.report.add(Difference::new(Place::Feed, FOREIGN).at(message.sequence));
            return Ok(());
        }
        if message.event.is_none() {
            self.report.add(difference("a message cannot be read"));
            return Ok(());
        }
        let Some(user) = user.filter(|user| self.is_checked(*user)) else { return Ok(()) };
        let doubt = if is_of_users { Doubt::FeedMissing } else { Doubt::FeedSessionMissing };
        if !self.known.entry(user).or_default().settle(doubt, at) {
            self.report.add(difference("told twice, or out of order"));
            return Ok(());
        }
        let log = if is_of_users { &self.streams.users } else { &self.streams.sessions };
        // Erased since: nothing to compare with is left.
        let Some(stored) = log.at(at).await? else { return Ok(()) };
        let (subject, position, stored_at) = (stored.subject, stored.position, stored.stored_at);
        let payload = stored.payload;
        let (pending, is_foreign) = (0, false);
        let logged = Followed { subject, position, stored_at, pending, payload, is_foreign };
        let expected = event_of(&logged).ok().flatten();
        self.compare_told(user, expected.as_ref(), Some(&message), at)
    }

    /// Compares what must be told with what is.
    pub(super) fn compare_told(
        &mut self,
        user: UserId,
        expected: Option<&FeedEvent>,
        found: Option<&Message>,
        position: Position,
    ) -> anyhow::Result<()> {
        if !self.edge.is_told {
            return Ok(());
        }
        let doubt = match (expected, found) {
            (None, None) => return Ok(()),
            (None, Some(_)) => Doubt::FeedExtra,
            (Some(expected), None) => {
                let of_sessions = expected.happened.kind().starts_with("sessions.");
                if of_sessions && expected.time < self.told_since {
                    return Ok(());
                }
                match expected.happened.session_id() {
                    Some(_) => Doubt::FeedSessionMissing,
                    None => Doubt::FeedMissing,
                }
            }
            (Some(expected), Some(found)) => {
                let Some(event) = &found.event else { return Ok(()) };
                let mut members = compare::told(expected, event)?;
                if expected.nats_subject().as_deref() != Some(found.subject.as_str()) {
                    members.push("the subject".to_owned());
                }
                if !members.is_empty() {
                    let different = Difference::new(Place::Feed, "different");
                    self.report.add(different.of(user).at(position).in_members(members));
                }
                return Ok(());
            }
        };
        self.known.entry(user).or_default().doubt(doubt, position);
        Ok(())
    }
}
