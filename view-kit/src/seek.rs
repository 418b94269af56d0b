//! Keyset pagination: which documents a page starts with.

use mongodb::bson::{Bson, DateTime, Document, Uuid, doc};
use service_kit::http::cursor::{Cursor, Key};

/// The branches of `$or` for everything after a cursor in the order of `member` and then `_id`: the rest of those with
/// the same key, and those with a later key. Each branch is one range of an index. The database merges them in order
/// and sorts nothing.
///
/// `bounds` are those of the member in a list of documents that all have it; `None` if a time may be absent. A text is
/// never absent: it is empty instead.
#[must_use]
pub fn behind(
    after: &Cursor,
    member: &str,
    descending: bool,
    bounds: Option<&Document>,
) -> Vec<Document> {
    let beyond = if descending { "$lt" } else { "$gt" };
    let same = |key: Bson| {
        let id = Uuid::from_bytes(*after.id.as_bytes());
        doc! {member: key, "_id": {beyond: id}}
    };
    let rest = |key: Bson| {
        let mut rest = bounds.cloned().unwrap_or_default();
        rest.insert(beyond, key);
        doc! {member: rest}
    };
    match &after.key {
        Key::Text(text) => vec![same(text.into()), rest(text.into())],
        Key::Number(number) => vec![same((*number).into()), rest((*number).into())],
        Key::Time(at) => {
            let at: Bson = DateTime::from_millis(*at).into();
            let mut branches = vec![same(at.clone()), rest(at)];
            // An absent key sorts before all others, and no comparison with a time matches it.
            let absent = bounds.is_none() && descending;
            branches.extend(absent.then(|| doc! {member: Bson::Null}));
            branches
        }
        Key::Absent => {
            let present = doc! {member: {"$gte": DateTime::MIN}};
            let mut branches = vec![same(Bson::Null)];
            branches.extend((!descending).then_some(present));
            branches
        }
    }
}
