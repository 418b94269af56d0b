//! The documents of users and sessions beside the states of the log.

use events::{Snapshot, Timestamp, UserId};
use futures::TryStreamExt;
use mongodb::bson::{Bson, DateTime, Document, doc};
use views::{CutoffDocument, SessionDocument, UserDocument, sessions_collection, users_collection};

use super::known::Known;
use super::report::{Difference, Place};
use super::{EXPIRY_MARGIN_S, Verifier, compare};
use service_kit::ambient;

/// Set by the projector of sessions.
const LAST_LOGIN: &str = "last_login_at";

impl Verifier {
    /// Compares the documents of users.
    pub(super) async fn user_documents(&mut self) -> anyhow::Result<()> {
        let collection =
            self.views.database().collection::<Document>(&users_collection(self.compared.users));
        let mut documents = collection.find(self.documents_of("_id")).sort(doc! {"_id": 1}).await?;
        while let Some(document) = documents.try_next().await? {
            self.bar.inc(1);
            let Some(user) = compare::user_in(&document, "_id") else {
                self.report.add(Difference::new(Place::UserView, "a document of nobody"));
                continue;
            };
            if self.is_checked(user) {
                self.report.looked.documents += 1;
                self.user_document(user, &document).await?;
            }
        }
        let mut missing = Vec::new();
        for (user, known) in &self.known {
            if known.after.is_some() && !known.has_document {
                missing.push((*user, known.position));
            }
        }
        for (user, position) in missing {
            let missing = Difference::new(Place::UserView, "document missing");
            self.differs(user, missing.of(user).at(position)).await?;
        }
        Ok(())
    }

    async fn user_document(&mut self, user: UserId, document: &Document) -> anyhow::Result<()> {
        let since = self.logged_since;
        let known = self.known.entry(user).or_default();
        known.has_document = true;
        let Some(after) = &known.after else {
            let extra = Difference::new(Place::UserView, "document without an event");
            return self.differs(user, extra.of(user)).await;
        };
        let position = known.position;
        let expected = user_document(known, after, document, since)?;
        let members = compare::documents(&expected, document);
        if members.is_empty() {
            return Ok(());
        }
        let different = Difference::new(Place::UserView, "different").of(user).at(position);
        self.differs(user, different.in_members(members)).await
    }

    /// Compares the documents of sessions.
    pub(super) async fn session_documents(&mut self) -> anyhow::Result<()> {
        let soon = ambient::now().plus_seconds(EXPIRY_MARGIN_S);
        let soon = DateTime::from_millis(soon.as_datetime().timestamp_millis());
        let name = sessions_collection(self.compared.sessions);
        let collection = self.views.database().collection::<Document>(&name);
        let mut documents =
            collection.find(self.documents_of("user_id")).sort(doc! {"_id": 1}).await?;
        while let Some(document) = documents.try_next().await? {
            self.bar.inc(1);
            let id = compare::id_in(&document, "_id").map(events::SessionId::from_uuid);
            let user = compare::user_in(&document, "user_id");
            let (Some(session), Some(user)) = (id, user) else {
                self.report.add(Difference::new(Place::SessionView, "a document of nobody"));
                continue;
            };
            // A document whose user was changed belongs to whom the log says.
            let known = self.sessions.get_mut(&session);
            let user = known.as_ref().map_or(user, |known| known.after.user_id);
            if !self.is_checked(user) {
                continue;
            }
            self.report.looked.documents += 1;
            let Some(known) = self.sessions.get_mut(&session) else {
                let expires =
                    matches!(document.get("remove_at"), Some(Bson::DateTime(at)) if *at < soon);
                if !expires && !self.is_deleted(user).await? {
                    let extra = Difference::new(Place::SessionView, "document without an event");
                    self.differs(user, extra.of(user).of_session(session)).await?;
                }
                continue;
            };
            known.has_document = true;
            let position = known.position;
            let expected = SessionDocument::project(&known.after, position).to_bson()?;
            let members = compare::documents(&expected, &document);
            if !members.is_empty() {
                let different = Difference::new(Place::SessionView, "different");
                let different = different.of(user).of_session(session).at(position);
                self.differs(user, different.in_members(members)).await?;
            }
        }
        let mut missing = Vec::new();
        for (session, known) in &self.sessions {
            let remove_at = SessionDocument::project(&known.after, known.position).remove_at;
            if !known.has_document && remove_at >= soon {
                missing.push((*session, known.after.user_id, known.position));
            }
        }
        for (session, user, position) in missing {
            // Those of a deleted user are erased.
            if !self.is_deleted(user).await? {
                let missing = Difference::new(Place::SessionView, "document missing");
                let missing = missing.of(user).of_session(session).at(position);
                self.differs(user, missing).await?;
            }
        }
        Ok(())
    }
}

/// The document that a user must have, with what comes from sessions and revocations.
fn user_document(
    known: &Known,
    after: &Snapshot,
    found: &Document,
    logged_since: Timestamp,
) -> anyhow::Result<Document> {
    let mut expected = UserDocument::project(after, known.position).to_bson()?;
    if let Snapshot::Deleted(_) = after {
        return Ok(expected);
    }
    if let Some(cutoff) = &known.cutoff {
        expected.insert("cutoff", CutoffDocument::project(cutoff).to_bson()?);
    }
    let date = |at: Timestamp| DateTime::from_millis(at.as_datetime().timestamp_millis());
    let last_login = known.last_login.map(date);
    match found.get(LAST_LOGIN) {
        // A login that is so old may be gone from the log of sessions.
        Some(Bson::DateTime(at)) if last_login < Some(*at) && *at < date(logged_since) => {
            expected.insert(LAST_LOGIN, *at);
        }
        _ => {
            if let Some(at) = last_login {
                expected.insert(LAST_LOGIN, at);
            }
        }
    }
    Ok(expected)
}
