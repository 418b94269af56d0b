//! The event log as an operator reads it, and its fold: what the views must equal.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::jetstream;
use events::{Event, Position, UserFact, UserId, UserState};
use serde_json::{Value, json};

use crate::{Client, System, read_stream, wait_for};

/// An event with its place.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its place.
    pub position: Position,
    /// The event.
    pub event: Event,
}

/// All users, folded from the changes alone.
#[derive(Debug, Default)]
pub struct Fold {
    /// State of each user.
    pub users: BTreeMap<UserId, UserState>,
    /// Position of the last event.
    pub end: Position,
}

impl System {
    /// Every event of every user, in order.
    pub async fn events(&self) -> Vec<Logged> {
        let context = jetstream::new(self.operator().await);
        let messages = read_stream(&context, "USERS", "ev.user.*").await;
        let read = messages.into_iter().map(|message| Logged {
            position: Position(message.sequence),
            event: Event::from_json(&message.payload).unwrap(),
        });
        read.collect()
    }

    /// Folds the log, and checks on the way that the changes lead to the states the events carry.
    pub async fn fold(&self) -> Fold {
        let mut fold = Fold::default();
        let events = self.events().await;
        let is_deletion = |logged: &&Logged| logged.event.fact == UserFact::Deleted;
        let deleted: BTreeSet<UserId> =
            events.iter().filter(is_deletion).map(|logged| logged.event.user_id()).collect();
        for Logged { position, event } in events {
            let user = event.user_id();
            let after: UserState = event.after.clone().into();
            // Of the deleted, what is before the deletion is being erased: some of it may be missing.
            if !deleted.contains(&user) {
                let state = fold.users.remove(&user).unwrap_or_default();
                let state = state.evolve(user, &event.fact, event.time).unwrap();
                assert_eq!(state, after, "carried state at {position}");
            }
            fold.users.insert(user, after);
            fold.end = position;
        }
        fold
    }

    /// Waits until the views have reached the end of the log, then compares every user. `queries` is an
    /// administrator's client.
    pub async fn views_equal_the_log(&self, queries: &Client) {
        let fold = self.fold().await;
        wait_for("the views to reach the end of the log", || async {
            let path = format!("/api/v1/auth/me?min_position={}", fold.end);
            queries.try_send("GET", &path, None).await.is_some_and(|answer| answer.status == 200)
        })
        .await;
        let living: BTreeMap<String, Value> = fold
            .users
            .values()
            .filter_map(|state| match state {
                UserState::Present(user) => {
                    Some((user.id.to_string(), serde_json::to_value(user).unwrap()))
                }
                UserState::Absent | UserState::Deleted(_) => None,
            })
            .collect();
        let listed = list_all(queries, "page_size=200").await;
        assert_eq!(listed.len(), living.len(), "users listed and users in the log");
        for read in listed {
            // Comes from the sessions, and not from this log.
            let read = without_login(read);
            let id = read["id"].as_str().unwrap();
            assert_eq!(Some(&read), living.get(id), "{id}");
        }
        for (id, state) in &fold.users {
            if matches!(state, UserState::Deleted(_)) {
                queries.get(&format!("/api/v1/users/{id}")).await.expect(404);
            }
        }
    }
}

/// Walks a list to its end, page by page.
pub async fn list_all(queries: &Client, parameters: &str) -> Vec<Value> {
    let mut users = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = queries.get(&format!("/api/v1/users?{parameters}{cursor}")).await.expect(200);
        users.extend(page.body["items"].as_array().unwrap().iter().cloned());
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return users,
        }
    }
}

impl Fold {
    /// How often an address was registered, whatever became of its users.
    pub fn registrations(events: &[Logged], canonical: &str) -> usize {
        events
            .iter()
            .filter(|logged| match &logged.event.fact {
                UserFact::Registered { email, .. } => {
                    events::EmailAddress::parse(email).is_ok_and(|e| e.canonical() == canonical)
                }
                UserFact::ProfileChanged { .. }
                | UserFact::RolesChanged { .. }
                | UserFact::Disabled
                | UserFact::Enabled
                | UserFact::PasswordChanged
                | UserFact::EmailVerified
                | UserFact::EmailChanged { .. }
                | UserFact::Deleted => false,
            })
            .count()
    }
}

/// A user as the command side answers it: without the last login.
#[must_use]
pub fn without_login(mut user: Value) -> Value {
    let login = user.as_object_mut().unwrap().remove("last_login_at");
    assert!(login.is_some(), "queries answer it: {user}");
    user
}

/// A merge patch that changes the name.
#[must_use]
pub fn rename(name: &str) -> Value {
    json!({ "full_name": name })
}
