//! Durable consumers: made by the operator alone, checked by who uses them, and what is taken comes
//! again until it is done.

use std::time::Duration;

use events::subjects::USER_EVENTS_FILTER;
use futures::StreamExt as _;
use nats_access::Role;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, ProvisionError, Task, mailer_events,
};

use crate::support::{account, command, connect, log, of_writer, provisioned, spec};

async fn write(log: &EventLog, subject: &str) {
    let write = of_writer(subject, Guard::absent(), subject);
    let outcome = log.append(&Append::new(command(), write)).await;
    assert!(matches!(outcome, Outcome::Stored(_)), "{outcome:?}");
}

async fn take(log: &EventLog) -> Task {
    loop {
        let mut tasks = Box::pin(log.take(&mailer_events(), 1).await.unwrap());
        if let Some(task) = tasks.next().await {
            return task.unwrap();
        }
    }
}

#[tokio::test]
async fn the_operator_makes_a_consumer_and_mends_it_and_its_user_checks_it() {
    let account = account();
    let client = connect(account, Role::Operator).await;
    let operator = log(client.clone());
    operator.provision(&spec()).await.unwrap();
    let reactor = log(connect(account, Role::Mailer).await);
    let consumer = mailer_events();
    let missing = reactor.verify_consumer(&consumer).await.unwrap_err();
    assert!(matches!(missing, ProvisionError::MissingConsumer { .. }), "{missing}");
    for _ in 0..2 {
        operator.provision_consumer(&consumer).await.unwrap();
        let backlog = reactor.verify_consumer(&consumer).await.unwrap();
        assert_eq!((backlog.pending, backlog.under_way), (0, 0));
    }
    let wrong = r#"{"stream_name":"USERS","config":{"durable_name":"mailer","filter_subject":"sec.user.*",
        "deliver_policy":"new","ack_policy":"explicit","ack_wait":1000000000,"max_deliver":5}}"#;
    client.request("$JS.API.CONSUMER.DURABLE.CREATE.USERS.mailer", wrong.into()).await.unwrap();
    let error = reactor.verify_consumer(&consumer).await.unwrap_err().to_string();
    for part in ["filter_subject", "ack_wait", "max_deliver"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    operator.provision_consumer(&consumer).await.unwrap();
    reactor.verify_consumer(&consumer).await.unwrap();
}

#[tokio::test]
async fn what_is_taken_comes_again_until_it_is_done() {
    let (commands, account) = provisioned().await;
    write(&commands, "ev.user.before").await;
    let operator = log(connect(account, Role::Operator).await);
    operator.provision_consumer(&mailer_events()).await.unwrap();
    for subject in ["sec.user.one", "ev.user.one"] {
        write(&commands, subject).await;
    }
    let reactor = log(connect(account, Role::Mailer).await);
    for deliveries in [1, 2, 3] {
        let task = take(&reactor).await;
        assert_eq!((task.subject(), task.payload()), ("ev.user.one", &b"ev.user.one"[..]));
        assert_eq!(task.deliveries, deliveries);
        let stored = commands.next(USER_EVENTS_FILTER, events::Position(2)).await.unwrap().unwrap();
        assert_eq!((task.position, task.stored_at), (stored.position, stored.stored_at));
        task.in_progress().await.unwrap();
        match deliveries {
            3 => task.ack().await.unwrap(),
            _ => task.nak(Duration::from_millis(1)).await.unwrap(),
        }
    }
    let backlog = reactor.verify_consumer(&mailer_events()).await.unwrap();
    assert_eq!((backlog.pending, backlog.under_way), (0, 0));
}

#[tokio::test]
async fn one_message_is_erased_and_that_by_the_operator_alone() {
    let (commands, account) = provisioned().await;
    for subject in ["ev.user.one", "ev.user.two"] {
        write(&commands, subject).await;
    }
    let position = events::Position(1);
    assert!(commands.erase(position).await.is_err());
    let operator = log(connect(account, Role::Operator).await);
    assert!(operator.erase(position).await.unwrap());
    assert!(!operator.erase(position).await.unwrap());
    assert!(commands.at(position).await.unwrap().is_none());
    assert!(commands.at(events::Position(2)).await.unwrap().is_some());
}
