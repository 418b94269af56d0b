//! What ended, followed through a log that is made anew.

use std::time::Duration;

use async_nats::jetstream;
use events::{Position, SessionId, UserId};
use nats_access::Role;
use service_kit::ambient;
use service_kit::event_log::{Append, EventLog, Guard, Outcome, Write};
use service_kit::revocations::Revocations;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::support::{command, connect, log, provisioned, spec};

const WAIT_MAX: Duration = Duration::from_secs(30);

/// Ends the access of somebody new, and says who and where that stands.
async fn end_one(log: &EventLog) -> (UserId, Position) {
    let user = UserId::from_uuid(ambient::new_uuid());
    let write = Write::new(format!("rv.user.{user}"), Guard::absent(), "{}");
    let Outcome::Stored(position) = log.append(&Append::new(command(), write)).await else {
        panic!("not stored")
    };
    (user, position)
}

async fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + WAIT_MAX;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// As after a restore: positions begin elsewhere, and what is behind the old end does not come.
#[tokio::test]
async fn a_log_that_was_made_anew_is_heard_from_its_beginning() {
    let (writer, account) = provisioned().await;
    let mut last = end_one(&writer).await;
    for _ in 0..4 {
        last = end_one(&writer).await;
    }
    let (stop, silence_max) = (CancellationToken::new(), Duration::from_secs(5));
    let client = connect(account, Role::QueryApi).await;
    let revocations = Revocations::follow(&client, silence_max, &stop);
    let session = SessionId::from_uuid(ambient::new_uuid());
    let ended = |user, epoch| revocations.denies(user, session, epoch);
    wait_for("what had ended", || ended(last.0, Position(0))).await;
    assert!(!revocations.is_of_another_log(0), "nothing went back yet");
    assert!(!ended(last.0, last.1), "a token that knows of it lives");

    let operator = connect(account, Role::Operator).await;
    jetstream::new(operator.clone()).delete_stream("USERS").await.unwrap();
    log(operator).provision(&spec()).await.unwrap();
    let next = end_one(&writer).await;
    assert!(next.1 < last.1, "it counts anew");
    wait_for("what ended in the new log", || ended(next.0, Position(0))).await;
    assert!(ended(last.0, Position(0)), "what ended before stays so");
    // Epochs of before mean nothing in it.
    let now = u64::try_from(ambient::now().as_datetime().timestamp()).unwrap();
    assert!(revocations.is_of_another_log(now - 60), "a token of before is good");
    assert!(!revocations.is_of_another_log(now + 1), "a token made since is refused");
    stop.cancel();
}
