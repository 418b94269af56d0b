//! The feed beside the log.

use events::feed::FeedEvent;
use events::{Position, UserId};
use futures::StreamExt;

use super::Verifier;
use super::compare;
use super::known::Doubt;
use super::ordered::Ordered;
use super::report::{Difference, Place};
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
            let (subject, sequence) = (message.subject, message.position);
            Ok((position, Message { subject, sequence, event }))
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
        while let Some((at, message)) = told.next_to(position).await? {
            self.report.looked.feed += 1;
            let user = message.user();
            if at == position {
                there = Some(message);
            } else if is_of_users && let Some(user) = user.filter(|user| self.is_checked(*user)) {
                // The log of sessions keeps the last messages alone: what is told may be gone from it.
                self.known.entry(user).or_default().doubt(Doubt::FeedExtra, at);
            }
        }
        for (_, message) in told.disordered() {
            self.report.looked.feed += 1;
            let what = match message.event {
                Some(_) => "told twice, or out of order",
                None => "a message cannot be read",
            };
            let mut difference = Difference::new(Place::Feed, what).at(message.sequence);
            difference.user_id = message.user();
            self.report.add(difference);
        }
        Ok(there)
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
