//! The contract of the feed as files: a JSON Schema for each event type, and an AsyncAPI 3 document.
//!
//! Both are made from the types that read and write the feed, so they cannot say anything else than what is
//! written. They lie in the repository, and a test compares them with what is made here.

mod document;
mod service;

use serde_json::{Value, json};

pub use self::document::schema_of;
use self::document::{DRAFT_7, EventType, FeedDescription, entitle, text};
pub use self::service::{Described, ServiceFeed};
use super::data_schema::{DataSchemas, file_name};
use super::{
    AllEnded, DeletedUserData, EmailChange, EmailVerification, Happened, ProfileChange,
    Registration, RolesChange, SessionData, StatusChange, UserChanged, UserData,
};

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

/// The JSON Schema (draft 7) of each event type with its name. They are open: members that they do not name are valid.
#[must_use]
pub fn schemas() -> Vec<(String, Value)> {
    let feed = description();
    feed.types.iter().map(|of| (of.kind.clone(), feed.schema(of))).collect()
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

fn description() -> FeedDescription {
    FeedDescription {
        file: "roster.json",
        id: "urn:roster:feed:v1".to_owned(),
        info: json!({
            "title": "Roster: the feed of user events",
            "version": "1",
            "description": "What is published to other services: each event once and in order per user, on durable JetStream consumers that the operator makes (`roster subscribers add`). Within version 1 there come only further event types and further optional members; a reader passes over what it does not know. How to subscribe: docs/feed.md.",
            "license": { "name": "MIT OR Apache-2.0" },
        }),
        servers: json!({
            "nats": {
                "host": "nats.example.com:4222",
                "protocol": "nats",
                "description": "A subscriber connects with its `.creds` file and the inbox prefix `_INBOX_<name>`, and reaches the API of JetStream under the prefix `feed`.",
                "security": [{ "$ref": "#/components/securitySchemes/creds" }],
            },
        }),
        security_schemes: json!({
            "creds": {
                "type": "asymmetricEncryption",
                "description": "A JWT and an Ed25519 key of NATS, in the `.creds` file that `roster subscribers add` writes.",
            },
        }),
        source: "/roster".to_owned(),
        aggregate: "user (of one session)".to_owned(),
        position_note: " Users and sessions are counted apart.",
        data_schema: json!({ "type": "string", "format": "uri", "description": "Where the installation that published the event serves the schema of `data`. Events of earlier versions do not have it." }),
        types: TYPES.iter().map(event_type).collect(),
    }
}

fn event_type(of: &Type) -> EventType {
    let of_session = of.kind.starts_with("sessions.") && of.kind != "sessions.v1.all_ended";
    let user = json!({ "description": "The user's id, a UUID in lower case." });
    let (address, parameters, stream, note) = if of.kind == super::SNAPSHOT {
        let subscriber = json!({ "description": "The name of the subscriber it is for." });
        let parameters = json!({ "subscriber": subscriber, "user_id": user });
        let note = " A replay puts events of any type on it, as they were published.";
        ("snapshot.v1.{subscriber}.{user_id}".to_owned(), parameters, super::SNAPSHOTS_STREAM, note)
    } else {
        (format!("{}.{{user_id}}", of.kind), json!({ "user_id": user }), super::FEED_STREAM, "")
    };
    EventType {
        kind: of.kind.to_owned(),
        title: of.title,
        description: of.description,
        subject: if of_session { "The session's id." } else { "The user's id." }.to_owned(),
        data: (of.data)(),
        address,
        parameters,
        stream: stream.to_owned(),
        stream_note: note,
        examples: json!([{ "name": "example", "payload": example(of) }]),
    }
}

/// Every file of the contract: its name and content.
///
/// # Errors
/// Only when a value cannot be JSON, which none of these is.
pub fn files() -> Result<Vec<(String, String)>, serde_json::Error> {
    let mut files = description().files()?;
    for (name, schema) in data_schemas() {
        files.push((format!("schemas/{name}"), text(&schema)?));
    }
    Ok(files)
}

/// Every type has its place in the contract.
const _: () = assert!(TYPES.len() == Happened::KINDS.len(), "an event type is missing here");
