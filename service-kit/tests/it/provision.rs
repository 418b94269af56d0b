//! A stream that is not as it must be is refused; a right one is made by the operator alone.

use nats_access::Role;
use service_kit::config::Settings;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, ProvisionError, THROTTLE_STREAM, Write, throttle_stream,
};

use crate::support::{account, command, connect, limits, log, provisioned, spec};

#[tokio::test]
async fn the_operator_makes_it_and_services_accept_it() {
    let account = account();
    let operator = log(connect(account, Role::Operator).await);
    let service = log(connect(account, Role::CommandApi).await);
    let missing = service.verify(&spec()).await.unwrap_err();
    assert!(
        matches!(&missing, ProvisionError::Missing { stream, .. } if stream == "USERS"),
        "{missing}"
    );
    operator.provision(&spec()).await.unwrap();
    service.verify(&spec()).await.unwrap();
    operator.provision(&spec()).await.unwrap();
}

#[tokio::test]
async fn every_difference_is_named() {
    let (service, account) = provisioned().await;
    let operator = connect(account, Role::Operator).await;
    let config = r#"{"name":"USERS","subjects":["ev.user.*","sec.user.*","uq.email.*","uq.role.*","ik.*","rv.user.*","lk.*.*"],
        "storage":"file","num_replicas":1,"discard":"old","max_bytes":1048576,"allow_direct":true,"allow_atomic":true,
        "allow_msg_ttl":true,"allow_rollup_hdrs":true,"max_age":3600000000000,"compression":"s2"}"#;
    // `deny_purge` cannot be taken back, so the stream is made anew.
    operator.request("$JS.API.STREAM.DELETE.USERS", "".into()).await.unwrap();
    operator.request("$JS.API.STREAM.CREATE.USERS", config.into()).await.unwrap();
    let error = service.verify(&spec()).await.unwrap_err().to_string();
    for part in ["discard", "max_age", "allow_rollup_hdrs", "deny_purge"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(!error.contains("subjects"), "{error}");
    let operator: EventLog = log(operator);
    operator.provision(&spec()).await.unwrap();
    service.verify(&spec()).await.unwrap();
}

#[tokio::test]
async fn the_bucket_of_the_throttle_keeps_the_last_record_of_a_key() {
    let (service, account) = provisioned().await;
    let spec = throttle_stream(&Settings::merge("", []).unwrap().log);
    let missing = service.verify(&spec).await.unwrap_err();
    assert!(
        matches!(&missing, ProvisionError::Missing { stream, .. } if stream == THROTTLE_STREAM)
    );
    let bucket = |client| EventLog::new(client, THROTTLE_STREAM, limits());
    let operator = connect(account, Role::Operator).await;
    bucket(operator.clone()).provision(&spec).await.unwrap();
    bucket(operator.clone()).provision(&spec).await.unwrap();

    let log = bucket(connect(account, Role::CommandApi).await);
    log.verify(&spec).await.unwrap();
    let write = |guard, text: &'static str| {
        let write = Write::new("$KV.THROTTLE.account.x".to_owned(), guard, text);
        Append::new(command(), write.expiring_after(std::time::Duration::from_secs(60)))
    };
    let stored = |outcome| matches!(outcome, Outcome::Stored(_));
    assert!(stored(log.append(&write(Guard::absent(), "1")).await));
    assert_eq!(log.append(&write(Guard::absent(), "2")).await, Outcome::Conflict);
    let first = log.last("$KV.THROTTLE.account.x").await.unwrap().unwrap();
    assert!(stored(log.append(&write(first.guard(), "3")).await));
    assert_eq!(log.append(&write(first.guard(), "4")).await, Outcome::Conflict);
    let last = log.last("$KV.THROTTLE.account.x").await.unwrap().unwrap();
    assert_eq!(last.payload, "3");
    assert!(log.at(first.position).await.unwrap().is_none(), "one message a key");

    // A bucket that drops new records, or keeps them for ever, is refused.
    let wrong = r#"{"name":"KV_THROTTLE","subjects":["$KV.THROTTLE.>"],"storage":"file",
        "num_replicas":1,"discard":"new","max_bytes":1048576,"max_msgs_per_subject":1,"allow_msg_ttl":true}"#;
    operator.request("$JS.API.STREAM.DELETE.KV_THROTTLE", "".into()).await.unwrap();
    operator.request("$JS.API.STREAM.CREATE.KV_THROTTLE", wrong.into()).await.unwrap();
    let error = log.verify(&spec).await.unwrap_err().to_string();
    for part in ["KV_THROTTLE", "discard", "max_age"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(!error.contains("max_bytes"), "{error}");
}
