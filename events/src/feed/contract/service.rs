//! The contract of the feed of a peer service, in the form of Roster's own.

use serde_json::{Value, json};

use super::document::{EventType, FeedDescription};
use crate::ServiceNames;

/// One event type of the feed of a peer service.
#[derive(Debug, Clone)]
pub struct Described {
    /// The last part of its type: `created`.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// For people, in a sentence.
    pub description: &'static str,
    /// Schema of `data`.
    pub data: Value,
}

/// The feed of a peer service.
#[derive(Debug, Clone)]
pub struct ServiceFeed {
    /// Whose it is.
    pub names: ServiceNames,
    /// Every type.
    pub types: Vec<Described>,
}

impl ServiceFeed {
    fn description(&self) -> FeedDescription {
        let (service, singular) = (self.names.service(), self.names.singular());
        let event_type = |of: &Described| {
            let kind = format!("{}.v1.{}", self.names.plural(), of.name);
            let id = format!("{singular}_id");
            EventType {
                title: of.title,
                description: of.description,
                subject: format!("The id of the {singular}."),
                data: of.data.clone(),
                address: format!("{kind}.{{{id}}}"),
                parameters: json!({ id: { "description": "A UUID in lower case." } }),
                stream: self.names.feed_stream(),
                stream_note: "",
                examples: Value::Null,
                kind,
            }
        };
        FeedDescription {
            file: "feed.json",
            id: format!("urn:roster:{service}:feed:v1"),
            info: json!({
                "title": format!("{service}: the feed of {}", self.names.plural()),
                "version": "1",
                "description": "Each event once, and in order per aggregate. Within version 1 there come only further event types and further optional members; a reader passes over what it does not know.",
            }),
            servers: Value::Null,
            security_schemes: Value::Null,
            source: format!("/{service}"),
            aggregate: singular.to_owned(),
            position_note: "",
            data_schema: Value::Null,
            types: self.types.iter().map(event_type).collect(),
        }
    }

    /// Every file of the contract: its name and content.
    ///
    /// # Errors
    /// Only when a value cannot be JSON, which none of these is.
    pub fn files(&self) -> Result<Vec<(String, String)>, serde_json::Error> {
        self.description().files()
    }
}
