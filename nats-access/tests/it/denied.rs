//! What is not in the table is refused, and the server says so.

use async_nats::jetstream;
use futures::StreamExt as _;
use nats_access::Role;
use tokio::time::timeout;

use crate::support::{Of, Peer, STREAM, WAIT_MAX, account, headers, operator_with_stream};

/// What no service may do to any stream.
const DESTRUCTIVE: [&str; 14] = [
    "$JS.API.STREAM.CREATE.USERS",
    "$JS.API.STREAM.UPDATE.USERS",
    "$JS.API.STREAM.DELETE.USERS",
    "$JS.API.STREAM.PURGE.USERS",
    "$JS.API.STREAM.MSG.DELETE.USERS",
    "$JS.API.STREAM.SNAPSHOT.USERS",
    "$JS.API.STREAM.RESTORE.USERS",
    "$JS.API.STREAM.UPDATE.KV_THROTTLE",
    "$JS.API.STREAM.DELETE.KV_THROTTLE",
    "$JS.API.STREAM.PURGE.KV_THROTTLE",
    "$JS.API.STREAM.MSG.DELETE.KV_THROTTLE",
    "$KV.OTHER.key",
    "$JS.API.STREAM.INFO.OTHER",
    "$JS.API.STREAM.MSG.GET.OTHER",
];
/// What no service may listen to.
const PRIVATE: [&str; 9] = [
    ">",
    "ev.>",
    "ev.user.one",
    "sec.user.*",
    "uq.email.*",
    "_INBOX.>",
    "$JS.>",
    "$SYS.>",
    "_INBOX_operator.>",
];

#[tokio::test]
async fn command_api_cannot_touch_the_stream_nor_listen() {
    let publish = [
        "$JS.API.CONSUMER.CREATE.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.mine.ev.user.*",
        "$JS.API.CONSUMER.DURABLE.CREATE.USERS.mine",
        "$JS.API.CONSUMER.DELETE.USERS.mine",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mine",
        "$JS.API.DIRECT.GET.USERS",
        "$JS.API.DIRECT.GET.KV_THROTTLE",
        "$JS.API.CONSUMER.CREATE.KV_THROTTLE",
        "$JS.API.STREAM.NAMES",
        "$JS.API.INFO",
        "ev.user.one.deeper",
        "ev.session.one",
        "roster.position.users",
        "_INBOX_query-api.reply",
        "$SYS.REQ.USER.INFO",
    ];
    let subscribe = ["_INBOX_projector.>", "_INBOX_query-api.>", "roster.>"];
    nothing_happens(Of::DeniedCommandApi, Role::CommandApi, &publish, &subscribe).await;
}

#[tokio::test]
async fn projector_cannot_write_nor_listen() {
    let publish = [
        "ev.user.x",
        "sec.user.x",
        "uq.email.x",
        "ik.x",
        "rv.user.x",
        "$KV.THROTTLE.account.x",
        "$JS.API.STREAM.MSG.GET.KV_THROTTLE",
        "$JS.API.CONSUMER.CREATE.OTHER.mine",
        "$JS.API.CONSUMER.DURABLE.CREATE.USERS.mine",
        "$JS.API.CONSUMER.LIST.USERS",
        "$JS.API.CONSUMER.PAUSE.USERS.mine",
        "$JS.ACK.USERS.mine",
        "roster.position.others",
        "_INBOX_query-api.reply",
    ];
    let subscribe = ["_INBOX_command-api.>", "_INBOX_query-api.>", "roster.position.users"];
    nothing_happens(Of::DeniedProjector, Role::Projector, &publish, &subscribe).await;
}

#[tokio::test]
async fn query_api_cannot_publish_at_all() {
    let publish = [
        "ev.user.x",
        "rv.user.x",
        "$KV.THROTTLE.account.x",
        "$JS.API.STREAM.INFO.KV_THROTTLE",
        "$JS.API.STREAM.MSG.GET.KV_THROTTLE",
        "roster.position.users",
        "$JS.API.STREAM.INFO.USERS",
        "$JS.API.STREAM.MSG.GET.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.mine",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mine",
        "_INBOX_query-api.reply",
        "anything",
    ];
    let subscribe = ["_INBOX_command-api.>", "_INBOX_projector.>", "roster.>"];
    nothing_happens(Of::DeniedQueryApi, Role::QueryApi, &publish, &subscribe).await;
}

/// Each of these is reported as a violation, and the log is as it was.
async fn nothing_happens(of: Of, role: Role, publish: &[&str], subscribe: &[&str]) {
    let account = account(of);
    let operator = operator_with_stream(account).await;
    operator.request("ev.user.one", headers(&[]), "fact").await;
    let mut peer = Peer::connect(account, role).await;
    for subject in DESTRUCTIVE.iter().chain(publish) {
        peer.is_denied_publish(subject).await;
    }
    for subject in PRIVATE.iter().chain(subscribe) {
        peer.is_denied_subscribe(subject).await;
    }
    peer.has_no_report().await;
    let stream = jetstream::new(operator.client.clone()).get_stream(STREAM).await.unwrap();
    let state = stream.get_info().await.unwrap().state;
    assert_eq!((state.messages, state.last_sequence, state.consumer_count), (1, 1, 0));
}

/// Not even the operator of one account sees or reaches anything of another.
#[tokio::test]
async fn accounts_are_apart() {
    let one = operator_with_stream(account(Of::OneSide)).await;
    one.request("ev.user.one", headers(&[]), "fact").await;
    let mut other = Peer::connect(account(Of::OtherSide), Role::Operator).await;
    let mut everything = other.client.subscribe(">").await.unwrap();
    other.client.flush().await.unwrap();

    let missing = jetstream::new(other.client.clone()).get_stream(STREAM).await;
    assert!(missing.is_err(), "the stream of another account is seen");
    // The same name is free here, and the streams do not mix.
    let _maker = operator_with_stream(account(Of::OtherSide)).await;
    let stream = jetstream::new(other.client.clone()).get_stream(STREAM).await.unwrap();
    assert_eq!(stream.get_info().await.unwrap().state.messages, 0);
    one.request("ev.user.two", headers(&[]), "fact").await;
    one.client.publish("roster.position.users", "2".into()).await.unwrap();
    one.client.flush().await.unwrap();
    other.client.publish("mine", "".into()).await.unwrap();
    other.client.flush().await.unwrap();
    loop {
        let message = timeout(WAIT_MAX, everything.next()).await.unwrap().unwrap();
        let subject = message.subject.as_str();
        assert!(!subject.starts_with("ev.") && !subject.starts_with("roster."), "{subject}");
        if subject == "mine" {
            break;
        }
    }
    assert_eq!(stream.get_info().await.unwrap().state.messages, 0);
    other.has_no_report().await;
}
