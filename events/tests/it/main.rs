//! Golden events: what is once in a log is read for ever. A golden file is never edited; a new shape
//! gets a new version and a new file.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod client;
mod feed_contract;
mod feed_guide;
mod released_reader;

use std::fs;
use std::path::PathBuf;

use events::{
    Actor, Cause, CommandId, DecodeError, DeletedUser, EVENT_BYTES_MAX, EncodeError, EndReason,
    Envelope, Event, Fact, Metadata, Position, Revision, Session, SessionEvent, SessionFact,
    SessionId, SessionSeed, Snapshot, Timestamp, User, UserFact, UserId, UserState, evolve_session,
};
use proptest::prelude::*;
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(0x0190_a1b2_c3d4_7000_8000_0000_0000_0000 | n)
}

fn at(second: u32) -> Timestamp {
    Timestamp::try_from(format!("2026-01-31T12:00:{second:02}.250Z")).unwrap()
}

fn metadata() -> Metadata {
    serde_json::json!({"team": "blue", "seat": 7}).as_object().unwrap().clone()
}

/// Histories that have every type between them, each event with the state after it.
fn histories() -> Vec<Event> {
    let registered = UserFact::Registered {
        email: "ada@example.org".to_owned(),
        email_verified: false,
        full_name: None,
        roles: vec!["user".to_owned()],
        metadata: Metadata::new(),
        imported: None,
    };
    let later = vec![
        registered,
        UserFact::EmailVerified,
        UserFact::PasswordChanged,
        UserFact::EmailChanged { email: "Countess@example.com".to_owned() },
    ];
    history().into_iter().chain(told(later).into_iter().skip(1)).collect()
}

fn history() -> Vec<Event> {
    told(vec![
        UserFact::Registered {
            email: "Ada@Example.com".to_owned(),
            email_verified: false,
            full_name: Some("Ada Lovelace".to_owned()),
            roles: vec!["user".to_owned()],
            metadata: metadata(),
            imported: None,
        },
        UserFact::ProfileChanged { full_name: Some(None), metadata: None },
        UserFact::RolesChanged { roles: vec!["admin".to_owned(), "user".to_owned()] },
        UserFact::Disabled,
        UserFact::Enabled,
        UserFact::Deleted,
    ])
}

fn told(facts: Vec<UserFact>) -> Vec<Event> {
    let user = UserId::from_uuid(id(1));
    let mut state = UserState::Absent;
    let mut events = Vec::new();
    for (n, fact) in facts.into_iter().enumerate() {
        let n = u32::try_from(n).unwrap();
        state = state.evolve(user, &fact, at(n)).unwrap();
        events.push(Event {
            id: id(100 + u128::from(n)),
            time: at(n),
            actor: if n == 0 { Actor::Anonymous } else { Actor::User(user) },
            command_id: CommandId::from_uuid(id(200 + u128::from(n))),
            correlation_id: (n == 0).then(|| "req-1".to_owned()),
            causation_id: None,
            traceparent: None,
            fact,
            after: state.snapshot().unwrap(),
        });
    }
    events
}

#[test]
fn every_type_is_written_and_read_as_its_golden_file() {
    histories().iter().for_each(|event| is_golden(event, event.fact.wire_type()));
    session_history().iter().for_each(|event| is_golden(event, event.fact.wire_type()));
    is_golden(&imported(), "user.registered.v1.imported");
}

/// A member that came later: the golden file from before has none, and is read as before.
fn imported() -> Event {
    let since = Timestamp::try_from("2019-05-04T03:02:01.000Z".to_owned()).unwrap();
    let registered = UserFact::Registered {
        email: "ada@example.org".to_owned(),
        email_verified: true,
        full_name: None,
        roles: vec!["user".to_owned()],
        metadata: Metadata::new(),
        imported: Some(since),
    };
    told(vec![registered]).remove(0)
}

fn is_golden<F: Fact + PartialEq + std::fmt::Debug>(event: &Envelope<F>, name: &str) {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(format!("{name}.json"));
    let written: serde_json::Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
    if !path.exists() && std::env::var_os("ROSTER_WRITE_GOLDEN").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&written).unwrap() + "\n").unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(written, serde_json::from_slice::<serde_json::Value>(&golden).unwrap());
    assert_eq!(&Envelope::<F>::from_json(&golden).unwrap(), event, "{}", path.display());
    let cause = Cause::of(&golden).unwrap();
    assert_eq!(
        (cause.kind.as_str(), &cause.correlation_id),
        (event.fact.wire_type(), &event.correlation_id)
    );
    assert_eq!(cause.traceparent, event.traceparent);
}

/// A session that was refreshed and ended, and one that was stolen.
fn session_history() -> Vec<SessionEvent> {
    let (user, session) = (UserId::from_uuid(id(1)), SessionId::from_uuid(id(7)));
    let started = SessionFact::Started {
        epoch: Position(3),
        lineage: None,
        seed: SessionSeed::from_bytes([7; 16]),
        expires_at: at(30),
        ends_at: at(59),
        user_agent: Some("curl/8".to_owned()),
        ip: Some("192.0.2.7".to_owned()),
    };
    let refreshed =
        SessionFact::Refreshed { epoch: Position(4), lineage: None, expires_at: at(40) };
    let ended = SessionFact::Ended { reason: EndReason::Logout };
    let mut events = Vec::new();
    for facts in [vec![started, refreshed, ended], vec![SessionFact::TheftDetected]] {
        let mut state = if facts.len() == 1 { Some(started_again(&events)) } else { None };
        for fact in facts {
            let n = u32::try_from(events.len()).unwrap();
            let after = evolve_session(state.take(), user, session, &fact, at(n)).unwrap();
            state = Some(after.clone());
            events.push(SessionEvent {
                id: id(300 + u128::from(n)),
                time: at(n),
                actor: Actor::User(user),
                command_id: CommandId::from_uuid(id(400 + u128::from(n))),
                correlation_id: None,
                causation_id: None,
                traceparent: None,
                fact,
                after,
            });
        }
    }
    events
}

fn started_again(events: &[SessionEvent]) -> Session {
    events.first().unwrap().after.clone()
}

#[test]
fn an_ended_session_stays_ended() {
    let events = session_history();
    let ended = events.iter().find(|event| event.after.ended.is_some()).unwrap();
    let (user, session) = (ended.after.user_id, ended.after.id);
    for event in &events {
        let state = Some(ended.after.clone());
        assert!(evolve_session(state, user, session, &event.fact, at(50)).is_err());
    }
}

#[test]
fn damage_and_the_future_are_refused_not_skipped() {
    let event = history().remove(0);
    let json: serde_json::Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
    let changed = |pointer: &str, value: serde_json::Value| {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        Event::from_json(&serde_json::to_vec(&json).unwrap())
    };
    assert!(matches!(Event::from_json(b"{"), Err(DecodeError::Json(_))));
    assert!(matches!(
        changed("/type", "user.registered.v2".into()),
        Err(DecodeError::UnknownType(_))
    ));
    assert!(matches!(changed("/revision", 2.into()), Err(DecodeError::Inconsistent(_))));
    assert!(matches!(changed("/specversion", "0.3".into()), Err(DecodeError::Inconsistent(_))));
    assert!(matches!(
        changed("/subject", id(9).to_string().into()),
        Err(DecodeError::Inconsistent(_))
    ));
    let long = "x".repeat(EVENT_BYTES_MAX);
    assert!(matches!(changed("/data/user/full_name", long.into()), Err(DecodeError::TooLarge(_))));
}

#[test]
fn a_state_that_does_not_show_what_changed_is_refused() {
    for event in history() {
        assert!(event.fact.explains(&event.after, event.time), "{event:?}");
        let later = Timestamp::from_unix_seconds(4_000_000_000).unwrap();
        assert!(!event.fact.explains(&event.after, later), "{event:?}");
        let forged = match event.after.clone() {
            Snapshot::Deleted(user) => {
                Snapshot::Deleted(DeletedUser { revision: Revision(1), ..user })
            }
            Snapshot::Present(user) => Snapshot::Present(User { revision: Revision(0), ..user }),
        };
        assert!(!event.fact.explains(&forged, event.time), "{event:?}");
    }
    let events = history();
    let disabled = events.iter().find(|event| event.fact == UserFact::Disabled).unwrap();
    let enabled = events.iter().find(|event| event.fact == UserFact::Enabled).unwrap();
    let lie = Event { after: enabled.after.clone(), time: enabled.time, ..disabled.clone() };
    let written = lie.to_json();
    assert!(
        matches!(written, Err(EncodeError::Unreadable(DecodeError::Inconsistent(_)))),
        "{written:?}"
    );
    for event in session_history() {
        assert!(event.fact.explains(&event.after, event.time), "{event:?}");
        let forged = Session { revision: Revision(0), ..event.after.clone() };
        assert!(!event.fact.explains(&forged, event.time), "{event:?}");
    }
}

#[test]
fn what_is_wrong_with_an_event_is_said_without_its_values() {
    let event = history().remove(0);
    let json: serde_json::Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
    for (pointer, value) in [
        ("/revision", "ada@example.com \" secret"),
        ("/data/user/status", "ada@example.com"),
        ("/data/user/roles", "ada@example.com"),
        ("/actor", "ada@example.com"),
        ("/id", "ada@example.com"),
        ("/time", "ada@example.com"),
    ] {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = value.into();
        let text = serde_json::to_vec(&json).unwrap();
        let error = Event::from_json(&text).unwrap_err().to_string();
        assert!(error.len() > 20 && !error.contains("ada"), "{pointer}: {error}");
    }
    let mut json = json;
    json.as_object_mut().unwrap().remove("revision").unwrap();
    let error = Event::from_json(&serde_json::to_vec(&json).unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("not an event: missing field `revision`"), "{error}");
}

#[test]
fn nothing_personal_is_left_by_a_deletion() {
    let events = history();
    let deleted = String::from_utf8(events.last().unwrap().to_json().unwrap()).unwrap();
    for word in ["Ada", "Example", "Lovelace", "blue"] {
        assert!(!deleted.contains(word), "{word} in {deleted}");
    }
    assert!(matches!(events.last().unwrap().after, Snapshot::Deleted(_)));
}

/// Free data of every kind that is accepted.
fn any_metadata() -> impl Strategy<Value = Metadata> {
    use serde_json::Value;

    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-9e18..9e18_f64).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 16, 4, |inner| {
        let members = proptest::collection::btree_map(".{0,4}", inner.clone(), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    (".{0,4}", value).prop_map(|(name, value)| Metadata::from_iter([(name, value)]))
}

/// Every time that is accepted.
fn any_time() -> impl Strategy<Value = Timestamp> {
    (-62_135_596_800_i64..=253_402_300_799)
        .prop_map(|seconds| Timestamp::from_unix_seconds(seconds).unwrap())
}

fn any_fact() -> impl Strategy<Value = UserFact> {
    let name = proptest::option::of("\\PC{1,12}");
    let imported = proptest::option::of(any_time());
    let data = any_metadata();
    prop_oneof![
        (name.clone(), any::<bool>(), imported, data).prop_map(
            |(full_name, email_verified, imported, metadata)| UserFact::Registered {
                email: "a@example.com".to_owned(),
                email_verified,
                full_name,
                roles: vec!["user".to_owned()],
                metadata,
                imported,
            }
        ),
        (proptest::option::of(name), any_metadata()).prop_map(|(full_name, metadata)| {
            UserFact::ProfileChanged { full_name, metadata: Some(metadata) }
        }),
        proptest::collection::vec("[a-z]{2,6}", 0..3)
            .prop_map(|roles| UserFact::RolesChanged { roles }),
        Just(UserFact::Disabled),
        Just(UserFact::Enabled),
        Just(UserFact::PasswordChanged),
        Just(UserFact::EmailVerified),
        "[a-z]{1,8}@example.com".prop_map(|email| UserFact::EmailChanged { email }),
        Just(UserFact::Deleted),
    ]
}

proptest! {
    /// Any history folds to the state its last event carries, and survives the wire on the way.
    #[test]
    fn folding_the_changes_equals_the_carried_state(facts in proptest::collection::vec(any_fact(), 0..12)) {
        let user = UserId::from_uuid(id(1));
        let mut state = UserState::Absent;
        let mut carried = UserState::Absent;
        for (n, fact) in facts.into_iter().enumerate() {
            let time = at(u32::try_from(n).unwrap());
            let Ok(next) = state.clone().evolve(user, &fact, time) else { continue };
            let event = Event {
                id: id(2), time, actor: Actor::System, command_id: CommandId::from_uuid(id(3)),
                correlation_id: None, causation_id: None, traceparent: None,
                fact, after: next.snapshot().unwrap(),
            };
            let read = Event::from_json(&event.to_json().unwrap()).unwrap();
            prop_assert_eq!(&read, &event);
            state = state.evolve(user, &read.fact, read.time).unwrap();
            carried = read.after.into();
            prop_assert_eq!(&state, &carried);
        }
        prop_assert_eq!(state, carried);
    }
}
