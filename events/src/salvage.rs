//! What can still be known of a user with unreadable events: enough for a deletion.
//!
//! No other decision may be based on it. A deletion ends access, releases the address and leaves a tombstone, and it
//! must not wait for a repair of the events that it erases.

use serde_json::Value;

use crate::{
    DeletedUser, Event, Metadata, ROLE_ADMIN, Revision, Status, Timestamp, User, UserId, UserState,
};

/// Collects the messages on the subject of one user, from the first to the last.
#[derive(Debug)]
pub struct Salvage {
    id: UserId,
    state: UserState,
}

impl Salvage {
    /// For a user without any message so far.
    #[must_use]
    pub const fn of(id: UserId) -> Self {
        Self { id, state: UserState::Absent }
    }

    /// Adds one message, readable or not.
    pub fn add(&mut self, payload: &[u8]) {
        if let Ok(event) = Event::from_json(payload)
            && event.user_id() == self.id
        {
            self.state = event.after.into();
            return;
        }
        let raw: Value = serde_json::from_slice(payload).unwrap_or_default();
        let said = raw.get("revision").and_then(Value::as_u64).unwrap_or_default();
        let revision = self.state.revision().next().max(Revision(said));
        self.state = match std::mem::take(&mut self.state) {
            UserState::Deleted(user) => UserState::Deleted(DeletedUser { revision, ..user }),
            UserState::Present(user) => {
                UserState::Present(User { revision, ..overlaid(user, &raw) })
            }
            UserState::Absent => {
                UserState::Present(User { revision, ..overlaid(self.unknown(), &raw) })
            }
        };
    }

    /// The state after all messages.
    #[must_use]
    pub fn into_state(self) -> UserState {
        self.state
    }

    /// A user without any readable event. To be safe, the permissions of an administrator's account are assumed.
    fn unknown(&self) -> User {
        User {
            id: self.id,
            email: String::new(),
            email_verified: false,
            full_name: None,
            roles: vec![ROLE_ADMIN.to_owned()],
            status: Status::Active,
            metadata: Metadata::new(),
            revision: Revision(0),
            created_at: Timestamp::FIRST,
            updated_at: Timestamp::FIRST,
        }
    }
}

/// A user with the address, roles and status that the state of an unreadable event still contains.
fn overlaid(mut user: User, raw: &Value) -> User {
    let Some(state) = raw.pointer("/data/user") else { return user };
    if let Some(email) = state.get("email").and_then(Value::as_str) {
        email.clone_into(&mut user.email);
    }
    let roles = state.get("roles").and_then(|roles| serde_json::from_value(roles.clone()).ok());
    user.roles = roles.unwrap_or(user.roles);
    let status = state.get("status").and_then(|status| serde_json::from_value(status.clone()).ok());
    user.status = status.unwrap_or(user.status);
    user
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::UserFact;

    fn id() -> UserId {
        UserId::from_uuid(uuid::Uuid::from_u128(9))
    }

    fn registration() -> Event {
        let time = Timestamp::from_unix_seconds(1_800_000_000).unwrap();
        let fact = UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified: false,
            full_name: None,
            roles: vec!["user".to_owned()],
            metadata: Metadata::new(),
            imported: None,
        };
        let state = UserState::Absent.evolve(id(), &fact, time).unwrap();
        Event {
            id: uuid::Uuid::from_u128(1),
            time,
            actor: crate::Actor::System,
            command_id: crate::CommandId::from_uuid(uuid::Uuid::from_u128(2)),
            correlation_id: None,
            causation_id: None,
            traceparent: None,
            fact,
            after: state.snapshot().unwrap(),
        }
    }

    fn salvaged(messages: &[&[u8]]) -> UserState {
        let mut salvage = Salvage::of(id());
        messages.iter().for_each(|message| salvage.add(message));
        salvage.into_state()
    }

    #[test]
    fn what_an_unreadable_event_still_says_is_known() {
        let bytes = registration().to_json().unwrap();
        let mut damaged: Value = serde_json::from_slice(&bytes).unwrap();
        damaged["revision"] = json!(2);
        damaged["data"]["user"]["email"] = json!("new@example.com");
        damaged["data"]["user"]["created_at"] = json!("never");
        let damaged = serde_json::to_vec(&damaged).unwrap();
        for messages in [&[&damaged[..]][..], &[&bytes[..], &damaged[..]][..]] {
            let UserState::Present(user) = salvaged(messages) else { panic!("{messages:?}") };
            assert_eq!(user.revision, Revision(2));
            assert_eq!(
                (user.email.as_str(), user.roles),
                ("new@example.com", vec!["user".to_owned()])
            );
        }
    }

    #[test]
    fn bytes_that_say_nothing_count_as_an_event() {
        let bytes = registration().to_json().unwrap();
        let UserState::Present(user) = salvaged(&[&bytes, b"\x00", b"[]"]) else { panic!("alive") };
        assert_eq!((user.revision, user.email.as_str()), (Revision(3), "ada@example.com"));
        let UserState::Present(user) = salvaged(&[b"\x00"]) else { panic!("alive") };
        assert_eq!((user.revision, user.roles), (Revision(1), vec![ROLE_ADMIN.to_owned()]));
        assert_eq!(salvaged(&[]), UserState::Absent);
    }
}
