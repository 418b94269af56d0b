//! Messages on the log's subjects that no writer wrote: passed over by everybody who reads.

use std::time::Duration;

use events::{Position, SessionId, UserId};
use futures::StreamExt;
use nats_access::Role;
use service_kit::ambient;
use service_kit::event_log::{Append, EventLog, Guard, Outcome, Start, Write};
use service_kit::revocations::Revocations;
use tokio_util::sync::CancellationToken;

use crate::support::{command, connect, log, provisioned};

/// What the server answers, which is what a reply subject brought into the log.
const ANSWER: &str = r#"{"type":"io.nats.jetstream.api.v1.consumer_create_response"}"#;

async fn write(log: &EventLog, subject: &str, guard: Guard, payload: &'static str) -> Position {
    let write = Write::new(subject.to_owned(), guard, payload);
    let outcome = log.append(&Append::new(command(), write)).await;
    let Outcome::Stored(position) = outcome else { panic!("{subject}: {outcome:?}") };
    position
}

/// A message by hand, without a guard and without the headers of an append.
async fn intrude(operator: &async_nats::Client, subject: &str) {
    let answer = operator.request(subject.to_owned(), ANSWER.into()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer.payload).into_owned();
    assert!(answer.contains(r#""seq""#), "{answer}");
}

#[tokio::test]
async fn a_record_is_read_beneath_foreign_messages_and_written_behind_them() {
    let (writer, account) = provisioned().await;
    let operator = connect(account, Role::Operator).await;
    let reader = log(connect(account, Role::CommandApi).await);
    for subject in
        ["sec.user.x", "uq.email.x", "uq.role.admin", "rv.user.x", "lk.password.x", "ik.x"]
    {
        let first = write(&writer, subject, Guard::absent(), "first").await;
        // Others in between, so that the one beneath is not simply the message before.
        for other in ["uq.email.y", "uq.email.z"] {
            intrude(&operator, other).await;
        }
        for intruders in [1, 2] {
            for _ in 0..intruders {
                intrude(&operator, subject).await;
            }
            let top = reader.top(subject).await.unwrap();
            let found = top.last.unwrap();
            assert_eq!((found.position, &found.payload[..]), (first, &b"first"[..]), "{subject}");
        }
        // What a message of before is bound to stays, and the next write is let in.
        let guard = reader.top(subject).await.unwrap().guard;
        let second = write(&reader, subject, guard, "second").await;
        assert_eq!(reader.last(subject).await.unwrap().unwrap().position, second);
    }
    // One that nobody wrote to.
    intrude(&operator, "uq.email.free").await;
    let top = reader.top("uq.email.free").await.unwrap();
    assert!(top.last.is_none());
    write(&reader, "uq.email.free", top.guard, "claimed").await;
}

#[tokio::test]
async fn whoever_follows_is_told_that_a_message_is_foreign() {
    let (writer, account) = provisioned().await;
    let operator = connect(account, Role::Operator).await;
    intrude(&operator, "ev.user.x").await;
    let write =
        Write::new("ev.user.x".to_owned(), writer.top("ev.user.x").await.unwrap().guard, "{}");
    let write = write.event(ambient::new_uuid(), "user.enabled.v1");
    assert_eq!(writer.append(&Append::new(command(), write)).await, Outcome::Stored(Position(2)));
    intrude(&operator, "rv.user.x").await;
    let filters = ["ev.user.*", "rv.user.*"];
    let reader = log(connect(account, Role::Projector).await);
    let following = reader.follow(&filters, Start::Behind(Position(0))).await.unwrap();
    let messages: Vec<_> = following.messages.take(3).collect().await;
    let foreign: Vec<_> =
        messages.iter().map(|message| message.as_ref().unwrap().is_foreign).collect();
    assert_eq!(foreign, [true, false, true]);
    let subject = ["ev.user.x".to_owned()];
    let between = reader.between(&subject, Position(0), Position(9), 9).await.unwrap();
    let foreign: Vec<_> = between.iter().map(|message| message.is_foreign).collect();
    assert_eq!(foreign, [true, false]);
}

#[tokio::test]
async fn a_foreign_message_ends_nobodys_access() {
    let (writer, account) = provisioned().await;
    let operator = connect(account, Role::Operator).await;
    let user = || UserId::from_uuid(ambient::new_uuid());
    let (alive, ended) = (user(), user());
    intrude(&operator, &format!("rv.user.{alive}")).await;
    write(&writer, &format!("rv.user.{ended}"), Guard::absent(), "{}").await;
    let stop = CancellationToken::new();
    let client = connect(account, Role::QueryApi).await;
    let revocations = Revocations::follow(&client, Duration::from_secs(5), &stop);
    // The later one is known, and so is whatever came before it.
    let session = SessionId::from_uuid(ambient::new_uuid());
    let heard = async {
        while !revocations.denies(ended, session, Position(0)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), heard).await.unwrap();
    assert!(!revocations.denies(alive, session, Position(0)));
    stop.cancel();
}
