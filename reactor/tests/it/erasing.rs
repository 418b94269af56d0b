//! From a deletion to a tombstone, in every stream.

use events::{Actor, Position, SessionErasure, SessionId, UserFact, UserId, feed, subjects};
use reactor::Standing;
use service_kit::ambient;
use service_kit::event_log::EventLog;
use service_kit::mail_jobs::Mail;

use crate::support::{ADA, System, new_user, order, put, registered, wait_for};

/// Subjects of what is left that fits a filter, in order.
async fn left(log: &EventLog, filter: &str) -> Vec<String> {
    let (mut subjects, mut behind) = (Vec::new(), Position::default());
    while let Some(next) = log.next(filter, behind).await.unwrap() {
        behind = next.position;
        subjects.push(next.subject);
    }
    subjects
}

/// A user with everything that can be left of one: events, credentials, sessions, what the feed told, and the
/// state that waits for a subscriber.
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

/// What the writer of the feed tells of it.
async fn tell(system: &System, user: UserId) {
    put(&system.feed, feed::deletion_of(user), b"{}".to_vec(), None).await;
}

/// Everything that is left of a user, stream by stream.
async fn all_left(system: &System, user: UserId) -> Vec<String> {
    let mut all = left(&system.users, &subjects::user_events(user)).await;
    all.extend(left(&system.users, &subjects::user_credential(user)).await);
    all.extend(left(&system.sessions, &subjects::session_events_of(user)).await);
    for filter in feed::of_user(user) {
        all.extend(left(&system.feed, &filter).await);
    }
    all.extend(left(&system.snapshots, &feed::snapshots_of(user)).await);
    all
}

/// What may be left of a user who is deleted.
fn tombstone(user: UserId) -> Vec<String> {
    vec![subjects::user_events(user), subjects::user_credential(user), feed::deletion_of(user)]
}

#[tokio::test]
async fn a_deleted_user_is_erased_down_to_the_tombstone() {
    let system = System::start().await;
    let (gone, stays) = (user(&system).await, user(&system).await);
    let reactor = system.reactor().await;
    wait_for("the credentials that were replaced", || async { system.erased().await }).await;
    let untouched = all_left(&system, stays).await;
    assert_eq!(untouched.len(), 10, "all but the first credential: {untouched:?}");

    system.delete(gone).await;
    let (events, sessions) = (subjects::user_events(gone), subjects::session_events_of(gone));
    let first = async || {
        left(&system.users, &events).await.len() == 1
            && left(&system.sessions, &sessions).await.is_empty()
    };
    wait_for("the log to be erased", first).await;
    let told = left(&system.feed, &feed::of_user(gone)[0]).await;
    assert_eq!(told.len(), 2, "the feed's writer may not be so far: {told:?}");
    assert!(!system.erased().await);

    tell(&system, gone).await;
    wait_for("everything to be erased", || async { system.erased().await }).await;
    reactor.readiness.check().await.unwrap();
    reactor.end().await;
    assert_eq!(all_left(&system, gone).await, tombstone(gone));
    assert_eq!(all_left(&system, stays).await, untouched);
}

#[tokio::test]
async fn a_login_that_raced_the_deletion_is_erased_at_the_second_look() {
    let system = System::start().await;
    let gone = user(&system).await;
    system.delete(gone).await;
    let reactor = system.reactor().await;
    let filter = subjects::session_events_of(gone);
    wait_for("the first look", || async { left(&system.sessions, &filter).await.is_empty() }).await;
    let last = log_in(&system, gone).await;
    tell(&system, gone).await;
    wait_for("the second look", || async { system.erased().await }).await;
    reactor.end().await;
    assert_eq!(all_left(&system, gone).await, tombstone(gone));
    // It was the last message of the stream, so there is another one behind it now.
    let record = system.sessions.last(&subjects::session_erasure(gone)).await.unwrap().unwrap();
    assert!(record.position > last);
    assert_eq!(system.sessions.end().await.unwrap(), record.position);
    serde_json::from_slice::<SessionErasure>(&record.payload).unwrap();
}

/// What looks for the deleted finds everything that there is, and after the erasure what it cannot reach.
#[tokio::test]
async fn what_is_left_is_found_wherever_it_is() {
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

    tell(&system, gone).await;
    let reactor = system.reactor().await;
    wait_for("everything to be erased", || async { system.erased().await }).await;
    system.settled().await;
    reactor.end().await;
    assert!(streams.is_told(gone).await.unwrap());
    assert_eq!(streams.left(gone, deletion).await.unwrap(), []);
    // What the mailer puts aside waits for somebody.
    system.park(parked, sealed.payload.to_vec()).await;
    assert_eq!(found().await, ["MAILS"]);
    // A password that somebody stores later is not the empty one of the deletion.
    system.put(subjects::user_credential(gone), b"sealed".to_vec()).await;
    assert_eq!(found().await, ["USERS", "USERS", "MAILS"]);
}

/// A subscriber that is replayed to must be told of the deletion, and of nothing before it.
#[tokio::test]
async fn of_what_is_replayed_the_deletion_stays() {
    let system = System::start().await;
    let gone = user(&system).await;
    system.delete(gone).await;
    tell(&system, gone).await;
    let waits = feed::snapshot("billing", gone);
    for kind in ["users.v1.registered", feed::DELETED] {
        let mark = Some((ambient::new_uuid(), kind));
        put(&system.snapshots, waits.clone(), b"{}".to_vec(), mark).await;
    }
    let reactor = system.reactor().await;
    wait_for("everything to be erased", || async { system.erased().await }).await;
    reactor.end().await;
    assert_eq!(left(&system.snapshots, &feed::snapshots_of(gone)).await, [waits]);
    let streams = system.streams();
    let Standing::Deleted(deletion) = streams.standing(gone).await.unwrap() else {
        panic!("deleted")
    };
    assert_eq!(streams.left(gone, deletion).await.unwrap(), []);
}

#[tokio::test]
async fn of_credentials_the_last_one_stays() {
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

/// Two at once, and each of them killed in the middle: what comes again is gone on with.
#[tokio::test]
async fn what_was_begun_by_others_is_brought_to_its_end() {
    let system = System::start().await;
    let mut users = Vec::new();
    for _ in 0..8 {
        let user = user(&system).await;
        system.delete(user).await;
        tell(&system, user).await;
        users.push(user);
    }
    let begun = async || {
        let all = left(&system.sessions, subjects::SESSION_EVENTS_FILTER).await.len();
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
        assert_eq!(all_left(&system, user).await, tombstone(user));
    }
}

#[tokio::test]
async fn a_message_that_no_writer_wrote_is_passed_over_and_holds_nobody_up() {
    let system = System::start().await;
    system.put(subjects::user_events(new_user()), b"{}".to_vec()).await;
    let gone = user(&system).await;
    system.delete(gone).await;
    tell(&system, gone).await;
    let reactor = system.reactor().await;
    wait_for("the other one", || async { all_left(&system, gone).await == tombstone(gone) }).await;
    wait_for("the message to be passed over", || system.erased()).await;
    reactor.end().await;
}
