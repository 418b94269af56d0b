//! The contract of the feed of a peer service, in the form of Roster's own.

use serde_json::{Map, Value, json};

use super::{Enveloped, envelope, schema_id};
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
    fn kind(&self, of: &Described) -> String {
        format!("{}.v1.{}", self.names.plural(), of.name)
    }

    fn schema(&self, of: &Described) -> Value {
        let (kind, service) = (self.kind(of), self.names.service());
        envelope(&Enveloped {
            id: schema_id(&kind),
            kind: &kind,
            title: of.title,
            description: of.description,
            source: &format!("/{service}"),
            subject: &format!("The id of the {}.", self.names.singular()),
            revision: &format!(
                "Goes up with every event of one {}, and may leave numbers out: what has the same or a lower one is known already.",
                self.names.singular()
            ),
            position: "Place in the event log in decimal, as commands answer it in `Roster-Position`.",
            data: of.data.clone(),
        })
    }

    /// The AsyncAPI 3 document. It refers to the schemas beside it.
    fn asyncapi(&self) -> Value {
        let (service, id) = (self.names.service(), format!("{}_id", self.names.singular()));
        let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
        for of in &self.types {
            let kind = self.kind(of);
            let key = kind.replace('.', "_");
            messages.insert(
                key.clone(),
                json!({
                    "name": kind,
                    "title": of.title,
                    "summary": of.description,
                    "contentType": "application/cloudevents+json",
                    "payload": {
                        "schemaFormat": "application/schema+json;version=draft-07",
                        "schema": { "$ref": format!("./schemas/{kind}.json") },
                    },
                    "correlationId": {
                        "description": "The request behind the event.",
                        "location": "$message.payload#/correlationid",
                    },
                }),
            );
            channels.insert(
                key.clone(),
                json!({
                    "address": format!("{kind}.{{{id}}}"),
                    "title": of.title,
                    "description": format!("Stream `{}` of JetStream.", self.names.feed_stream()),
                    "messages": { &kind: { "$ref": format!("#/components/messages/{key}") } },
                    "parameters": { &id: { "description": "A UUID in lower case." } },
                }),
            );
            operations.insert(
                format!("send_{key}"),
                json!({
                    "action": "send",
                    "channel": { "$ref": format!("#/channels/{key}") },
                    "summary": of.description,
                    "messages": [{ "$ref": format!("#/channels/{key}/messages/{kind}") }],
                }),
            );
        }
        json!({
            "asyncapi": "3.0.0",
            "id": format!("urn:roster:{service}:feed:v1"),
            "info": {
                "title": format!("{service}: the feed of {}", self.names.plural()),
                "version": "1",
                "description": "Each event once, and in order per aggregate. Within version 1 there come only further event types and further optional members; a reader passes over what it does not know.",
            },
            "defaultContentType": "application/cloudevents+json",
            "channels": channels,
            "operations": operations,
            "components": { "messages": messages },
        })
    }

    /// Every file of the contract: its name, and what it holds.
    ///
    /// # Errors
    /// Only when a value cannot be JSON, which none of these is.
    pub fn files(&self) -> Result<Vec<(String, String)>, serde_json::Error> {
        let text = |value: &Value| Ok(serde_json::to_string_pretty(value)? + "\n");
        let mut files = vec![("feed.json".to_owned(), text(&self.asyncapi())?)];
        for of in &self.types {
            files.push((format!("schemas/{}.json", self.kind(of)), text(&self.schema(of))?));
        }
        Ok(files)
    }
}
