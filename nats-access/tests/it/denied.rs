//! Everything outside the table is denied, and the server reports it.

use async_nats::jetstream;
use futures::StreamExt as _;
use nats_access::Role;
use tokio::time::timeout;

use crate::support::{
    Of, Peer, SESSIONS, STREAM, WAIT_MAX, account, filter_of_mailer, headers, operator_with_stream,
    text,
};

/// What no service may do to a stream.
const DESTRUCTIVE: [&str; 25] = [
    "$JS.API.STREAM.CREATE.USERS",
    "$JS.API.STREAM.UPDATE.USERS",
    "$JS.API.STREAM.DELETE.USERS",
    "$JS.API.STREAM.PURGE.USERS",
    "$JS.API.STREAM.SNAPSHOT.USERS",
    "$JS.API.STREAM.RESTORE.USERS",
    "$JS.API.STREAM.UPDATE.USER_EVENTS",
    "$JS.API.STREAM.DELETE.USER_EVENTS",
    "$JS.API.STREAM.PURGE.USER_EVENTS",
    "$JS.API.STREAM.PURGE.USER_SNAPSHOTS",
    "$JS.API.CONSUMER.DELETE.USER_EVENTS.billing",
    "$JS.API.STREAM.UPDATE.KV_THROTTLE",
    "$JS.API.STREAM.DELETE.KV_THROTTLE",
    "$JS.API.STREAM.PURGE.KV_THROTTLE",
    "$JS.API.STREAM.MSG.DELETE.KV_THROTTLE",
    // The audit is for operators.
    "op.provision",
    "$JS.API.STREAM.INFO.OPERATIONS",
    "$JS.API.STREAM.MSG.GET.OPERATIONS",
    "$JS.API.STREAM.MSG.DELETE.OPERATIONS",
    "$JS.API.STREAM.PURGE.OPERATIONS",
    "$JS.API.CONSUMER.CREATE.OPERATIONS.mine.op.*",
    "$JS.API.CONSUMER.MSG.NEXT.OPERATIONS.mine",
    "$KV.OTHER.key",
    "$JS.API.STREAM.INFO.OTHER",
    "$JS.API.STREAM.MSG.GET.OTHER",
];
/// Subjects that no service may subscribe to.
const PRIVATE: [&str; 10] = [
    ">",
    "ev.>",
    "ev.user.one",
    "sec.user.*",
    "uq.email.*",
    "op.*",
    "_INBOX.>",
    "$JS.>",
    "$SYS.>",
    "_INBOX_operator.>",
];

#[tokio::test]
async fn command_api_cannot_change_the_stream_or_subscribe() {
    let publish = [
        "$JS.API.STREAM.MSG.DELETE.USERS",
        "$JS.API.STREAM.MSG.DELETE.SESSIONS",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser",
        "users.v1.registered.x",
        "sessions.v1.started.x",
        "er.session.x",
        "$JS.API.STREAM.MSG.GET.USER_EVENTS",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.billing",
        "$JS.API.CONSUMER.CREATE.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.mine.ev.user.*",
        "$JS.API.CONSUMER.DURABLE.CREATE.USERS.mine",
        "$JS.API.CONSUMER.CREATE.USERS.mailer.rv.user.*",
        "$JS.API.CONSUMER.CREATE.SESSIONS.mine.ev.session.*.*",
        "$JS.API.CONSUMER.CREATE.MAILS.mine.mail.order.*",
        "$JS.API.CONSUMER.DELETE.USERS.mine",
        "$JS.API.CONSUMER.INFO.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.MAILS.mailer",
        "$JS.ACK.USERS.mailer.1.1.1.1.0",
        "$JS.ACK.MAILS.mailer.1.1.1.1.0",
        "$JS.API.CONSUMER.MSG.NEXT.MAILS.notices",
        "$JS.ACK.MAILS.notices.1.1.1.1.0",
        "mail.parked.one",
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
    all_are_denied(Of::DeniedCommandApi, Role::CommandApi, &publish, &subscribe).await;
}

#[tokio::test]
async fn projector_cannot_append_or_subscribe() {
    let publish = [
        "ev.user.x",
        "sec.user.x",
        "uq.email.x",
        "ik.x",
        "rv.user.x",
        "$KV.THROTTLE.account.x",
        "$JS.API.STREAM.MSG.GET.KV_THROTTLE",
        "lk.verify.x",
        "mail.order.x",
        "mail.notice.x",
        "er.session.x",
        "$JS.API.STREAM.MSG.DELETE.USERS",
        "$JS.API.STREAM.MSG.DELETE.USER_EVENTS",
        "$JS.API.CONSUMER.INFO.USERS.eraser",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.billing",
        "snapshot.v1.billing.x",
        "$JS.API.CONSUMER.CREATE.OTHER.mine",
        "$JS.API.CONSUMER.CREATE.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.mailer",
        "$JS.API.CONSUMER.CREATE.USERS.mailer.ev.user.*",
        "$JS.API.CONSUMER.CREATE.MAILS.mine.mail.order.*",
        "$JS.API.CONSUMER.INFO.USERS.mailer",
        "$JS.API.CONSUMER.DELETE.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.MAILS.mailer",
        "$JS.ACK.USERS.mailer.1.1.1.1.0",
        "$JS.API.CONSUMER.DURABLE.CREATE.USERS.mine",
        "$JS.API.CONSUMER.LIST.USERS",
        "$JS.API.CONSUMER.PAUSE.USERS.mine",
        "$JS.ACK.USERS.mine",
        "roster.position.users.more",
        "roster.position.products",
        "ev.product.x",
        "products.v1.added.x",
        "$JS.API.STREAM.INFO.PRODUCTS",
        "$JS.API.CONSUMER.CREATE.PRODUCTS.mine.ev.product.*",
        "_INBOX_query-api.reply",
    ];
    let subscribe = ["_INBOX_command-api.>", "_INBOX_query-api.>", "roster.position.users"];
    all_are_denied(Of::DeniedProjector, Role::Projector, &publish, &subscribe).await;
}

#[tokio::test]
async fn query_api_cannot_write_or_read_the_log() {
    let publish = [
        "ev.user.x",
        "rv.user.x",
        "$KV.THROTTLE.account.x",
        "$JS.API.STREAM.INFO.KV_THROTTLE",
        "$JS.API.STREAM.MSG.GET.KV_THROTTLE",
        "$JS.API.STREAM.MSG.DELETE.USERS",
        "$JS.API.STREAM.MSG.GET.USER_EVENTS",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.billing",
        "users.v1.registered.x",
        "roster.position.users",
        "$JS.API.STREAM.INFO.USERS",
        "$JS.API.STREAM.MSG.GET.USERS",
        "$JS.API.CONSUMER.CREATE.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.mine",
        "$JS.API.CONSUMER.CREATE.USERS.mine.ev.user.*",
        "$JS.API.CONSUMER.CREATE.USERS.mine.sec.user.*",
        "$JS.API.CONSUMER.CREATE.USERS.mine.>",
        "$JS.API.CONSUMER.CREATE.USERS.mailer.rv.user.*",
        "$JS.API.CONSUMER.CREATE.SESSIONS.mine.ev.session.*.*",
        "$JS.API.CONSUMER.DURABLE.CREATE.USERS.mine",
        "$JS.API.CONSUMER.DELETE.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.MAILS.mailer",
        "lk.verify.x",
        "mail.order.x",
        "_INBOX_query-api.reply",
        "anything",
    ];
    let subscribe = ["_INBOX_command-api.>", "_INBOX_projector.>", "roster.>"];
    all_are_denied(Of::DeniedQueryApi, Role::QueryApi, &publish, &subscribe).await;
}

#[tokio::test]
async fn mailer_cannot_decide_delete_or_read_freely() {
    let publish = [
        "$JS.API.STREAM.MSG.DELETE.USERS",
        "$JS.API.STREAM.MSG.DELETE.SESSIONS",
        "$JS.API.STREAM.MSG.DELETE.USER_EVENTS",
        "$JS.API.STREAM.MSG.DELETE.USER_SNAPSHOTS",
        "$JS.API.STREAM.MSG.GET.USER_EVENTS",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser",
        "er.session.x",
        "ev.user.x",
        "sec.user.x",
        "uq.email.x",
        "ik.x",
        "rv.user.x",
        "ev.session.x.y",
        "rv.session.x",
        "roster.position.users",
        "users.v1.registered.x",
        "sessions.v1.started.x",
        "snapshot.v1.billing.x",
        "$JS.API.STREAM.MSG.DELETE.MAILS",
        "$JS.API.STREAM.PURGE.SESSIONS",
        "$JS.API.STREAM.PURGE.USER_EVENTS",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.billing",
        "$JS.API.CONSUMER.CREATE.USERS.eraser.sec.user.*",
        "$JS.API.STREAM.PURGE.MAILS",
        "$JS.API.CONSUMER.CREATE.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.mailer",
        "$JS.API.CONSUMER.CREATE.USERS.mailer.sec.user.*",
        "$JS.API.CONSUMER.CREATE.MAILS.mailer.mail.order.*",
        "$JS.API.CONSUMER.CREATE.MAILS.notices.mail.order.*",
        // Only the command side counts attempts.
        "$KV.THROTTLE.account.x",
        "$KV.THROTTLE_COUNTS.writes.x",
        "$KV.THROTTLE_COUNTS.sent.x.y",
        "$JS.API.CONSUMER.DURABLE.CREATE.USERS.mailer",
        "$JS.API.CONSUMER.DELETE.USERS.mailer",
        "$JS.API.CONSUMER.PAUSE.MAILS.mailer",
        "$JS.API.CONSUMER.INFO.USERS.other",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.other",
        "$JS.API.CONSUMER.MSG.NEXT.MAILS.other",
        "$JS.ACK.USERS.other.1.1.1.1.0",
        "$JS.ACK.MAILS.other.1.1.1.1.0",
        "_INBOX_projector.reply",
    ];
    let subscribe = ["mail.order.*", "mail.>", "roster.position.*", "_INBOX_command-api.>"];
    all_are_denied(Of::DeniedMailer, Role::Mailer, &publish, &subscribe).await;
}

#[tokio::test]
async fn eraser_cannot_decide_or_create_links_or_mails() {
    let publish = [
        "ev.user.x",
        "sec.user.x",
        "uq.email.x",
        "ik.x",
        "rv.user.x",
        "lk.password.x",
        "ev.session.x.y",
        "rv.session.x",
        "mail.order.x",
        "mail.parked.x",
        "users.v1.registered.x",
        "roster.position.users",
        "$JS.API.STREAM.MSG.GET.MAILS",
        "$JS.API.STREAM.MSG.DELETE.MAILS",
        "$JS.API.STREAM.PURGE.USERS",
        "$JS.API.STREAM.UPDATE.USERS",
        "$JS.API.CONSUMER.CREATE.USERS.eraser.sec.user.*",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
        "$JS.API.CONSUMER.MSG.NEXT.MAILS.mailer",
        "$JS.ACK.USERS.mailer.1.1.1.1.0",
    ];
    let subscribe = ["mail.>", "ev.user.*", "roster.position.*", "_INBOX_mailer.>"];
    all_are_denied(Of::DeniedEraser, Role::Eraser, &publish, &subscribe).await;
}

/// A permission names the filter in the subject of a request; the server compares the payload with it.
#[tokio::test]
async fn a_filter_in_the_payload_must_match_the_subject() {
    let account = account(Of::Revocations);
    let operator = operator_with_stream(account).await;
    for role in [Role::QueryApi, Role::CommandApi] {
        let mut peer = Peer::connect(account, role).await;
        for (subject, stream, own, foreign) in [
            ("$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*", STREAM, "rv.user.*", "sec.user.*"),
            (
                "$JS.API.CONSUMER.CREATE.SESSIONS.mine.rv.session.*",
                SESSIONS,
                "rv.session.*",
                "ev.session.*.*",
            ),
        ] {
            for filter in [
                format!(r#""filter_subject":"{foreign}""#),
                format!(r#""filter_subjects":["{own}","{foreign}"]"#),
                format!(r#""filter_subjects":["{foreign}"]"#),
                format!(r#""filter_subject":"{own}","filter_subjects":["{foreign}"]"#),
                String::from(r#""filter_subject":"""#),
                String::from(r#""filter_subject":">""#),
                format!(r#""durable_name":"mailer","filter_subject":"{own}""#),
            ] {
                let config = format!(
                    r#"{{"stream_name":"{stream}","config":{{{filter},"ack_policy":"none"}}}}"#
                );
                let answer = peer.request(subject, headers(&[]), &config).await;
                assert!(
                    text(&answer).contains(r#""error""#),
                    "{role}, {filter}: {}",
                    text(&answer)
                );
            }
            // A name in the payload has no effect.
            let config = format!(
                r#"{{"stream_name":"{stream}","config":{{"name":"mailer","filter_subject":"{own}","ack_policy":"none"}}}}"#
            );
            let answer = peer.request(subject, headers(&[]), &config).await;
            assert!(text(&answer).contains(r#""name":"mine""#), "{role}: {}", text(&answer));
            // The payload names another stream than the subject.
            let other = if stream == STREAM { SESSIONS } else { STREAM };
            let config = format!(
                r#"{{"stream_name":"{other}","config":{{"filter_subject":"{own}","ack_policy":"none"}}}}"#
            );
            let answer = peer.request(subject, headers(&[]), &config).await;
            assert!(text(&answer).contains(r#""error""#), "{role}: {}", text(&answer));
        }
        peer.has_no_report().await;
    }
    assert_eq!(filter_of_mailer(&operator).await, "ev.user.*");
    let stream = jetstream::new(operator.client.clone()).get_stream(STREAM).await.unwrap();
    assert_eq!(
        stream.get_info().await.unwrap().state.consumer_count,
        2,
        "the mailer's consumers and one more"
    );
}

/// The projector creates consumers with any filter, but not under the names of the mailer's and the eraser's.
#[tokio::test]
async fn projector_cannot_recreate_the_mailers_consumer() {
    let account = account(Of::Mailer);
    let operator = operator_with_stream(account).await;
    let mut projector = Peer::connect(account, Role::Projector).await;
    for subject in
        ["$JS.API.CONSUMER.CREATE.USERS.mine", "$JS.API.CONSUMER.CREATE.USERS.mine.sec.user.*"]
    {
        for name in [
            r#""name":"mailer""#,
            r#""durable_name":"mailer""#,
            r#""name":"mailer","durable_name":"mailer""#,
        ] {
            let config = format!(
                r#"{{"stream_name":"USERS","config":{{{name},"filter_subject":"sec.user.*","ack_policy":"explicit"}}}}"#
            );
            let answer = projector.request(subject, headers(&[]), &config).await;
            assert_eq!(filter_of_mailer(&operator).await, "ev.user.*", "{}", text(&answer));
        }
    }
    projector.has_no_report().await;
}

/// The server reports a violation for each of these, and the log is unchanged.
async fn all_are_denied(of: Of, role: Role, publish: &[&str], subscribe: &[&str]) {
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
    assert_eq!((state.messages, state.last_sequence, state.consumer_count), (1, 1, 1));
    assert_eq!(filter_of_mailer(&operator).await, "ev.user.*");
}

/// Not even the operator of one account sees or reaches another account.
#[tokio::test]
async fn accounts_are_isolated() {
    let one = operator_with_stream(account(Of::OneSide)).await;
    one.request("ev.user.one", headers(&[]), "fact").await;
    let mut other = Peer::connect(account(Of::OtherSide), Role::Operator).await;
    let mut everything = other.client.subscribe(">").await.unwrap();
    other.client.flush().await.unwrap();

    let missing = jetstream::new(other.client.clone()).get_stream(STREAM).await;
    assert!(missing.is_err(), "the stream of another account is visible");
    // The same name is free here, and the streams stay separate.
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
