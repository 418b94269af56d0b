//! A stream that is not as it must be is refused; a right one is made by the operator alone.

use nats_access::Role;
use service_kit::event_log::{EventLog, ProvisionError};

use crate::support::{account, connect, log, provisioned, spec};

#[tokio::test]
async fn the_operator_makes_it_and_services_accept_it() {
    let account = account();
    let operator = log(connect(account, Role::Operator).await);
    let service = log(connect(account, Role::CommandApi).await);
    assert!(matches!(service.verify(&spec()).await, Err(ProvisionError::Missing("USERS"))));
    operator.provision(&spec()).await.unwrap();
    service.verify(&spec()).await.unwrap();
    operator.provision(&spec()).await.unwrap();
}

#[tokio::test]
async fn every_difference_is_named() {
    let (service, account) = provisioned().await;
    let operator = connect(account, Role::Operator).await;
    let config = r#"{"name":"USERS","subjects":["ev.user.*","sec.user.*","uq.email.*","uq.role.*","ik.*","rv.user.*"],
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
