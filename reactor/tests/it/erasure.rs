//! From a deletion to a tombstone, in every stream.

use events::{Actor, Position, SessionErasure, SessionId, UserFact, UserId, feed, subjects};
use reactor::Standing;
use service_kit::ambient;
use service_kit::event_log::EventLog;
use service_kit::mail_jobs::Mail;

use crate::support::{ADA, System, new_user, order, put, registered, wait_for};

/// The subjects of the remaining messages that match a filter, in order.
async fn remaining(log: &EventLog, filter: &str) -> Vec<String> {
    let (mut subjects, mut behind) = (Vec::new(), Position::default());
    while let Some(next) = log.next(filter, behind).await.unwrap() {
        behind = next.position;
        subjects.push(next.subject);
    }
    subjects
}

/// A user with everything that a user can leave behind: events, credentials, sessions, published events, and the
/// state in a subscriber's snapshot.
async fn user(system: &System) -> UserId {
    let user = new_user();
    for _ in 0..2 {
        system.put(subjects::user_credential(user), b"sealed".to_vec()).await;
    }
    system.happens(user, Actor::Anonymous, registered(ADA, true)).await;
    for name in ["Ada", "Ada L."] {
        let fact =
            UserFact::ProfileChanged { full_name: Some(Some(name.to_owned())), metadata: None };
        system.happens(user, Actor::User(user), fact).await;
    }
    for _ in 0..2 {
        log_in(system, user).await;
    }
    for subject in ["users.v1.registered", "users.v1.profile_changed", "sessions.v1.started"] {
        put(&system.feed, format!("{subject}.{user}"), b"{}".to_vec(), None).await;
    }
    put(&system.snapshots, feed::snapshot("billing", user), b"{}".to_vec(), None).await;
    user
}

async fn log_in(system: &System, user: UserId) -> Position {
    let session = SessionId::from_uuid(ambient::new_uuid());
    let subject = subjects::session_events(user, session);
    put(&system.sessions, subject, b"{}".to_vec(), None).await
}

/// Publishes the user's events like the projector.
async fn publish(system: &System, user: UserId) {
    put(&system.feed, feed::deletion_of(user), b"{}".to_vec(), None).await;
}

/// Everything that remains of a user, stream by stream.
async fn all_remaining(system: &System, user: UserId) -> Vec<String> {
    let mut all = remaining(&system.users, &subjects::user_events(user)).await;
    all.extend(remaining(&system.users, &subjects::user_credential(user)).await);
    all.extend(remaining(&system.sessions, &subjects::session_events_of(user)).await);
    for filter in feed::of_user(user) {
        all.extend(remaining(&system.feed, &filter).await);
    }
    all.extend(remaining(&system.snapshots, &feed::snapshots_of(user)).await);
    all
}

/// What may remain of a deleted user.
fn tombstone(user: UserId) -> Vec<String> {
    vec![subjects::user_events(user), subjects::user_credential(user), feed::deletion_of(user)]
}

#[tokio::test]
async fn a_deleted_user_is_erased_down_to_the_tombstone() {
    let system = System::start().await;
    let (gone, stays) = (user(&system).await, user(&system).await);
    let reactor = system.reactor().await;
    wait_for("the credentials that were replaced", || async { system.erased().await }).await;
    let untouched = all_remaining(&system, stays).await;
    assert_eq!(untouched.len(), 10, "all but the first credential: {untouched:?}");

    system.delete(gone).await;
    let (events, sessions) = (subjects::user_events(gone), subjects::session_events_of(gone));
    let first = async || {
        remaining(&system.users, &events).await.len() == 1
            && remaining(&system.sessions, &sessions).await.is_empty()
    };
    wait_for("the log to be erased", first).await;
    let published = remaining(&system.feed, &feed::of_user(gone)[0]).await;
    assert_eq!(published.len(), 2, "the feed's publisher may be behind: {published:?}");
    assert!(!system.erased().await);

    publish(&system, gone).await;
    wait_for("everything to be erased", || async { system.erased().await }).await;
    reactor.readiness.check().await.unwrap();
    reactor.end().await;
    assert_eq!(all_remaining(&system, gone).await, tombstone(gone));
    assert_eq!(all_remaining(&system, stays).await, untouched);
}

#[tokio::test]
async fn the_second_look_erases_a_login_that_raced_the_deletion() {
    let system = System::start().await;
    let gone = user(&system).await;
    system.delete(gone).await;
    let reactor = system.reactor().await;
    let filter = subjects::session_events_of(gone);
    wait_for("the first look", || async { remaining(&system.sessions, &filter).await.is_empty() })
        .await;
    let last = log_in(&system, gone).await;
    publish(&system, gone).await;
    wait_for("the second look", || async { system.erased().await }).await;
    reactor.end().await;
    assert_eq!(all_remaining(&system, gone).await, tombstone(gone));
    // The session's message was the last of the stream, so there is another one after it now.
    let record = system.sessions.last(&subjects::session_erasure(gone)).await.unwrap().unwrap();
    assert!(record.position > last);
    assert_eq!(system.sessions.end().await.unwrap(), record.position);
    serde_json::from_slice::<SessionErasure>(&record.payload).unwrap();
}

/// The search for residue finds everything before the erasure, and afterwards what the eraser does not reach.
#[tokio::test]
async fn residue_is_found_in_every_stream() {
    let system = System::start().await;
    let (gone, streams) = (user(&system).await, system.streams());
    assert_eq!(streams.standing(new_user()).await.unwrap(), Standing::Unknown);
    assert_eq!(streams.standing(gone).await.unwrap(), Standing::Present);
    system.delete(gone).await;
    let Standing::Deleted(deletion) = streams.standing(gone).await.unwrap() else {
        panic!("deleted")
    };
    let new_email = "new@example.com".to_owned();
    let change = order(Mail::EmailChange { user: gone, new_email, epoch: None, session: None });
    system.place(&change).await;
    system.place(&order(Mail::PasswordChanged { user: gone })).await;
    let sealed = system.mails.last(&subjects::mail_order(change.id)).await.unwrap().unwrap();
    let parked = subjects::parked_mail(change.id);
    put(&system.feed, "users.v1.registered.somebody".to_owned(), b"{}".to_vec(), None).await;
    let found = async || {
        let left = streams.left(gone, deletion).await.unwrap();
        left.into_iter().map(|left| left.stream).collect::<Vec<_>>()
    };
    let mut all = vec!["USERS"; 5];
    all.extend(["SESSIONS"; 2]);
    all.extend(["USER_EVENTS"; 3]);
    all.extend(["USER_SNAPSHOTS", "MAILS"]);
    assert_eq!(found().await, all);
    assert!(!streams.is_told(gone).await.unwrap());

    publish(&system, gone).await;
    let reactor = system.reactor().await;
    wait_for("everything to be erased", || async { system.erased().await }).await;
    system.settled().await;
    reactor.end().await;
    assert!(streams.is_told(gone).await.unwrap());
    assert_eq!(streams.left(gone, deletion).await.unwrap(), []);
    // A parked mail waits for the operator.
    system.park(parked, sealed.payload.to_vec()).await;
    assert_eq!(found().await, ["MAILS"]);
    // A password that is stored later is not the empty one of the deletion.
    system.put(subjects::user_credential(gone), b"sealed".to_vec()).await;
    assert_eq!(found().await, ["USERS", "USERS", "MAILS"]);
}

/// A subscriber with a replay must receive the deletion, and nothing from before it.
#[tokio::test]
async fn a_replay_keeps_only_the_deletion() {
    let system = System::start().await;
    let gone = user(&system).await;
    system.delete(gone).await;
    publish(&system, gone).await;
    let waits = feed::snapshot("billing", gone);
    for kind in ["users.v1.registered", feed::DELETED] {
        let mark = Some((ambient::new_uuid(), kind));
        put(&system.snapshots, waits.clone(), b"{}".to_vec(), mark).await;
    }
    let reactor = system.reactor().await;
    wait_for("everything to be erased", || async { system.erased().await }).await;
    reactor.end().await;
    assert_eq!(remaining(&system.snapshots, &feed::snapshots_of(gone)).await, [waits]);
    let streams = system.streams();
    let Standing::Deleted(deletion) = streams.standing(gone).await.unwrap() else {
        panic!("deleted")
    };
    assert_eq!(streams.left(gone, deletion).await.unwrap(), []);
}

#[tokio::test]
async fn keeps_only_the_last_credential() {
    let system = System::start().await;
    let user = new_user();
    let subject = subjects::user_credential(user);
    let reactor = system.reactor().await;
    let mut last = Position::default();
    for _ in 0..5 {
        last = system.put(subject.clone(), b"sealed".to_vec()).await;
    }
    wait_for("the erasures", || async { system.erased().await }).await;
    reactor.end().await;
    let next = system.users.next(&subject, Position::default()).await.unwrap().unwrap();
    assert_eq!(next.position, last);
}

/// Two erasers at once, each killed in the middle: their redelivered work is continued.
#[tokio::test]
async fn finishes_erasures_that_others_began() {
    let system = System::start().await;
    let mut users = Vec::new();
    for _ in 0..8 {
        let user = user(&system).await;
        system.delete(user).await;
        publish(&system, user).await;
        users.push(user);
    }
    let begun = async || {
        let all = remaining(&system.sessions, subjects::SESSION_EVENTS_FILTER).await.len();
        all < 2 * users.len()
    };
    let (one, other) = (system.reactor().await, system.reactor().await);
    wait_for("something to be erased", begun).await;
    one.kill().await;
    other.kill().await;
    let (one, other) = (system.reactor().await, system.reactor().await);
    wait_for("everything to be erased", || async { system.erased().await }).await;
    one.end().await;
    other.end().await;
    for user in users {
        assert_eq!(all_remaining(&system, user).await, tombstone(user));
    }
}

#[tokio::test]
async fn a_foreign_message_is_ignored_and_delays_nobody() {
    let system = System::start().await;
    system.put(subjects::user_events(new_user()), b"{}".to_vec()).await;
    let gone = user(&system).await;
    system.delete(gone).await;
    publish(&system, gone).await;
    let reactor = system.reactor().await;
    wait_for("the other one", || async { all_remaining(&system, gone).await == tombstone(gone) })
        .await;
    wait_for("the message to be passed over", || system.erased()).await;
    reactor.end().await;
}
