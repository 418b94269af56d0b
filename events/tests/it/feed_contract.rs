//! The contract of the feed: what is written is what the schemas say, and what was published once stays true.

use std::fs;
use std::path::{Path, PathBuf};

use events::DecodeError;
use events::feed::{DataSchemas, FeedEvent, Happened, contract};
use serde_json::{Value, json};

fn crate_path(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every frozen event of the feed as it was first published, and as an installation at `https://id.example.com`
/// publishes it today.
pub fn published() -> Vec<(String, Value)> {
    let first = golden();
    let schemas = DataSchemas::served_at("https://id.example.com").unwrap();
    let mut today = first.clone();
    for (name, event) in &mut today {
        let uri = schemas.uri(kind(event));
        event["dataschema"] = uri.into();
        *name = format!("{name} of today");
    }
    [first, today].concat()
}

/// Every frozen event of the feed, with the name of its file.
pub fn golden() -> Vec<(String, Value)> {
    let mut golden: Vec<_> = fs::read_dir(crate_path("golden/feed"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), json_of(&path)))
        .collect();
    golden.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(golden.len() > Happened::KINDS.len());
    golden
}

fn json_of(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn kind(event: &Value) -> &str {
    event["type"].as_str().unwrap()
}

fn is_valid(schema: &Value, event: &Value, what: &str) {
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    let faults: Vec<_> = validator.iter_errors(event).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{what}: {faults:?}");
}

#[test]
fn every_event_is_a_cloud_event_and_fits_its_schema() {
    // As the CloudEvents project publishes it.
    let cloud_events = json_of(&crate_path("tests/cloudevents.json"));
    let schemas = contract::schemas();
    let mut kinds: Vec<String> = Vec::new();
    for (name, event) in published() {
        is_valid(&cloud_events, &event, &name);
        let schema = schemas.iter().find(|(of, _)| *of == kind(&event)).unwrap();
        is_valid(&schema.1, &event, &name);
        let read = FeedEvent::from_json(event.to_string().as_bytes()).unwrap();
        let written: Value = serde_json::from_slice(&read.to_json().unwrap()).unwrap();
        assert_eq!(written, event, "{name}");
        kinds.push(kind(&event).to_owned());
        // Names of attributes as CloudEvents 1.0 wants them.
        for attribute in event.as_object().unwrap().keys() {
            let fits = attribute.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            assert!(fits && attribute.len() <= 20, "{attribute}");
        }
    }
    for kind in Happened::KINDS {
        assert!(kinds.iter().any(|found| found == kind), "{kind} has no golden file");
    }
}

/// So that a schema that lets everything through is noticed.
#[test]
fn a_schema_refuses_what_is_no_such_event() {
    let (_, schema) = contract::schemas().remove(0);
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let good = json_of(&crate_path("golden/feed/users.v1.registered.json"));
    assert!(validator.is_valid(&good));
    for (pointer, wrong) in [
        ("/type", json!("users.v1.deleted")),
        ("/id", json!("7")),
        ("/revision", json!("1")),
        ("/revision", json!(0)),
        ("/position", json!(1_001)),
        ("/time", json!("yesterday")),
        ("/data", json!({})),
        ("/data/user/status", json!("asleep")),
        ("/data/user/roles", json!("user")),
        ("/data/user/id", json!(null)),
    ] {
        let mut event = good.clone();
        *event.pointer_mut(pointer).unwrap() = wrong;
        assert!(!validator.is_valid(&event), "{pointer}");
    }
}

/// What is published stays: a later schema may allow more members and more types, and nothing else.
#[test]
fn todays_schemas_promise_what_was_released() {
    let schemas = contract::schemas();
    let released = fs::read_dir(crate_path("../asyncapi/released/1")).unwrap();
    let mut count = 0;
    for path in released.map(|entry| entry.unwrap().path()) {
        let before = json_of(&path);
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (_, today) = schemas
            .iter()
            .find(|(kind, _)| *kind == name)
            .unwrap_or_else(|| panic!("{name} is gone"));
        promises(&before, today, &name);
        for (file, event) in published().iter().filter(|(_, event)| kind(event) == name) {
            is_valid(&before, event, file);
        }
        count += 1;
    }
    assert!(count >= 14, "the released schemas are gone");
}

/// Whether everything that a released schema says still holds.
fn promises(before: &Value, today: &Value, at: &str) {
    let (Value::Object(before), Value::Object(today)) = (before, today) else {
        assert_eq!(before, today, "{at} has changed");
        return;
    };
    for (key, before) in before {
        match (key.as_str(), today.get(key)) {
            // `$id` names the document, and says nothing about what is valid.
            ("title" | "description" | "examples" | "$id", _) => {}
            // The name of a type of Rust: what it means is said by `type` and `minimum`, which stay.
            ("format", None) if before == "uint64" => {}
            ("required", Some(today)) => {
                let today = today.as_array().unwrap();
                for member in before.as_array().unwrap() {
                    assert!(today.contains(member), "{at}: {member} may be absent now");
                }
            }
            ("properties", Some(today)) => {
                for (name, before) in before.as_object().unwrap() {
                    let at = format!("{at}.{name}");
                    let today = today.get(name).unwrap_or_else(|| panic!("{at} is gone"));
                    promises(before, today, &at);
                }
            }
            (_, Some(today)) => promises(before, today, &format!("{at}/{key}")),
            (_, None) => panic!("{at}: {key} does not hold any more"),
        }
    }
}

#[test]
fn an_event_leads_to_the_schema_of_its_data() {
    let schemas = contract::data_schemas();
    assert_eq!(schemas.len(), Happened::KINDS.len());
    for (name, event) in published() {
        let Some(uri) = event["dataschema"].as_str() else { continue };
        let file = uri.strip_prefix("https://id.example.com/schemas/").unwrap();
        assert_eq!(file, format!("{}.data.json", kind(&event)));
        let (_, schema) = schemas.iter().find(|(of, _)| of == file).unwrap();
        assert_eq!(schema["$id"], file);
        is_valid(schema, &event["data"], &name);
        assert!(!jsonschema::is_valid(schema, &event), "{file} is not about the whole event");
    }
}

#[test]
fn an_address_that_nobody_can_follow_is_not_published() {
    for public_url in ["", "roster", "id.example.com", "/", "https://", "https:///"] {
        assert!(DataSchemas::served_at(public_url).is_none(), "{public_url}");
    }
    let below = DataSchemas::served_at("https://www.example.com/id/").unwrap();
    let uri = "https://www.example.com/id/schemas/users.v1.deleted.data.json";
    assert_eq!(below.uri("users.v1.deleted"), uri);
}

/// Names that generators make types of: one `User`, and no name out of a colon.
#[test]
fn what_events_share_has_one_name_and_one_schema() {
    fn named(schema: &Value, found: &mut Vec<(String, Value)>) {
        if let Some(title) = schema.get("title").and_then(Value::as_str) {
            found.push((title.to_owned(), schema.clone()));
        }
        let parts = ["properties", "anyOf"].map(|key| schema.get(key));
        for part in parts.into_iter().flatten() {
            part.as_object()
                .into_iter()
                .flat_map(|all| all.values())
                .for_each(|one| named(one, found));
            part.as_array().into_iter().flatten().for_each(|one| named(one, found));
        }
    }
    let mut found = Vec::new();
    for (kind, schema) in contract::schemas() {
        assert_eq!(schema["$id"], format!("{kind}.json"));
        named(&schema["properties"]["data"], &mut found);
    }
    for shared in ["User", "Session"] {
        let mut same = found.iter().filter(|(title, _)| title == shared).map(|(_, schema)| schema);
        let first = same.next().unwrap();
        let mut members = 0;
        for one in same {
            // What is said of it in its place may differ.
            let members_of =
                |schema: &Value| (schema["properties"].clone(), schema["required"].clone());
            assert_eq!(members_of(one), members_of(first), "{shared}");
            members += 1;
        }
        assert!(members > 0, "{shared} is shared");
    }
    for (title, _) in &found {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == ' ' || c == '_';
        assert!(title.chars().all(fits) && !title.ends_with(" user"), "{title}");
    }
}

/// The formats of JSON Schema draft 7 that are used: a strict validator refuses what it does not know.
#[test]
fn every_format_is_one_that_validators_know() {
    fn formats(schema: &Value, found: &mut Vec<String>) {
        if let Some(format) = schema.get("format").and_then(Value::as_str) {
            found.push(format.to_owned());
        }
        schema
            .as_object()
            .into_iter()
            .flat_map(|all| all.values())
            .for_each(|one| formats(one, found));
        schema.as_array().into_iter().flatten().for_each(|one| formats(one, found));
    }
    for (kind, schema) in contract::schemas() {
        let mut found = Vec::new();
        formats(&schema, &mut found);
        for format in found {
            let known = ["uuid", "date-time", "uri", "uri-reference", "ipv4", "ipv6"];
            assert!(known.contains(&&*format), "{kind}: {format}");
        }
        assert!(schema["properties"]["data"]["title"].is_string(), "{kind}");
    }
}

#[test]
fn what_breaks_a_promise_is_noticed() {
    let (_, today) = contract::schemas().remove(0);
    let breaks = |change: fn(&mut Value)| {
        let mut before = today.clone();
        change(&mut before);
        std::panic::catch_unwind(|| promises(&before, &today, "x")).is_err()
    };
    assert!(!breaks(|_| {}));
    assert!(!breaks(|before| before["description"] = json!("in other words")));
    // As if a member that was there had gone, changed its type or become optional.
    assert!(breaks(|before| before["properties"]["gone"] = json!({ "type": "string" })));
    assert!(breaks(|before| before["properties"]["revision"]["type"] = json!("string")));
    assert!(breaks(|before| before["required"] = json!(["specversion", "commandid"])));
    assert!(breaks(|before| before["properties"]["type"]["const"] = json!("users.v1.other")));
}

#[test]
fn a_reader_passes_over_what_it_does_not_know() {
    for (name, mut event) in published() {
        event["later"] = json!("an attribute that came later");
        event["data"]["later"] = json!({ "a": 1 });
        for member in ["user", "session", "sessions", "changed"] {
            if let Some(known) = event["data"].get_mut(member) {
                known["later"] = json!([1, 2]);
            }
        }
        FeedEvent::from_json(event.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    let mut event = json_of(&crate_path("golden/feed/users.v1.disabled.json"));
    event["type"] = json!("users.v1.moved");
    let read = FeedEvent::from_json(event.to_string().as_bytes()).unwrap();
    assert!(matches!(&read.happened, Happened::Other { kind, .. } if kind == "users.v1.moved"));
    assert_eq!((read.nats_subject(), read.happened.user_id()), (None, None));
    assert_eq!(read.aggregate().0, format!("user.{}", event["subject"].as_str().unwrap()));
    assert_eq!(serde_json::from_slice::<Value>(&read.to_json().unwrap()).unwrap(), event);

    let mut event = json_of(&crate_path("golden/feed/sessions.v1.ended.json"));
    event["data"]["session"]["ended"]["reason"] = json!("moonphase");
    FeedEvent::from_json(event.to_string().as_bytes()).unwrap();
}

#[test]
fn what_contradicts_itself_is_refused() {
    let good = json_of(&crate_path("golden/feed/users.v1.registered.json"));
    for (member, wrong) in [
        ("specversion", json!("2.0")),
        ("subject", json!("0190a1b2-c3d4-7000-8000-0000000000ff")),
        ("data", json!([])),
        ("position", json!("much")),
    ] {
        let mut event = good.clone();
        event[member] = wrong;
        let error = FeedEvent::from_json(event.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::Inconsistent(_) | DecodeError::Json(_)), "{member}");
    }
    assert!(FeedEvent::from_json(b"{}").is_err() && FeedEvent::from_json(b"").is_err());
}
