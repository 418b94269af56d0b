//! The view of one user.

use events::{
    Cutoff, DeletedUser, EmailAddress, Position, Revision, SessionId, Snapshot, Status, Timestamp,
    User, UserId, search_folded, words,
};
use mongodb::bson::{self, DateTime, Uuid};
use serde::{Deserialize, Serialize};
use view_kit::ReadError;

/// The stored document. A tombstone has `deleted_at` and no members about the person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserDocument {
    /// The user's id.
    #[serde(rename = "_id")]
    pub id: Uuid,
    /// Position of the event that this state comes from: the guard of every write.
    pub position: i64,
    /// Number of events of the user.
    pub revision: i64,
    /// Set on a tombstone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deleted_at: Option<DateTime>,
    /// When the user last logged in. It comes from the sessions and not from the user's events, so `position` does not
    /// guard it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub last_login_at: Option<DateTime>,
    /// The last end of the user's access, with a guard of its own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cutoff: Option<CutoffDocument>,
    /// The members of a living user.
    #[serde(flatten, skip_serializing_if = "Option::is_none", default)]
    pub living: Option<Living>,
}

/// The stored form of a [`Cutoff`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CutoffDocument {
    /// Position of the revocation: the guard.
    pub position: i64,
    sessions_from: i64,
    except: Option<ExceptDocument>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ExceptDocument {
    session: Uuid,
    from: i64,
}

impl CutoffDocument {
    /// The document of a cutoff.
    #[must_use]
    pub fn project(cutoff: &Cutoff) -> Self {
        let except = cutoff.except.map(|(session, from)| ExceptDocument {
            session: Uuid::from_bytes(*session.as_uuid().as_bytes()),
            from: signed(from.0),
        });
        let position = signed(cutoff.position.0);
        Self { position, sessions_from: signed(cutoff.sessions_from.0), except }
    }

    /// The cutoff in the document.
    #[must_use]
    pub fn cutoff(&self) -> Cutoff {
        let position = |number: i64| Position(number.unsigned_abs());
        let except = self.except.as_ref().map(|except| {
            let session = SessionId::from_uuid(uuid::Uuid::from_bytes(except.session.bytes()));
            (session, position(except.from))
        });
        let sessions_from = position(self.sessions_from);
        Cutoff { position: position(self.position), sessions_from, except }
    }

    /// The document for the driver.
    ///
    /// # Errors
    /// Never for a document made by [`CutoffDocument::project`].
    pub fn to_bson(&self) -> Result<bson::Document, bson::error::Error> {
        bson::serialize_to_document(self)
    }
}

/// What a living user's document has beside the above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Living {
    email: String,
    email_canonical: String,
    email_verified: bool,
    full_name: Option<String>,
    roles: Vec<String>,
    status: Status,
    /// JSON as text: names with dots, `$` or NUL, all numbers and the order of members are kept.
    metadata: String,
    created_at: DateTime,
    updated_at: DateTime,
    /// The sort key of the name. A document without this and the next member has an older layout, and the projector is
    /// about to write it again.
    #[serde(default)]
    name_key: String,
    /// The words that `q` of the list is matched against.
    #[serde(default)]
    search: Vec<String>,
}

/// A user as the views have it.
#[derive(Debug, Clone, PartialEq)]
pub enum UserView {
    /// A living user.
    Living(Box<LivingUser>),
    /// A deleted one.
    Tombstone(DeletedUser),
}

/// A living user with the data that does not come from the user's events.
#[derive(Debug, Clone, PartialEq)]
pub struct LivingUser {
    /// The state after the user's last event.
    pub user: User,
    /// When the user last logged in.
    pub last_login_at: Option<Timestamp>,
    /// The last end of the user's access.
    pub cutoff: Cutoff,
}

/// A document that cannot be decoded: the versions of projector and query-api do not match.
#[derive(Debug, thiserror::Error)]
#[error("the view document of a user is damaged: {0}")]
pub struct DamagedView(pub(crate) &'static str);

impl From<DamagedView> for ReadError {
    fn from(error: DamagedView) -> Self {
        Self::Damaged(error.to_string())
    }
}

impl UserDocument {
    /// The document for the state after the event at `position`. Pure.
    #[must_use]
    pub fn project(after: &Snapshot, position: Position) -> Self {
        let id = Uuid::from_bytes(*after.user_id().as_uuid().as_bytes());
        let position = signed(position.0);
        let revision = signed(after.revision().0);
        match after {
            Snapshot::Deleted(user) => Self {
                id,
                position,
                revision,
                deleted_at: Some(date(user.deleted_at)),
                last_login_at: None,
                cutoff: None,
                living: None,
            },
            Snapshot::Present(user) => Self {
                id,
                position,
                revision,
                deleted_at: None,
                last_login_at: None,
                cutoff: None,
                living: Some(Living {
                    email_canonical: email_key(&user.email),
                    email: user.email.clone(),
                    email_verified: user.email_verified,
                    full_name: user.full_name.clone(),
                    roles: user.roles.clone(),
                    status: user.status,
                    metadata: serde_json::Value::Object(user.metadata.clone()).to_string(),
                    created_at: date(user.created_at),
                    updated_at: date(user.updated_at),
                    name_key: name_key(user.full_name.as_deref()),
                    search: search_words(user),
                }),
            },
        }
    }

    /// The user in the document.
    ///
    /// # Errors
    /// [`DamagedView`]: rebuild the views.
    pub fn view(self) -> Result<UserView, DamagedView> {
        let id = UserId::from_uuid(uuid::Uuid::from_bytes(self.id.bytes()));
        let revision = Revision(self.revision.unsigned_abs());
        let last_login_at = self.last_login_at.map(timestamp);
        let cutoff = self.cutoff.as_ref().map(CutoffDocument::cutoff).unwrap_or_default();
        let living = |user| UserView::Living(Box::new(LivingUser { user, last_login_at, cutoff }));
        match (self.living, self.deleted_at) {
            (Some(state), None) => Ok(living(User {
                id,
                email: state.email,
                email_verified: state.email_verified,
                full_name: state.full_name,
                roles: state.roles,
                status: state.status,
                metadata: serde_json::from_str(&state.metadata)
                    .map_err(|_| DamagedView("metadata is not JSON"))?,
                revision,
                created_at: timestamp(state.created_at),
                updated_at: timestamp(state.updated_at),
            })),
            (None, Some(deleted_at)) => Ok(UserView::Tombstone(DeletedUser {
                id,
                revision,
                deleted_at: timestamp(deleted_at),
            })),
            (Some(_), Some(_)) => Err(DamagedView("both living and deleted")),
            (None, None) => Err(DamagedView("neither living nor deleted")),
        }
    }

    /// Position of the event that the document comes from.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position(self.position.unsigned_abs())
    }

    /// The document for the driver.
    ///
    /// # Errors
    /// Never for a document made by [`UserDocument::project`].
    pub fn to_bson(&self) -> Result<bson::Document, bson::error::Error> {
        bson::serialize_to_document(self)
    }
}

/// The sort key of an e-mail address: its canonical form.
///
/// Addresses in the log were accepted once. If the rules have become stricter since, the address is used as it is.
#[must_use]
pub fn email_key(email: &str) -> String {
    EmailAddress::parse(email)
        .map_or_else(|_| email.to_lowercase(), |address| address.canonical().to_owned())
}

/// The sort key of a name: the name without case and accents. A user without a name has the empty key, which no name
/// has, and sorts first.
#[must_use]
pub fn name_key(full_name: Option<&str>) -> String {
    full_name.map(|name| search_folded(name.trim())).unwrap_or_default()
}

/// The words that a prefix is searched in, without case and accents: the address in its compared and its displayed
/// form, and every word of the name.
fn search_words(user: &User) -> Vec<String> {
    let mut found = vec![search_folded(&email_key(&user.email)), search_folded(&user.email)];
    found.extend(words(&name_key(user.full_name.as_deref())).map(str::to_owned));
    found.sort_unstable();
    found.dedup();
    found
}

/// Positions count messages, which never reach 2^63.
pub(crate) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(crate) fn date(time: Timestamp) -> DateTime {
    DateTime::from_millis(time.as_datetime().timestamp_millis())
}

pub(crate) fn timestamp(date: DateTime) -> Timestamp {
    Timestamp::from_datetime(date.to_chrono())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn living() -> Snapshot {
        let json = serde_json::json!({
            "id": "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "email": "Ada@Example.com",
            "email_verified": true, "full_name": "$name", "roles": ["admin", "user"],
            "status": "disabled",
            "metadata": {"$set": 1, "a.b": {"c": [1.5, 9_223_372_036_854_775_807_i64, "\u{0}"]}},
            "revision": 3, "created_at": "2026-01-31T12:00:00.123Z",
            "updated_at": "2026-01-31T12:00:01.000Z",
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_projected_is_read_back() {
        let after = living();
        let document = UserDocument::project(&after, Position(7));
        let bson = document.to_bson().unwrap();
        assert_eq!(bson.get_str("email_canonical").unwrap(), "ada@example.com");
        let read: UserDocument = bson::deserialize_from_document(bson).unwrap();
        assert_eq!(read, document);
        assert_eq!(read.position(), Position(7));
        let Snapshot::Present(user) = after else { panic!("a living user") };
        let UserView::Living(view) = read.view().unwrap() else { panic!("a living user") };
        assert_eq!((view.user, view.last_login_at, view.cutoff), (user, None, Cutoff::default()));
    }

    #[test]
    fn a_user_is_found_by_address_and_words() {
        let Snapshot::Present(mut user) = living() else { panic!("a living user") };
        user.email = "Ada.L@BÜCHER.example".to_owned();
        user.full_name = Some("  Ada\u{2003}LOVELACE ada".to_owned());
        let words = ["ada", "ada.l@bucher.example", "ada.l@xn--bcher-kva.example", "lovelace"];
        assert_eq!(search_words(&user), words);
        user.full_name = Some("Élodie Holt-Reyes (Nan)".to_owned());
        let words = search_words(&user);
        for word in ["elodie", "holt", "reyes", "nan"] {
            assert!(words.iter().any(|found| found == word), "{word} in {words:?}");
        }
        user.email = "ada@example.com".to_owned();
        user.full_name = None;
        assert_eq!(search_words(&user), ["ada@example.com"]);
        assert_eq!(name_key(None), "");
    }

    #[test]
    fn a_document_without_what_was_added_later_is_read() {
        let mut bson = UserDocument::project(&living(), Position(7)).to_bson().unwrap();
        for added in ["name_key", "search"] {
            assert!(bson.remove(added).is_some(), "{added}");
        }
        let read: UserDocument = bson::deserialize_from_document(bson).unwrap();
        assert!(matches!(read.view().unwrap(), UserView::Living(_)));
    }

    #[test]
    fn a_cutoff_is_read_back() {
        let except = SessionId::from_uuid(uuid::Uuid::from_u128(1));
        let cutoff = Cutoff {
            position: Position(9),
            sessions_from: Position(9),
            except: Some((except, Position(3))),
        };
        let bson = CutoffDocument::project(&cutoff).to_bson().unwrap();
        let read: CutoffDocument = bson::deserialize_from_document(bson).unwrap();
        assert_eq!(read.cutoff(), cutoff);
    }

    #[test]
    fn a_tombstone_says_nothing_about_a_person() {
        let Snapshot::Present(user) = living() else { panic!("a living user") };
        let deleted =
            DeletedUser { id: user.id, revision: Revision(4), deleted_at: user.updated_at };
        let document = UserDocument::project(&Snapshot::Deleted(deleted.clone()), Position(9));
        let bson = document.to_bson().unwrap();
        let mut members: Vec<&str> = bson.keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["_id", "deleted_at", "position", "revision"]);
        let read: UserDocument = bson::deserialize_from_document(bson).unwrap();
        assert_eq!(read.view().unwrap(), UserView::Tombstone(deleted));
    }
}
