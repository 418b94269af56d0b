//! Damage to a running system, done with the operator's credentials and the driver of the database.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream::Stream};
use e2e::{System, read_stream};
use events::{EmailClaim, Event, UserId};
use mongodb::Database;
use mongodb::bson::{Bson, Document, Uuid, doc};
use serde_json::Value;

/// Collections of the views.
pub const USERS: &str = "users_1";
pub const SESSIONS: &str = "sessions_1";
pub const HISTORY: &str = "user_history_1";

/// A message as it stands in a stream.
#[derive(Debug, Clone)]
pub struct Message {
    pub subject: String,
    pub sequence: u64,
    pub headers: HeaderMap,
    pub payload: Vec<u8>,
}

impl Message {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap()
    }

    /// Its headers without the guard and the id by which a copy is refused.
    pub fn headers_of_a_copy(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers.iter() {
            if name.to_string().starts_with("Roster-") {
                headers.insert(name.clone(), values[0].clone());
            }
        }
        headers
    }
}

/// A system that is being damaged.
pub struct Damage {
    log: jetstream::Context,
    views: Database,
}

/// The key of a user in the views.
pub fn key(user: UserId) -> Bson {
    Uuid::from_bytes(*user.as_uuid().as_bytes()).into()
}

impl Damage {
    pub async fn of(system: &System) -> Self {
        Self { log: jetstream::new(system.operator().await), views: system.views().await }
    }

    async fn stream(&self, name: &str) -> Stream {
        self.log.get_stream(name).await.unwrap()
    }

    /// Everything on a filter, in order.
    pub async fn messages(&self, stream: &str, filter: &str) -> Vec<Message> {
        let messages = read_stream(&self.log, stream, filter).await;
        let read = messages.into_iter().map(|message| Message {
            subject: message.subject.to_string(),
            sequence: message.sequence,
            headers: message.headers,
            payload: message.payload.to_vec(),
        });
        read.collect()
    }

    /// Takes a message out of a stream.
    pub async fn remove(&self, stream: &str, sequence: u64) {
        assert!(self.stream(stream).await.delete_message(sequence).await.unwrap());
    }

    /// Writes a message without a guard; its sequence.
    pub async fn write(&self, subject: &str, headers: HeaderMap, payload: Vec<u8>) -> u64 {
        let sent = self.log.publish_with_headers(subject.to_owned(), headers, payload.into()).await;
        sent.unwrap().await.unwrap().sequence
    }

    /// The message with the claim that a user holds.
    pub async fn claim_of(&self, user: UserId) -> Message {
        let claims = self.messages("USERS", "uq.email.*").await;
        let is_of = |message: &&Message| {
            let claim: EmailClaim = serde_json::from_slice(&message.payload).unwrap();
            claim.holder() == Some(user)
        };
        claims.iter().rfind(is_of).unwrap().clone()
    }

    /// The events of a user in the log.
    pub async fn events_of(&self, user: UserId) -> Vec<Message> {
        self.messages("USERS", &format!("ev.user.{user}")).await
    }

    /// An event that carries a state to which its change does not lead.
    pub async fn event_that_does_not_fold(&self, user: UserId) -> u64 {
        let last = self.events_of(user).await.pop().unwrap();
        let mut event = last.json();
        let revision = event["revision"].as_u64().unwrap() + 1;
        event["revision"] = revision.into();
        event["type"] = "user.email_verified.v1".into();
        event["id"] = "0190a1b2-c3d4-7e5f-8a9b-00000000d0d0".into();
        event["data"]["changed"] = serde_json::json!({"email_verified": true});
        event["data"]["user"]["revision"] = revision.into();
        event["data"]["user"]["full_name"] = "nobody decided this".into();
        event["data"]["user"]["email_verified"] = true.into();
        let payload = serde_json::to_vec(&event).unwrap();
        Event::from_json(&payload).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Roster-Event-Type", "user.email_verified.v1");
        self.write(&last.subject, headers, payload).await
    }

    /// Changes one document of the views.
    pub async fn change(&self, collection: &str, filter: Document, set: Document) {
        let collection = self.views.collection::<Document>(collection);
        let changed = collection.update_one(filter, doc! {"$set": set}).await.unwrap();
        assert_eq!(changed.modified_count, 1);
    }

    /// Removes one document of the views.
    pub async fn drop(&self, collection: &str, filter: Document) {
        let collection = self.views.collection::<Document>(collection);
        assert_eq!(collection.delete_one(filter).await.unwrap().deleted_count, 1);
    }

    /// A copy of a document under another key.
    pub async fn copy(&self, collection: &str, filter: Document, key: impl Into<Bson>) {
        let collection = self.views.collection::<Document>(collection);
        let mut document = collection.find_one(filter).await.unwrap().unwrap();
        document.insert("_id", key.into());
        collection.insert_one(document).await.unwrap();
    }
}
