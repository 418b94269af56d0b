//! The contract of the feed as files: a JSON Schema for each event type, and an AsyncAPI 3 document.
//!
//! Both are made from the types that read and write the feed, so they cannot say anything else than what is
//! written. They lie in the repository, and a test compares them with what is made here.

mod service;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub use self::service::{Described, ServiceFeed};
use super::data_schema::{DataSchemas, file_name};
use super::{
    AllEnded, DeletedUserData, EmailChange, EmailVerification, Happened, ProfileChange,
    Registration, RolesChange, SessionData, StatusChange, UserChanged, UserData,
};
use crate::ids::UUID_PATTERN;

const DRAFT_7: &str = "http://json-schema.org/draft-07/schema#";
/// The installation of the examples.
const EXAMPLE_URL: &str = "https://id.example.com";

/// One event type as a document knows it.
struct Type {
    kind: &'static str,
    title: &'static str,
    description: &'static str,
    data: fn() -> Value,
    example: &'static str,
}

macro_rules! types {
    ($($kind:literal $data:ty, $title:literal, $description:literal;)+) => {
        const TYPES: &[Type] = &[$(Type {
            kind: $kind,
            title: $title,
            description: $description,
            data: schema_of::<$data>,
            example: include_str!(concat!("../../golden/feed/", $kind, ".json")),
        }),+];
    };
}

types! {
    "users.v1.registered" UserChanged<Registration>, "User registered",
        "A user came into being: registered, made by an administrator, or imported (then `changed.imported` is there).";
    "users.v1.profile_changed" UserChanged<ProfileChange>, "Profile changed", "Name or free data changed.";
    "users.v1.roles_changed" UserChanged<RolesChange>, "Roles changed", "The roles were replaced.";
    "users.v1.disabled" UserChanged<StatusChange>, "User disabled",
        "The user may no longer log in and has no access. That all sessions ended is told before it.";
    "users.v1.enabled" UserChanged<StatusChange>, "User enabled", "The user may log in again.";
    "users.v1.password_changed" UserData, "Password changed",
        "There is another password. Which one stands nowhere.";
    "users.v1.email_verified" UserChanged<EmailVerification>, "Address verified",
        "The user has shown that the address is theirs.";
    "users.v1.email_changed" UserChanged<EmailChange>, "Address changed",
        "There is another address, shown to be the user's.";
    "users.v1.deleted" DeletedUserData, "User deleted",
        "The user is gone. It is the last event about the user; those before it are erased from the feed, and a subscriber erases what it has of the user.";
    "users.v1.snapshot" UserData, "State of a user",
        "The state of a user for a subscriber that begins with a snapshot. It stands on the stream of snapshots alone.";
    "sessions.v1.started" SessionData, "Session started", "A user logged in.";
    "sessions.v1.ended" SessionData, "Session ended", "A session was ended: by a logout, or from elsewhere.";
    "sessions.v1.theft_detected" SessionData, "Theft detected",
        "A refresh token came back that had been replaced, and the session was ended for it.";
    "sessions.v1.all_ended" AllEnded, "All sessions ended",
        "All sessions of a user were ended at once, or all but one: each whose `epoch` is less than the one given here.";
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
fn entitle(data: &mut Value, title: &str) {
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

/// What a schema is called: the name of its file. It is relative, so that it is the address of the schema wherever it
/// is served, and has no colon, which generators make part of the name of a type.
fn schema_id(kind: &str) -> String {
    format!("{kind}.json")
}

/// The JSON Schema (draft 7) of each event type with its name. They are open: what they do not name may be
/// there.
#[must_use]
pub fn schemas() -> Vec<(&'static str, Value)> {
    TYPES.iter().map(|of| (of.kind, schema(of))).collect()
}

/// The frozen example of each event type.
#[must_use]
pub fn examples() -> Vec<(&'static str, &'static str)> {
    TYPES.iter().map(|of| (of.kind, of.example)).collect()
}

fn schema(of: &Type) -> Value {
    let of_session = of.kind.starts_with("sessions.") && of.kind != "sessions.v1.all_ended";
    let subject = if of_session { "The session's id." } else { "The user's id." };
    let mut schema = envelope(&Enveloped {
        id: schema_id(of.kind),
        kind: of.kind,
        title: of.title,
        description: of.description,
        source: "/roster",
        subject,
        revision: "Goes up with every event of one user (of one session), and may leave numbers out: what has the same or a lower one is known already.",
        position: "Place in the event log in decimal, as commands answer it in `Roster-Position`. Users and sessions are counted apart.",
        data: (of.data)(),
    });
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        properties.insert(
            "dataschema".to_owned(),
            json!({ "type": "string", "format": "uri", "description": "Where the installation that published the event serves the schema of `data`. Events of earlier versions do not have it." }),
        );
    }
    schema
}

/// The JSON Schema (draft 7) of the content of each event type, with the name of its file: what `dataschema` leads to.
#[must_use]
pub fn data_schemas() -> Vec<(String, Value)> {
    let own = |of: &Type| {
        let mut schema = (of.data)();
        entitle(&mut schema, of.title);
        if let Value::Object(members) = &mut schema {
            members.insert("$schema".to_owned(), DRAFT_7.into());
            members.insert("$id".to_owned(), file_name(of.kind).into());
        }
        (file_name(of.kind), schema)
    };
    TYPES.iter().map(own).collect()
}

/// The frozen example of an event type, as an installation of today publishes it.
fn example(of: &Type) -> Value {
    let mut example: Value = serde_json::from_str(of.example).unwrap_or_default();
    if let (Value::Object(members), Some(schemas)) =
        (&mut example, DataSchemas::served_at(EXAMPLE_URL))
    {
        members.insert("dataschema".to_owned(), schemas.uri(of.kind).into());
    }
    example
}

/// An event type with its content.
struct Enveloped<'a> {
    id: String,
    kind: &'a str,
    title: &'a str,
    description: &'a str,
    source: &'a str,
    subject: &'a str,
    revision: &'a str,
    position: &'a str,
    data: Value,
}

fn envelope(of: &Enveloped<'_>) -> Value {
    let mut data = of.data.clone();
    // In place of the names of Rust types, which mean nothing here.
    entitle(&mut data, of.title);
    json!({
        "$schema": DRAFT_7,
        "$id": of.id,
        "title": of.title,
        "description": of.description,
        "type": "object",
        "required": [
            "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "revision",
            "position", "actor", "data"
        ],
        "properties": {
            "specversion": { "const": "1.0", "description": "Version of CloudEvents." },
            "id": { "type": "string", "format": "uuid", "pattern": UUID_PATTERN, "description": "Unique per event." },
            "source": { "type": "string", "format": "uri-reference", "description": format!("Always `{}`.", of.source) },
            "type": { "const": of.kind },
            "subject": { "type": "string", "format": "uuid", "pattern": UUID_PATTERN, "description": of.subject },
            "time": { "type": "string", "format": "date-time", "description": "When it was decided, UTC, in milliseconds." },
            "datacontenttype": { "const": "application/json" },
            "revision": { "type": "integer", "minimum": 1, "description": of.revision },
            "position": { "type": "string", "pattern": "^[0-9]+$", "description": of.position },
            "actor": { "type": "string", "description": "Who caused it: a user's id, `system` or `anonymous`." },
            "commandid": { "type": "string", "format": "uuid", "pattern": UUID_PATTERN, "description": "The same for all events of one command." },
            "correlationid": { "type": "string", "description": "`X-Request-Id` of the request behind it." },
            "causationid": { "type": "string", "description": "The event that it is a reaction to." },
            "traceparent": { "type": "string", "description": "W3C trace context of the request behind it." },
            "data": data,
        },
    })
}

/// The AsyncAPI 3 document. It refers to the schemas beside it.
#[must_use]
pub fn asyncapi() -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    let mut messages = Map::new();
    for of in TYPES {
        let (key, is_snapshot) = (of.kind.replace('.', "_"), of.kind == "users.v1.snapshot");
        messages.insert(
            key.clone(),
            json!({
                "name": of.kind,
                "title": of.title,
                "summary": of.description,
                "contentType": "application/cloudevents+json",
                "payload": {
                    "schemaFormat": "application/schema+json;version=draft-07",
                    "schema": { "$ref": format!("./schemas/{}.json", of.kind) },
                },
                "correlationId": {
                    "description": "The request behind the event.",
                    "location": "$message.payload#/correlationid",
                },
                "examples": [{ "name": "example", "payload": example(of) }],
            }),
        );
        let user = json!({ "description": "The user's id, a UUID in lower case." });
        let mut parameters = json!({ "user_id": user });
        let address = if is_snapshot {
            parameters = json!({
                "subscriber": { "description": "The name of the subscriber it is for." },
                "user_id": user,
            });
            "snapshot.v1.{subscriber}.{user_id}".to_owned()
        } else {
            format!("{}.{{user_id}}", of.kind)
        };
        let (stream, more) = if is_snapshot {
            (super::SNAPSHOTS_STREAM, " A replay puts events of any type on it, as they were told.")
        } else {
            (super::FEED_STREAM, "")
        };
        channels.insert(
            key.clone(),
            json!({
                "address": address,
                "title": of.title,
                "description": format!("Stream `{stream}` of JetStream.{more}"),
                "messages": { of.kind: { "$ref": format!("#/components/messages/{key}") } },
                "parameters": parameters,
            }),
        );
        operations.insert(
            format!("send_{key}"),
            json!({
                "action": "send",
                "channel": { "$ref": format!("#/channels/{key}") },
                "summary": of.description,
                "messages": [{ "$ref": format!("#/channels/{key}/messages/{}", of.kind) }],
            }),
        );
    }
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:roster:feed:v1",
        "info": {
            "title": "Roster: the feed of user events",
            "version": "1",
            "description": "What other services are told: each event once and in order per user, on durable JetStream consumers that the operator makes (`roster subscribers add`). Within version 1 there come only further event types and further optional members; a reader passes over what it does not know. How to subscribe: docs/feed.md.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {
            "nats": {
                "host": "nats.example.com:4222",
                "protocol": "nats",
                "description": "A subscriber connects with its `.creds` file and the inbox prefix `_INBOX_<name>`, and reaches the API of JetStream under the prefix `feed`.",
                "security": [{ "$ref": "#/components/securitySchemes/creds" }],
            },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": messages,
            "securitySchemes": {
                "creds": {
                    "type": "asymmetricEncryption",
                    "description": "A JWT and an Ed25519 key of NATS, in the `.creds` file that `roster subscribers add` writes.",
                },
            },
        },
    })
}

/// Every file of the contract: its name, and what it holds.
///
/// # Errors
/// Only when a value cannot be JSON, which none of these is.
pub fn files() -> Result<Vec<(String, String)>, serde_json::Error> {
    let text = |value: &Value| Ok(serde_json::to_string_pretty(value)? + "\n");
    let mut files = vec![("roster.json".to_owned(), text(&asyncapi())?)];
    for (kind, schema) in schemas() {
        files.push((format!("schemas/{kind}.json"), text(&schema)?));
    }
    for (name, schema) in data_schemas() {
        files.push((format!("schemas/{name}"), text(&schema)?));
    }
    Ok(files)
}

/// Every type has its place in the contract.
const _: () = assert!(TYPES.len() == Happened::KINDS.len(), "an event type is missing here");
