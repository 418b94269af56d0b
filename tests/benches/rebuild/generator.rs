//! Fills the log: a life of five events for each user, and a session for every tenth.

use std::collections::VecDeque;

use async_nats::{Client, HeaderMap, Request};
use e2e::System;
use events::{
    Actor, CommandId, Envelope, Event, Fact, Metadata, Position, Session, SessionFact, SessionId,
    SessionSeed, Snapshot, Timestamp, UserFact, UserId, UserState, evolve_session, subjects,
};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Events of each user.
pub const EVENTS_PER_USER: u64 = 5;
/// Messages in one batch: the server takes 1,000.
const BATCH: usize = 999;
/// Batches at once.
const AT_ONCE: usize = 4;
/// One session for so many users.
const USERS_PER_SESSION: u64 = 10;

/// Numbers without a pattern, the same each time (splitmix64).
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn id(of: u64, n: u64) -> Uuid {
    let random = Random::new(n).next();
    uuid::Builder::from_unix_timestamp_millis(
        1_700_000_000_000 + n,
        &[
            of.to_be_bytes()[7],
            0,
            random.to_be_bytes()[0],
            random.to_be_bytes()[1],
            random.to_be_bytes()[2],
            random.to_be_bytes()[3],
            random.to_be_bytes()[4],
            random.to_be_bytes()[5],
            random.to_be_bytes()[6],
            random.to_be_bytes()[7],
        ],
    )
    .into_uuid()
}

/// The id of the n-th user.
pub fn user_id(n: u64) -> UserId {
    UserId::from_uuid(id(1, n))
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_unix_seconds(1_700_000_000).unwrap().plus_seconds(second)
}

/// What happens to the n-th user, one after the other.
fn fact(n: u64, revision: u64) -> UserFact {
    match revision {
        1 => {
            let mut metadata = Metadata::new();
            let plan = ["free", "team", "enterprise"][(n % 3) as usize];
            metadata.insert("plan".to_owned(), json!(plan));
            UserFact::Registered {
                email: format!("user{n}@bench.example"),
                email_verified: false,
                full_name: Some(format!("Given{} Family{}", n % 977, n % 1_009)),
                roles: vec!["user".to_owned()],
                metadata,
                imported: None,
            }
        }
        2 => UserFact::EmailVerified,
        3 => UserFact::ProfileChanged {
            full_name: Some(Some(format!("Given{} Other{}", n % 977, n % 499))),
            metadata: None,
        },
        4 => UserFact::RolesChanged { roles: vec!["clerk".to_owned(), "user".to_owned()] },
        _ => UserFact::PasswordChanged,
    }
}

/// The state of the n-th user after so many events, when it came about, and the last of them.
fn life(n: u64, revision: u64) -> (UserFact, Timestamp, Snapshot) {
    let time = |revision| at(n + revision);
    let evolve = |state: UserState, revision| {
        state.evolve(user_id(n), &fact(n, revision), time(revision)).unwrap()
    };
    let state = (1..=revision).fold(UserState::Absent, evolve);
    (fact(n, revision), time(revision), state.snapshot().unwrap())
}

fn envelope<F: Fact>(number: u64, time: Timestamp, fact: F, after: F::After) -> Envelope<F> {
    Envelope {
        id: id(2, number),
        time,
        actor: Actor::System,
        command_id: CommandId::from_uuid(id(3, number)),
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        fact,
        after,
    }
}

fn user_event(n: u64, revision: u64) -> (String, &'static str, Vec<u8>) {
    let (fact, time, after) = life(n, revision);
    let (subject, kind) = (subjects::user_events(user_id(n)), fact.wire_type());
    let number = n * EVENTS_PER_USER + revision;
    let event: Event = envelope(number, time, fact, after);
    let payload = event.to_json().unwrap();
    // What cannot be read would be parked, and everything behind it would wait.
    assert_eq!(Event::from_json(&payload).unwrap(), event);
    (subject, kind, payload)
}

/// Sessions end late enough that no document of theirs goes meanwhile.
fn session_event(n: u64, now: Timestamp) -> (String, &'static str, Vec<u8>) {
    let (user, session) = (user_id(n), SessionId::from_uuid(id(4, n)));
    let ends_at = now.plus_seconds(1_000_000);
    let fact = SessionFact::Started {
        epoch: Position(0),
        lineage: None,
        seed: SessionSeed::from_bytes([7; 16]),
        expires_at: ends_at,
        ends_at,
        user_agent: Some("Mozilla/5.0 (bench)".to_owned()),
        ip: Some("192.0.2.7".to_owned()),
    };
    let after: Session = evolve_session(None, user, session, &fact, now).unwrap();
    let kind = fact.wire_type();
    let event = envelope(n, now, fact, after);
    (subjects::session_events(user, session), kind, event.to_json().unwrap())
}

/// Writes all of it. The events of one user are as far from each other as there are users.
pub async fn fill(system: &System, users: u64) {
    let client = system.operator().await;
    let now = mongodb::bson::DateTime::now().timestamp_millis() / 1_000;
    let now = Timestamp::from_unix_seconds(now).unwrap();
    // One after the other: batches that are under way at once may overtake each other.
    for revision in 1..=EVENTS_PER_USER {
        write(&client, (0..users).map(|n| user_event(n, revision))).await;
    }
    let sessions =
        (0..users / USERS_PER_SESSION).map(|n| session_event(n * USERS_PER_SESSION, now));
    write(&client, sessions).await;
}

async fn write(client: &Client, messages: impl Iterator<Item = (String, &'static str, Vec<u8>)>) {
    let mut messages = messages.peekable();
    let mut under_way = JoinSet::new();
    let mut number = 0_u64;
    while messages.peek().is_some() {
        let batch: VecDeque<_> = messages.by_ref().take(BATCH).collect();
        if under_way.len() >= AT_ONCE {
            under_way.join_next().await.unwrap().unwrap();
        }
        number += 1;
        under_way.spawn(commit(
            client.clone(),
            format!("{}-{number}", Uuid::now_v7().simple()),
            batch,
        ));
    }
    under_way.join_all().await;
}

async fn commit(client: Client, id: String, mut batch: VecDeque<(String, &'static str, Vec<u8>)>) {
    let mut sequence = 0;
    while let Some((subject, kind, payload)) = batch.pop_front() {
        sequence += 1;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", id.as_str());
        headers.insert("Nats-Batch-Sequence", sequence.to_string().as_str());
        headers.insert("Roster-Event-Type", kind);
        if !batch.is_empty() {
            client.publish_with_headers(subject, headers, payload.into()).await.unwrap();
            continue;
        }
        headers.insert("Nats-Batch-Commit", "1");
        let request = Request::new().headers(headers).payload(payload.into());
        let answer = client.send_request(subject, request).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer["error"].is_null(), "{answer}");
    }
}
