//! What is published of each event of the log. A golden file is never edited: what was once published is read for
//! ever.

use std::fs;
use std::path::PathBuf;

use events::feed::{FeedEvent, Happened, UserData};
use events::{
    Actor, CommandId, Cutoff, Event, Position, RevocationCause, RevocationReason, SessionEvent,
    SessionId, Snapshot, StoredRevocation, Timestamp, UserId,
};
use projector::feed::project;
use serde_json::Value;
use uuid::Uuid;

const POSITION: Position = Position(1_001);

fn events_crate(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../events").join(path)
}

fn user_event(kind: &str) -> Event {
    Event::from_json(&fs::read(events_crate(&format!("golden/{kind}.json"))).unwrap()).unwrap()
}

fn session_event(kind: &str) -> SessionEvent {
    let bytes = fs::read(events_crate(&format!("golden/{kind}.json"))).unwrap();
    SessionEvent::from_json(&bytes).unwrap()
}

fn is_golden(name: &str, event: &FeedEvent) {
    let path = events_crate(&format!("golden/feed/{name}.json"));
    let written: Value = serde_json::from_slice(&event.to_json().unwrap()).unwrap();
    if !path.exists() && std::env::var_os("ROSTER_WRITE_GOLDEN").is_some() {
        fs::write(&path, serde_json::to_string_pretty(&written).unwrap() + "\n").unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(written, serde_json::from_slice::<Value>(&golden).unwrap(), "{name}");
    assert_eq!(&FeedEvent::from_json(&golden).unwrap(), event, "{name}");
}

#[test]
fn every_user_event_is_published_as_its_golden_file() {
    for kind in [
        "registered",
        "profile_changed",
        "roles_changed",
        "disabled",
        "enabled",
        "password_changed",
        "email_verified",
        "email_changed",
        "deleted",
    ] {
        let event = user_event(&format!("user.{kind}.v1"));
        let published = project::of_user(&event, POSITION).unwrap();
        assert_eq!(
            published.nats_subject().unwrap(),
            format!("users.v1.{kind}.{}", event.user_id())
        );
        is_golden(&format!("users.v1.{kind}"), &published);
    }
    let imported = project::of_user(&user_event("user.registered.v1.imported"), POSITION).unwrap();
    is_golden("users.v1.registered.imported", &imported);

    let registered = user_event("user.registered.v1");
    let published = project::of_user(&registered, POSITION).unwrap();
    let Snapshot::Present(user) = &registered.after else { panic!("a user who is there") };
    let happened = Happened::Snapshot(UserData { user: project::public(user) });
    let snapshot =
        FeedEvent { causation_id: Some(published.id.to_string()), happened, ..published };
    assert_eq!(snapshot.nats_subject(), None, "its subject contains its subscriber");
    is_golden("users.v1.snapshot", &snapshot);
}

#[test]
fn every_session_event_except_a_refresh_is_published_without_its_secret() {
    for kind in ["started", "ended", "theft_detected"] {
        let event = session_event(&format!("session.{kind}.v1"));
        let published = project::of_session(&event, POSITION).unwrap();
        let user = event.after.user_id;
        assert_eq!(published.nats_subject().unwrap(), format!("sessions.v1.{kind}.{user}"));
        let wire = String::from_utf8(published.to_json().unwrap()).unwrap();
        let seed = serde_json::to_value(event.after.seed).unwrap();
        assert!(!wire.contains(seed.as_str().unwrap()) && !wire.contains("seed"), "{wire}");
        is_golden(&format!("sessions.v1.{kind}"), &published);
    }
    assert_eq!(project::of_session(&session_event("session.refreshed.v1"), POSITION), None);
}

#[test]
fn the_end_of_all_sessions_is_published_with_its_reason() {
    let user = UserId::from_uuid(Uuid::from_u128(0x0190_a1b2_c3d4_7000_8000_0000_0000_0001));
    let session = SessionId::from_uuid(Uuid::from_u128(0x0190_a1b2_c3d4_7000_8000_0000_0000_0007));
    let at = Timestamp::try_from("2026-01-31T12:00:05.250Z".to_owned()).unwrap();
    let cause = RevocationCause {
        id: Uuid::from_u128(0x0190_a1b2_c3d4_7000_8000_0000_0000_0190),
        time: at,
        reason: RevocationReason::PasswordChanged,
        actor: Actor::User(user),
        command_id: CommandId::from_uuid(Uuid::from_u128(
            0x0190_a1b2_c3d4_7000_8000_0000_0000_0191,
        )),
        correlation_id: Some("req-2".to_owned()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
    };
    let cutoff = Cutoff::default();
    let stored = |revocation, cause| StoredRevocation { revocation, cause };
    let published = |stored: &StoredRevocation| project::of_revocation(user, stored, POSITION, at);

    let all_but = published(&stored(cutoff.all_but(session), Some(cause.clone()))).unwrap();
    assert_eq!(all_but.nats_subject().unwrap(), format!("sessions.v1.all_ended.{user}"));
    is_golden("sessions.v1.all_ended", &all_but);
    assert_eq!(published(&stored(cutoff.tokens(), Some(cause))), None, "no session ended");

    // Written before there was a feed: published all the same, with a stable id.
    let old = published(&stored(cutoff.all(), None)).unwrap();
    assert_eq!(old, published(&stored(cutoff.all(), None)).unwrap());
    assert_eq!((old.time, old.actor, old.command_id), (at, Actor::System, None));
    let next = Position(POSITION.0 + 1);
    let other = project::of_revocation(user, &stored(cutoff.all(), None), next, at).unwrap();
    assert_ne!(old.id, other.id);
    assert_eq!(FeedEvent::from_json(&old.to_json().unwrap()).unwrap(), old);
}
