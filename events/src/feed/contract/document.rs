//! The contract of a feed as files, generated from its description.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::ids::UUID_PATTERN;

pub(super) const DRAFT_7: &str = "http://json-schema.org/draft-07/schema#";

/// The description of a feed.
pub(super) struct FeedDescription {
    /// The file name of the AsyncAPI document.
    pub(super) file: &'static str,
    /// The id of the AsyncAPI document.
    pub(super) id: String,
    pub(super) info: Value,
    /// `null` if the document names none.
    pub(super) servers: Value,
    /// `null` if the document names none.
    pub(super) security_schemes: Value,
    /// CloudEvents `source`.
    pub(super) source: String,
    /// The aggregates of which each has its own `revision`.
    pub(super) aggregate: String,
    /// What is special to `position`.
    pub(super) position_note: &'static str,
    /// Schema of the attribute `dataschema`; `null` if the events do not have it.
    pub(super) data_schema: Value,
    pub(super) types: Vec<EventType>,
}

/// An event type and its channel.
pub(super) struct EventType {
    pub(super) kind: String,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    /// Description of the attribute `subject`.
    pub(super) subject: String,
    /// Schema of `data`.
    pub(super) data: Value,
    /// The NATS subject, with parameters.
    pub(super) address: String,
    /// Descriptions of the parameters.
    pub(super) parameters: Value,
    /// The stream of JetStream.
    pub(super) stream: String,
    /// What is special to the stream.
    pub(super) stream_note: &'static str,
    /// Examples of the message; `null` if there are none.
    pub(super) examples: Value,
}

impl FeedDescription {
    /// Every file of the contract: its name and content.
    pub(super) fn files(&self) -> Result<Vec<(String, String)>, serde_json::Error> {
        let mut files = vec![(self.file.to_owned(), text(&self.asyncapi())?)];
        for of in &self.types {
            files.push((format!("schemas/{}", schema_id(&of.kind)), text(&self.schema(of))?));
        }
        Ok(files)
    }

    /// The AsyncAPI 3 document. It refers to the schemas in the same folder.
    fn asyncapi(&self) -> Value {
        let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
        for of in &self.types {
            let (kind, key) = (&of.kind, of.kind.replace('.', "_"));
            let message = json!({
                "name": kind,
                "title": of.title,
                "summary": of.description,
                "contentType": "application/cloudevents+json",
                "payload": {
                    "schemaFormat": "application/schema+json;version=draft-07",
                    "schema": { "$ref": format!("./schemas/{}", schema_id(kind)) },
                },
                "correlationId": {
                    "description": "The request behind the event.",
                    "location": "$message.payload#/correlationid",
                },
                "examples": of.examples,
            });
            messages.insert(key.clone(), without_nulls(message));
            channels.insert(
                key.clone(),
                json!({
                    "address": of.address,
                    "title": of.title,
                    "description": format!("Stream `{}` of JetStream.{}", of.stream, of.stream_note),
                    "messages": { kind: { "$ref": format!("#/components/messages/{key}") } },
                    "parameters": of.parameters,
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
        let components = json!({ "messages": messages, "securitySchemes": self.security_schemes });
        without_nulls(json!({
            "asyncapi": "3.0.0",
            "id": self.id,
            "info": self.info,
            "defaultContentType": "application/cloudevents+json",
            "servers": self.servers,
            "channels": channels,
            "operations": operations,
            "components": without_nulls(components),
        }))
    }

    /// The JSON Schema (draft 7) of an event type with its content. It is open: members that it does not name are
    /// valid.
    pub(super) fn schema(&self, of: &EventType) -> Value {
        let mut data = of.data.clone();
        // In place of the names of Rust types, which mean nothing here.
        entitle(&mut data, of.title);
        let revision = format!(
            "Goes up with every event of one {}, and may leave numbers out: what has the same or a lower one is known already.",
            self.aggregate
        );
        let position =
            "Place in the event log in decimal, as commands answer it in `Roster-Position`.";
        let properties = json!({
            "specversion": { "const": "1.0", "description": "Version of CloudEvents." },
            "id": { "type": "string", "format": "uuid", "pattern": UUID_PATTERN, "description": "Unique per event." },
            "source": { "type": "string", "format": "uri-reference", "description": format!("Always `{}`.", self.source) },
            "type": { "const": of.kind },
            "subject": { "type": "string", "format": "uuid", "pattern": UUID_PATTERN, "description": of.subject },
            "time": { "type": "string", "format": "date-time", "description": "When it was decided, UTC, in milliseconds." },
            "datacontenttype": { "const": "application/json" },
            "revision": { "type": "integer", "minimum": 1, "description": revision },
            "position": { "type": "string", "pattern": "^[0-9]+$", "description": format!("{position}{}", self.position_note) },
            "actor": { "type": "string", "description": "Who caused it: a user's id, `system` or `anonymous`." },
            "commandid": { "type": "string", "format": "uuid", "pattern": UUID_PATTERN, "description": "The same for all events of one command." },
            "correlationid": { "type": "string", "description": "`X-Request-Id` of the request behind it." },
            "causationid": { "type": "string", "description": "The event that it is a reaction to." },
            "traceparent": { "type": "string", "description": "W3C trace context of the request behind it." },
            "data": data,
            "dataschema": self.data_schema,
        });
        json!({
            "$schema": DRAFT_7,
            "$id": schema_id(&of.kind),
            "title": of.title,
            "description": of.description,
            "type": "object",
            "required": [
                "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "revision",
                "position", "actor", "data"
            ],
            "properties": without_nulls(properties),
        })
    }
}

/// A file of the contract.
pub(super) fn text(value: &Value) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(members) = &mut value {
        members.retain(|_, member| !member.is_null());
    }
    value
}

/// What a schema is called: the name of its file. It is relative, so that it is the address of the schema wherever it
/// is served, and has no colon, which generators make part of the name of a type.
fn schema_id(kind: &str) -> String {
    format!("{kind}.json")
}

/// The JSON Schema (draft 7) of a type.
#[must_use]
pub fn schema_of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    strip_rust_formats(&mut schema);
    schema
}

/// Takes out the formats that name a type of Rust: a validator need not know them, and may refuse what it does not know.
fn strip_rust_formats(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            let is_of_rust = |format: &Value| {
                format.as_str().is_some_and(|format| {
                    format.starts_with("uint") || matches!(format, "int8" | "int16")
                })
            };
            if members.get("format").is_some_and(is_of_rust) {
                members.remove("format");
            }
            members.values_mut().for_each(strip_rust_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_rust_formats),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Names the content, and those of its parts whose type has no name of its own, for generators that make a type of
/// each. What several events share (`User`, `Session`) has one name in all of them, so that one type is made of it.
pub(super) fn entitle(data: &mut Value, title: &str) {
    let Value::Object(members) = data else { return };
    members.insert("title".to_owned(), format!("{title} data").into());
    let Some(Value::Object(parts)) = members.get_mut("properties") else { return };
    for (name, part) in parts {
        if let Value::Object(part) = part
            && part.get("type").is_some_and(|kind| kind == "object")
        {
            part.entry("title").or_insert_with(|| format!("{title} {name}").into());
        }
    }
}
