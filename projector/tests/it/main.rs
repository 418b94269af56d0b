//! The writes of the projector on a real mongod: guarded, idempotent, and never going back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed expectation fails the test")]

mod feed_project;

use std::sync::atomic::{AtomicU32, Ordering};

use events::{
    Actor, CommandId, Cutoff, DeletedUser, Event, Metadata, Position, Revision, Session,
    SessionFact, SessionId, SessionSeed, Snapshot, Status, Timestamp, User, UserFact, UserId,
    evolve_session,
};
use futures::TryStreamExt;
use mongodb::bson::doc;
use projector::fold::{IntoView, Logins, Sessions, Users};
use projector::residue;
use projector::store::{prepare, write};
use uuid::Uuid;
use view_kit::Fold;
use view_kit::store::checkpoint;
use views::{
    Generations, HistoryDocument, SessionDocument, UserDocument, UserView, ViewSet, Views,
    user_key, users_checkpoint, users_collection,
};

/// The generation of a new database.
const GENERATION: u32 = 1;

async fn views() -> Views {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("projector_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let views = Views::open(&local_stack::testing::mongod().url(), &name).await.unwrap();
    for set in ViewSet::ALL {
        prepare(&views, set, GENERATION).await.unwrap();
    }
    views
}

fn id(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

fn time() -> Timestamp {
    Timestamp::try_from("2026-01-31T12:00:00.000Z".to_owned()).unwrap()
}

fn living(n: u128, revision: u64, name: &str) -> Snapshot {
    Snapshot::Present(User {
        id: id(n),
        email: format!("user{n}@example.com"),
        email_verified: false,
        full_name: Some(name.to_owned()),
        roles: vec!["user".to_owned()],
        status: Status::Active,
        metadata: Metadata::new(),
        revision: Revision(revision),
        created_at: time(),
        updated_at: time(),
    })
}

fn deleted(n: u128, revision: u64) -> Snapshot {
    Snapshot::Deleted(DeletedUser { id: id(n), revision: Revision(revision), deleted_at: time() })
}

/// An event that leads to a state.
fn event(after: Snapshot) -> Event {
    let fact = match &after {
        Snapshot::Deleted(_) => UserFact::Deleted,
        Snapshot::Present(user) => {
            UserFact::ProfileChanged { full_name: Some(user.full_name.clone()), metadata: None }
        }
    };
    Event {
        id: Uuid::from_u128(1),
        time: time(),
        actor: Actor::System,
        command_id: CommandId::from_uuid(Uuid::from_u128(2)),
        correlation_id: None,
        causation_id: None,
        traceparent: None,
        fact,
        after,
    }
}

fn batch(events: &[(u64, Snapshot)]) -> Users {
    let mut batch = Users::default();
    for (position, after) in events {
        batch.event(Position(*position), event(after.clone())).unwrap();
    }
    batch
}

async fn documents(views: &Views) -> Vec<UserDocument> {
    views
        .users(GENERATION)
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap()
}

async fn entries(views: &Views) -> Vec<HistoryDocument> {
    views
        .history(GENERATION)
        .find(doc! {})
        .sort(doc! {"_id": 1})
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap()
}

fn projected(events: &[(u64, Snapshot)]) -> Vec<UserDocument> {
    events
        .iter()
        .map(|(position, after)| UserDocument::project(after, Position(*position)))
        .collect()
}

/// A history with a name that looks like an operator, an overwritten user and a deleted one.
fn history() -> Vec<(u64, Snapshot)> {
    vec![
        (3, living(1, 1, "$set")),
        (6, living(2, 1, "Grace")),
        (7, living(1, 2, "$$ROOT")),
        (9, living(3, 1, "Edsger")),
        (12, deleted(2, 2)),
    ]
}

#[tokio::test]
async fn a_batch_writes_the_last_state_of_each_user() {
    let views = views().await;
    write(&views, GENERATION, &batch(&history())).await.unwrap();
    let expected = [(7, living(1, 2, "$$ROOT")), (12, deleted(2, 2)), (9, living(3, 1, "Edsger"))];
    assert_eq!(documents(&views).await, projected(&expected));
}

/// The events of user 2 before its deletion are not among them.
fn history_entries() -> Vec<HistoryDocument> {
    history()
        .into_iter()
        .filter(|(position, _)| *position != 6)
        .map(|(position, after)| {
            HistoryDocument::project(&event(after), Position(position)).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn the_history_has_every_event_once_and_only_the_deletion_of_deleted_users() {
    for size in 1..=history().len() {
        let views = views().await;
        for _ in 0..2 {
            for part in history().chunks(size) {
                write(&views, GENERATION, &batch(part)).await.unwrap();
            }
            assert_eq!(entries(&views).await, history_entries(), "in batches of {size}");
        }
        // Nothing of it comes back when an older part is read again.
        write(&views, GENERATION, &batch(&history()[..2])).await.unwrap();
        assert_eq!(entries(&views).await, history_entries());
    }
}

/// One projector deletes users while another one, far behind, writes their earlier events.
#[tokio::test]
async fn a_replay_concurrent_with_a_deletion_leaves_nothing() {
    let views = views().await;
    let before: Vec<(u64, Snapshot)> = (1..=60).map(|n| (n, living(n.into(), 1, "Ada"))).collect();
    let deletions: Vec<(u64, Snapshot)> =
        (1..=60).map(|n| (60 + n, deleted(n.into(), 2))).collect();
    write(&views, GENERATION, &batch(&before)).await.unwrap();
    let run = |events: Vec<(u64, Snapshot)>| {
        let views = views.clone();
        async move {
            for part in events.chunks(3) {
                write(&views, GENERATION, &batch(part)).await.unwrap();
            }
        }
    };
    tokio::join!(run(before), run(deletions));
    let left: Vec<i64> = entries(&views).await.iter().map(|entry| entry.position).collect();
    assert_eq!(left, (61..=120).collect::<Vec<i64>>());
}

#[tokio::test]
async fn the_checkpoint_never_goes_back() {
    const NAME: &str = "some_1";
    let views = views().await;
    assert_eq!(views.position(NAME).await.unwrap(), Position(0), "no checkpoint yet");
    for (moved, expected) in [(12, 12), (7, 12), (13, 13)] {
        checkpoint(&views, NAME, Position(moved), None).await.unwrap();
        assert_eq!(views.position(NAME).await.unwrap(), Position(expected));
    }
}

#[tokio::test]
async fn reapplying_any_prefix_changes_nothing() {
    let whole = views().await;
    write(&whole, GENERATION, &batch(&history())).await.unwrap();
    let expected = documents(&whole).await;
    for cut in 0..=history().len() {
        let views = views().await;
        for (position, after) in &history()[..cut] {
            write(&views, GENERATION, &batch(&[(*position, after.clone())])).await.unwrap();
        }
        write(&views, GENERATION, &batch(&history())).await.unwrap();
        // A late, older projector: it has no effect, least of all on the tombstone.
        if cut > 0 {
            write(&views, GENERATION, &batch(&history()[..cut])).await.unwrap();
        }
        assert_eq!(documents(&views).await, expected, "prefix of {cut}");
    }
}

/// A session of user `n`, started at that second.
fn session(n: u128, began: i64) -> Session {
    let seed = SessionSeed::from_bytes([1; 16]);
    let began = Timestamp::from_unix_seconds(began).unwrap();
    let ends_at = began.plus_seconds(100);
    let (user_agent, ip) = (Some("curl".to_owned()), None);
    let started = SessionFact::Started {
        epoch: Position(0),
        lineage: None,
        seed,
        expires_at: ends_at,
        ends_at,
        user_agent,
        ip,
    };
    let id = SessionId::from_uuid(Uuid::from_u128(
        (n << 64) | u128::from(began.as_datetime().timestamp().unsigned_abs()),
    ));
    evolve_session(None, self::id(n), id, &started, began).unwrap()
}

/// Logins and revocations are other messages than the user's events, and may arrive before or after them.
#[tokio::test]
async fn logins_and_revocations_may_arrive_in_any_order() {
    let cutoff = |position| Cutoff { position: Position(position), ..Cutoff::default() };
    let users = |states: &[(u64, Snapshot)], cutoffs: &[u64]| {
        let mut users = batch(states);
        for position in cutoffs {
            users.cutoff(id(1), cutoff(*position));
        }
        users
    };
    let logins = |seconds: &[i64]| {
        let mut logins = Logins::default();
        for second in seconds {
            logins.state(&session(1, *second));
        }
        logins
    };
    let expected = |document: UserDocument| {
        let UserView::Living(view) = document.view().unwrap() else { panic!("a living user") };
        (view.user.full_name, view.last_login_at, view.cutoff.position)
    };
    let wanted =
        (Some("Ada L.".to_owned()), Timestamp::from_unix_seconds(1_900_000_005), Position(8));
    for order in 0..6 {
        let views = views().await;
        let mut steps: Vec<u8> = vec![0, 1, 2];
        steps.rotate_left(order % 3);
        if order >= 3 {
            steps.swap(0, 1);
        }
        for step in steps {
            match step {
                0 => {
                    let states = [(3, living(1, 1, "Ada")), (9, living(1, 2, "Ada L."))];
                    write(&views, GENERATION, &users(&states, &[])).await.unwrap();
                }
                1 => {
                    write(&views, GENERATION, &users(&[], &[8, 5])).await.unwrap();
                }
                _ => {
                    write(&views, GENERATION, &logins(&[1_900_000_005])).await.unwrap();
                    write(&views, GENERATION, &logins(&[1_900_000_000])).await.unwrap();
                }
            }
        }
        let found = documents(&views).await.remove(0);
        assert_eq!(expected(found), wanted, "order {order}");

        // A deletion removes all of it, and no late message restores it.
        write(&views, GENERATION, &batch(&[(12, deleted(1, 3))])).await.unwrap();
        write(&views, GENERATION, &logins(&[1_900_000_009])).await.unwrap();
        write(&views, GENERATION, &users(&[], &[13])).await.unwrap();
        assert_eq!(documents(&views).await, projected(&[(12, deleted(1, 3))]));
    }
}

fn sessions_of(users: &[u128]) -> Sessions {
    let mut sessions = Sessions::default();
    for (position, user) in (1..).zip(users) {
        sessions.state(Position(position), session(*user, 1_900_000_000));
    }
    sessions
}

/// The users with sessions in the views.
async fn logged_in(views: &Views) -> Vec<mongodb::bson::Uuid> {
    let found = views.sessions(GENERATION).find(doc! {}).sort(doc! {"user_id": 1}).await.unwrap();
    let found: Vec<SessionDocument> = found.try_collect().await.unwrap();
    found.into_iter().map(|session| session.user_id).collect()
}

#[tokio::test]
async fn a_deletion_removes_the_sessions_and_none_is_restored() {
    let views = views().await;
    write(&views, GENERATION, &batch(&[(3, living(1, 1, "Ada")), (4, living(2, 1, "Grace"))]))
        .await
        .unwrap();
    write(&views, GENERATION, &sessions_of(&[1, 2, 1])).await.unwrap();
    write(&views, GENERATION, &batch(&[(5, deleted(1, 2))])).await.unwrap();
    assert_eq!(logged_in(&views).await, [user_key(id(2))]);
    // Events that arrive after the deletion: from a projector that is behind, or of a login that raced it.
    write(&views, GENERATION, &sessions_of(&[1, 2])).await.unwrap();
    assert_eq!(logged_in(&views).await, [user_key(id(2))]);
    assert_eq!(documents(&views).await.remove(0), projected(&[(5, deleted(1, 2))]).remove(0));
}

#[tokio::test]
async fn residue_of_a_deleted_user_is_found_in_every_generation() {
    let views = views().await;
    write(&views, GENERATION, &batch(&[(3, living(1, 1, "Ada")), (4, living(2, 1, "Grace"))]))
        .await
        .unwrap();
    write(&views, GENERATION, &sessions_of(&[1, 2])).await.unwrap();
    // Generations from before a rebuild are kept for a while.
    let older = views.database().collection::<mongodb::bson::Document>("sessions_0");
    older.insert_one(doc! {"_id": 7_i64, "user_id": user_key(id(1))}).await.unwrap();
    let found = async |n| {
        let left = residue(&views, id(n), Position(5)).await.unwrap();
        let mut places: Vec<_> = left.documents.into_iter().map(|d| (d.collection, d.id)).collect();
        places.sort();
        (left.is_known, places)
    };
    let key = user_key(id(1)).to_string();
    let place = |collection: &str, id: &str| (collection.to_owned(), id.to_owned());
    let session =
        views.sessions(GENERATION).find_one(doc! {"user_id": user_key(id(1))}).await.unwrap();
    let session = session.unwrap().id.to_string();
    let before = vec![
        place("sessions_0", "7"),
        place("sessions_1", &session),
        place("user_history_1", "3"),
        place("users_1", &key),
    ];
    assert_eq!(found(1).await, (false, before));
    write(&views, GENERATION, &batch(&[(5, deleted(1, 2))])).await.unwrap();
    assert_eq!(found(1).await, (true, vec![place("sessions_0", "7")]));
    older.drop().await.unwrap();
    assert_eq!(found(1).await, (true, vec![]));
    assert_eq!(found(3).await, (false, vec![]), "an unknown user has not even a tombstone");
}

#[tokio::test]
async fn logins_concurrent_with_a_deletion_leave_no_session() {
    let views = views().await;
    let users: Vec<u128> = (1..=60).collect();
    let deletions = async {
        for n in 1..=60 {
            while write(&views, GENERATION, &batch(&[(n, deleted(n.into(), 2))])).await.is_err() {}
        }
    };
    let sessions = async {
        for part in users.chunks(3) {
            // Both insert the same user at once: one gets an error and retries.
            while write(&views, GENERATION, &sessions_of(part)).await.is_err() {}
        }
    };
    tokio::join!(deletions, sessions);
    assert_eq!(logged_in(&views).await, []);
}

#[tokio::test]
async fn two_concurrent_projectors_write_the_same() {
    let views = views().await;
    let events: Vec<(u64, Snapshot)> =
        (1..=200).map(|n| (n, living(u128::from(n % 20), n, &n.to_string()))).collect();
    let run = |size: usize| {
        let (views, events) = (views.clone(), events.clone());
        async move {
            for chunk in events.chunks(size) {
                // Both insert the same new user at once: one gets an error and retries.
                while write(&views, GENERATION, &batch(chunk)).await.is_err() {}
            }
        }
    };
    tokio::join!(run(7), run(11), run(1));
    let found = documents(&views).await;
    assert_eq!(found.len(), 20);
    for document in found {
        let position = document.position();
        assert!(position > Position(180), "the last event of its user, not {position}");
    }
}

/// A database of an earlier version: its documents lack members, and its checkpoint is at the end.
#[tokio::test]
async fn rewrites_documents_of_an_older_layout() {
    let views = views().await;
    let cutoff = Cutoff { position: Position(8), ..Cutoff::default() };
    let mut users = batch(&history());
    users.cutoff(id(1), cutoff);
    let mut logins = Logins::default();
    logins.state(&session(1, 1_900_000_000));
    write(&views, GENERATION, &users).await.unwrap();
    write(&views, GENERATION, &logins).await.unwrap();
    let of_today = documents(&views).await;
    let added = doc! {"name_key": "", "search": ""};
    let removed =
        views.users(GENERATION).update_many(doc! {}, doc! {"$unset": added}).await.unwrap();
    assert_eq!(removed.modified_count, 2, "the living");
    assert_ne!(documents(&views).await, of_today);
    checkpoint(&views, &users_collection(GENERATION), Position(12), None).await.unwrap();

    // There is no checkpoint for the current layout, so the projector starts with the first event.
    assert_eq!(views.position(&users_checkpoint(GENERATION)).await.unwrap(), Position(0));
    for (position, after) in history() {
        write(&views, GENERATION, &batch(&[(position, after)])).await.unwrap();
        let found = documents(&views).await;
        let positions = |documents: &[UserDocument]| -> Vec<Position> {
            documents.iter().map(UserDocument::position).collect()
        };
        assert_eq!(positions(&found), positions(&of_today), "no document goes back");
    }
    assert_eq!(documents(&views).await, of_today, "logins and cutoffs are kept");
}

/// The batch with the deletion reaches one generation while the other view set has two.
#[tokio::test]
async fn a_deletion_reaches_every_generation_of_both_view_sets() {
    let views = views().await;
    let from = views.generations().await.unwrap();
    let mut to = from.clone();
    for set in ViewSet::ALL {
        assert_eq!(to.begin(set), 2);
    }
    assert!(views.change_generations(&from, to.clone()).await.unwrap());
    assert!(!views.change_generations(&from, to).await.unwrap(), "somebody was faster");
    let sessions_in = async |generation| {
        views.sessions(generation).count_documents(doc! {"user_id": user_key(id(1))}).await.unwrap()
    };
    for generation in [1, 2] {
        write(&views, generation, &batch(&[(3, living(1, 1, "Ada"))])).await.unwrap();
        write(&views, generation, &sessions_of(&[1])).await.unwrap();
        assert_eq!(sessions_in(generation).await, 1);
    }
    // Only the first generation contains the deletion.
    write(&views, 1, &batch(&[(5, deleted(1, 2))])).await.unwrap();
    for generation in [1, 2] {
        assert_eq!(sessions_in(generation).await, 0, "generation {generation}");
        write(&views, generation, &sessions_of(&[1])).await.unwrap();
        assert_eq!(sessions_in(generation).await, 0, "generation {generation}, late");
    }
    let found = residue(&views, id(1), Position(5)).await.unwrap();
    assert!(!found.is_known, "the second may still get more");
    assert_eq!(found.documents.len(), 2, "document and history in the second: {found:?}");
    write(&views, 2, &batch(&[(5, deleted(1, 2))])).await.unwrap();
    let found = residue(&views, id(1), Position(5)).await.unwrap();
    assert_eq!((found.is_known, found.documents), (true, vec![]));
}

/// A projector with a stale list of generations writes into a deleted one.
#[tokio::test]
async fn sweeps_only_deleted_generations() {
    let views = views().await;
    let change = async |change: fn(&mut Generations)| {
        let from = views.generations().await.unwrap();
        let mut to = from.clone();
        change(&mut to);
        assert!(views.change_generations(&from, to).await.unwrap());
    };
    change(|generations| assert_eq!(generations.begin(ViewSet::Users), 2)).await;
    write(&views, 2, &batch(&history())).await.unwrap();
    checkpoint(&views, &users_checkpoint(2), Position(12), None).await.unwrap();
    assert_eq!(views.sweep().await.unwrap(), Vec::<String>::new(), "it is there");
    change(|generations| generations.remove(ViewSet::Users, 2).unwrap()).await;
    for _ in 0..2 {
        let mut swept = views.sweep().await.unwrap();
        swept.sort();
        assert_eq!(swept, ["user_history_2", "users_2"]);
        assert_eq!(views.position(&users_checkpoint(2)).await.unwrap(), Position(0));
        write(&views, 2, &batch(&history())).await.unwrap();
    }
    // A generation that a newer version created is kept.
    write(&views, 3, &batch(&history())).await.unwrap();
    let swept = views.sweep().await.unwrap();
    assert!(!swept.iter().any(|name| name.ends_with("_3")), "{swept:?}");
    assert_eq!(views.sweep().await.unwrap(), Vec::<String>::new());
}

/// The states come first, from the last events only; then the events one by one.
#[tokio::test]
async fn writing_the_states_first_leads_to_the_same_views() {
    let whole = views().await;
    write(&whole, GENERATION, &batch(&history())).await.unwrap();
    for size in 1..=history().len() {
        let views = views().await;
        let mut states = batch(&history()[2..]);
        states.keep_states();
        write(&views, GENERATION, &states).await.unwrap();
        for part in history().chunks(size) {
            let mut events = batch(part);
            events.drop_states(Position(12));
            write(&views, GENERATION, &events).await.unwrap();
        }
        assert_eq!(documents(&views).await, documents(&whole).await, "in batches of {size}");
        assert_eq!(entries(&views).await, entries(&whole).await, "in batches of {size}");
    }
}
