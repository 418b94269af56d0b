//! Comparing: the names of members that differ, and never their values.

use events::UserId;
use events::feed::FeedEvent;
use mongodb::bson::{Bson, Document};
use serde_json::Value;

/// How deep the members of an event are named: `data.user.email`. What is below is a user's own.
const DEPTH_MAX: usize = 3;

/// The members of two documents that differ.
pub fn documents(expected: &Document, found: &Document) -> Vec<String> {
    let mut members: Vec<String> = expected
        .iter()
        .filter(|(name, value)| found.get(name) != Some(value))
        .map(|(name, _)| name.clone())
        .collect();
    members.extend(found.keys().filter(|name| !expected.contains_key(name)).cloned());
    members
}

/// The members of two events of the feed that differ. Where the schema was served when the event was published is not
/// compared: it follows from the settings of that day.
pub fn told(expected: &FeedEvent, found: &FeedEvent) -> serde_json::Result<Vec<String>> {
    let data_schema = expected.data_schema.clone();
    let found = &FeedEvent { data_schema, ..found.clone() };
    if expected == found {
        return Ok(Vec::new());
    }
    let value = |event: &FeedEvent| serde_json::from_slice(&event.to_json()?);
    let mut members = Vec::new();
    collect(&value(expected)?, &value(found)?, "", 0, &mut members);
    Ok(members)
}

/// The members of two states that differ.
pub fn states(expected: &impl serde::Serialize, found: &impl serde::Serialize) -> Vec<String> {
    let value = |of: Result<Value, _>| of.unwrap_or(Value::Null);
    let mut members = Vec::new();
    let (expected, found) =
        (value(serde_json::to_value(expected)), value(serde_json::to_value(found)));
    collect(&expected, &found, "", DEPTH_MAX - 1, &mut members);
    members
}

fn collect(expected: &Value, found: &Value, path: &str, depth: usize, members: &mut Vec<String>) {
    if expected == found {
        return;
    }
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) if depth < DEPTH_MAX => {
            let more = found.keys().filter(|name| !expected.contains_key(*name));
            for name in expected.keys().chain(more) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let value = |of: &serde_json::Map<_, _>| of.get(name).cloned().unwrap_or_default();
                collect(&value(expected), &value(found), &path, depth + 1, members);
            }
        }
        _ => members.push(path.to_owned()),
    }
}

/// The user or session whose id stands in a member of a document.
pub fn id_in(document: &Document, member: &str) -> Option<uuid::Uuid> {
    let Some(Bson::Binary(binary)) = document.get(member) else { return None };
    binary.to_uuid().ok().map(|id| uuid::Uuid::from_bytes(id.bytes()))
}

/// The user whose id stands in a member of a document.
pub fn user_in(document: &Document, member: &str) -> Option<UserId> {
    id_in(document, member).map(UserId::from_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::doc;
    use serde_json::json;

    #[test]
    fn members_are_named_and_values_are_not() {
        let found = doc! {"a": 2, "c": 1};
        assert_eq!(documents(&doc! {"a": 1, "b": 1}, &found), ["a", "b", "c"]);
        assert_eq!(documents(&found, &found), [""; 0]);
        let one = json!({"email": "a@example.com", "metadata": {"secret": 1}, "revision": 1});
        let other = json!({"email": "b@example.com", "metadata": {"secret": 2}, "revision": 1});
        assert_eq!(states(&one, &other), ["email", "metadata"]);
    }
}
