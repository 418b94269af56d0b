//! The log of users, and beside it what is told and kept of each event.

use events::{
    Cutoff, Event, Position, Snapshot, StoredRevocation, UserFact, UserId, UserState, subjects,
};
use futures::{StreamExt, TryStreamExt};
use mongodb::bson::{Document, doc};
use projector::feed::project;
use service_kit::event_log::Followed;
use views::{HistoryDocument, history_collection};

use super::compare;
use super::feed::{Message, OF_USERS};
use super::known::Doubt;
use super::ordered::{Next, Ordered};
use super::report::{Difference, FOREIGN, Place};
use super::{Scope, Verifier};
use crate::published::is_gone;
use crate::reading::Reading;

/// What of the log is read that names a user.
const OF_A_USER: [&str; 2] = [subjects::USER_EVENTS_FILTER, subjects::USER_REVOCATIONS_FILTER];
/// What else is read of it.
const OF_NOBODY: [&str; 2] = ["uq.email.*", "uq.role.*"];

impl Verifier {
    /// Reads the log of users.
    pub(super) async fn log_of_users(&mut self) -> anyhow::Result<()> {
        let end = self.edge.users;
        let mut filters = self.subjects(&OF_A_USER);
        if let Scope::Sample(_) = self.scope
            && !self.compared.is_views_alone()
        {
            filters.extend(OF_NOBODY.map(str::to_owned));
        }
        let records = self.edge.records;
        let mut log = Reading::new(&self.streams.users, &filters, Position(0), records);
        let mut history = self.history().await?;
        let mut told = self.told(&OF_USERS);
        while let Some(message) = log.next().await? {
            self.bar.set_position(message.position.0);
            if message.is_foreign {
                self.report.add(Difference::new(Place::Log, FOREIGN).at(message.position));
                continue;
            }
            let (root, name) = message.subject.rsplit_once('.').unwrap_or_default();
            match root {
                "uq.email" => self.claim(name, &message),
                "uq.role" => self.admins(&message),
                "ev.user" | "rv.user" => {
                    let document = self.history_at(&mut history, message.position).await?;
                    let told = self.told_at(&mut told, message.position, true).await?;
                    let Ok(user) = name.parse::<UserId>() else {
                        let nobody = Difference::new(Place::Log, "the subject names nobody");
                        self.report.add(nobody.at(message.position));
                        continue;
                    };
                    if !self.is_checked(user) {
                        continue;
                    }
                    self.report.looked.events += 1;
                    match root {
                        "ev.user" => self.event(user, &message, document, told)?,
                        _ => self.revocation(user, &message, told)?,
                    }
                }
                _ => {}
            }
        }
        self.history_at(&mut history, Position(end.0 + 1)).await?;
        self.told_at(&mut told, Position(end.0 + 1), true).await?;
        self.report.looked.users = self.known.len() as u64;
        Ok(())
    }

    fn event(
        &mut self,
        user: UserId,
        message: &Followed,
        document: Option<Document>,
        told: Option<Message>,
    ) -> anyhow::Result<()> {
        let position = message.position;
        let event = match Event::from_json(&message.payload) {
            Ok(event) if event.user_id() == user => event,
            Ok(_) | Err(_) => {
                let unreadable = Difference::new(Place::Log, "an event cannot be read");
                self.report.add(unreadable.of(user).at(position));
                return Ok(());
            }
        };
        self.fold(user, &event, position);
        let known = self.known.entry(user).or_default();
        if matches!(event.fact, UserFact::Deleted) {
            known.forget_doubts();
        }
        known.position = position;
        known.after = Some(event.after.clone());

        if self.edge.user_views {
            let expected = HistoryDocument::project(&event, position)?.to_bson()?;
            match document {
                None => known.doubt(Doubt::HistoryMissing, position),
                Some(found) => {
                    let members = compare::documents(&expected, &found);
                    if !members.is_empty() {
                        let different = Difference::new(Place::History, "different");
                        self.report.add(different.of(user).at(position).in_members(members));
                    }
                }
            }
        }
        match project::of_user(&event, position) {
            Ok(expected) => self.compare_told(user, Some(&expected), told.as_ref(), position),
            Err(_) => {
                let different =
                    Difference::new(Place::Log, "event and state contradict each other");
                self.report.add(different.of(user).at(position));
                Ok(())
            }
        }
    }

    /// Whether the changes lead to the state that the event carries.
    fn fold(&mut self, user: UserId, event: &Event, position: Position) {
        let known = self.known.entry(user).or_default();
        let before = known.after.take().map_or(UserState::Absent, UserState::from);
        if event.revision() != before.revision().next() {
            // The history of a deleted user may begin with the deletion, or be on its way there.
            known.doubt(Doubt::Gap, position);
            return;
        }
        let difference = Difference::new(Place::Log, "the carried state does not fold");
        let difference = difference.of(user).at(position);
        match before.evolve(user, &event.fact, event.time).map(|state| state.snapshot()) {
            Ok(Some(folded)) if folded == event.after => {}
            Ok(folded) => {
                let members = compare::states(&folded, &event.after);
                self.report.add(difference.in_members(members));
            }
            Err(_) => self.report.add(difference),
        }
    }

    fn revocation(
        &mut self,
        user: UserId,
        message: &Followed,
        told: Option<Message>,
    ) -> anyhow::Result<()> {
        let position = message.position;
        let Ok(stored) = serde_json::from_slice::<StoredRevocation>(&message.payload) else {
            let unreadable = Difference::new(Place::Log, "a revocation cannot be read");
            self.report.add(unreadable.of(user).at(position));
            return Ok(());
        };
        let cutoff = Cutoff::of(stored.revocation, position);
        self.known.entry(user).or_default().cutoff = Some(cutoff);
        let expected = project::of_revocation(user, &stored, position, message.stored_at);
        self.compare_told(user, expected.as_ref(), told.as_ref(), position)
    }

    /// The documents of what happened, by position.
    async fn history(&self) -> anyhow::Result<Ordered<Document>> {
        if !self.edge.user_views {
            return Ok(Ordered::new(futures::stream::empty().boxed()));
        }
        let end = i64::try_from(self.edge.users.0)?;
        let name = history_collection(self.compared.users);
        let collection = self.views.database().collection::<Document>(&name);
        let mut wanted = self.documents_of("user_id");
        wanted.insert("_id", doc! {"$lte": end});
        let documents = collection.find(wanted).sort(doc! {"_id": 1}).await?;
        let documents = documents.map_err(anyhow::Error::from).map_ok(|document| {
            let position = document.get_i64("_id").unwrap_or(0).unsigned_abs();
            (Position(position), document)
        });
        Ok(Ordered::new(documents.boxed()))
    }

    /// Walks the history up to a position and gives the document that stands there.
    async fn history_at(
        &mut self,
        history: &mut Ordered<Document>,
        position: Position,
    ) -> anyhow::Result<Option<Document>> {
        let mut there = None;
        while let Some(next) = history.next_to(position).await? {
            let (at, document) = match next {
                Next::InPlace(at, document) => (at, document),
                Next::Late(_, document) => {
                    let mut nowhere =
                        Difference::new(Place::History, "a document without a position");
                    nowhere.user_id = compare::user_in(&document, "user_id");
                    self.report.add(nowhere);
                    continue;
                }
            };
            self.report.looked.documents += 1;
            if at == position {
                there = Some(document);
            } else if let Some(user) = compare::user_in(&document, "user_id")
                && self.is_checked(user)
            {
                self.known.entry(user).or_default().doubt(Doubt::HistoryExtra, at);
            }
        }
        Ok(there)
    }

    /// Whether somebody is deleted, as of now.
    pub(super) async fn is_deleted(&self, user: UserId) -> anyhow::Result<bool> {
        match self.known.get(&user).and_then(|known| known.after.as_ref()) {
            Some(Snapshot::Deleted(_)) => Ok(true),
            Some(Snapshot::Present(_)) | None => is_gone(&self.streams.users, user).await,
        }
    }
}
