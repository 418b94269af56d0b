//! A subscriber of the feed takes messages from its own consumer, and can do nothing else.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use async_nats::{ConnectOptions, Message};
use futures::StreamExt as _;
use local_stack::{DataDir, NatsOptions, NatsServer, testing};
use nats_access::{Role, SUBSCRIBER_CONNECTIONS_MAX, SubscriberName, TestTrust};
use tokio::time::timeout;

use crate::support::{
    FEED, Of, Peer, SESSIONS, SNAPSHOTS, STREAM, WAIT_MAX, account, headers, operator_with_stream,
    text,
};

const NEXT: &str = "feed.CONSUMER.MSG.NEXT.USER_EVENTS.billing";
const INFO: &str = "feed.CONSUMER.INFO.USER_EVENTS.billing";

/// The consumers of two subscribers, and three messages.
async fn operator_with_subscribers(of: Of) -> Peer {
    let operator = operator_with_stream(account(of)).await;
    let context = jetstream::new(operator.client.clone());
    for (stream, name, filter) in [
        (FEED, "billing", "users.v1.*.*"),
        (FEED, "other", "sessions.v1.*.*"),
        (SNAPSHOTS, "billing", "snapshot.v1.billing.*"),
    ] {
        let config = pull::Config {
            durable_name: Some(name.to_owned()),
            filter_subject: filter.to_owned(),
            max_ack_pending: 1,
            ack_wait: Duration::from_secs(2),
            ..pull::Config::default()
        };
        context.create_consumer_on_stream(config, stream).await.unwrap();
    }
    for subject in ["users.v1.registered.x", "sessions.v1.started.x", "users.v1.deleted.x"] {
        operator.request(subject, headers(&[]), subject).await;
    }
    operator.request("snapshot.v1.billing.x", headers(&[]), "state").await;
    operator
}

/// Takes the next message of a consumer and acknowledges it. An ordinary request would not do: the message arrives
/// under the subject that it was stored with, so a client with one inbox for all requests cannot tell which request
/// it answers.
async fn take_one(peer: &Peer, next: &str) -> Message {
    let inbox = peer.client.new_inbox();
    let mut answers = peer.client.subscribe(inbox.clone()).await.unwrap();
    let pull = r#"{"batch":1,"expires":30000000000}"#;
    peer.client.publish_with_reply(next.to_owned(), inbox, pull.into()).await.unwrap();
    let message = timeout(WAIT_MAX, answers.next()).await.unwrap().unwrap();
    let ack = message.reply.clone().unwrap();
    assert!(ack.starts_with("$JS.ACK."), "{ack}");
    // The server confirms it, through both accounts.
    peer.request(&ack, headers(&[]), "+ACK").await;
    message
}

#[tokio::test]
async fn a_subscriber_receives_what_matches_its_filter_in_order() {
    let operator = operator_with_subscribers(Of::Subscriber).await;
    let mut billing = Peer::subscriber(account(Of::Subscriber), "billing").await;

    let info = billing.request(INFO, headers(&[]), "").await;
    assert!(text(&info).contains(r#""num_pending":2"#), "{}", text(&info));

    let inbox = billing.client.new_inbox();
    let mut answers = billing.client.subscribe(inbox.clone()).await.unwrap();
    let pull = r#"{"batch":10,"expires":20000000000}"#;
    billing.client.publish_with_reply(NEXT, inbox, pull.into()).await.unwrap();
    for wanted in ["users.v1.registered.x", "users.v1.deleted.x"] {
        let message = timeout(WAIT_MAX, answers.next()).await.unwrap().unwrap();
        assert_eq!(message.subject.as_str(), wanted);
        let ack = message.reply.unwrap();
        assert!(ack.starts_with("$JS.ACK."), "{ack}");
        // The server confirms it, through both accounts.
        billing.request(&ack, headers(&[]), "+ACK").await;
    }
    let info = billing.request(INFO, headers(&[]), "").await;
    assert!(text(&info).contains(r#""num_pending":0"#), "{}", text(&info));
    assert!(text(&info).contains(r#""num_ack_pending":0"#), "{}", text(&info));

    // The states that it starts with, which are removed when they are acknowledged.
    let subject = "feed.CONSUMER.MSG.NEXT.USER_SNAPSHOTS.billing";
    assert_eq!(text(&take_one(&billing, subject).await), "state");
    billing.has_no_report().await;
    let context = jetstream::new(operator.client.clone());
    let left = context.get_stream(SNAPSHOTS).await.unwrap().get_info().await.unwrap().state;
    assert_eq!(left.messages, 0);
}

/// With `max_ack_pending` 1, the order survives a crash of the subscriber: the unacknowledged message is redelivered
/// before any other. Its pending requests end with its connection, also through two accounts.
#[tokio::test]
async fn the_order_survives_a_crash_of_the_subscriber() {
    let operator = operator_with_subscribers(Of::Answers).await;
    let dying = Peer::subscriber(account(Of::Answers), "billing").await;
    let inbox = dying.client.new_inbox();
    let mut answers = dying.client.subscribe(inbox.clone()).await.unwrap();
    let pull = r#"{"batch":100,"expires":600000000000}"#;
    dying.client.publish_with_reply(NEXT, inbox, pull.into()).await.unwrap();
    let first = timeout(WAIT_MAX, answers.next()).await.unwrap().unwrap();
    assert_eq!(first.subject.as_str(), "users.v1.registered.x");
    drop((answers, dying));

    let heir = Peer::subscriber(account(Of::Answers), "billing").await;
    operator.request("users.v1.deleted.y", headers(&[]), "later").await;
    for wanted in ["users.v1.registered.x", "users.v1.deleted.x", "users.v1.deleted.y"] {
        assert_eq!(take_one(&heir, NEXT).await.subject.as_str(), wanted);
    }
}

/// The server does not check the reply subject of a request.
#[tokio::test]
async fn an_answer_to_a_subscriber_reaches_no_stream() {
    let operator = operator_with_subscribers(Of::Bait).await;
    let context = jetstream::new(operator.client.clone());
    let messages = async |stream: &str| {
        context.get_stream(stream).await.unwrap().get_info().await.unwrap().state.messages
    };
    // Within the account of the streams, the answer is stored in the log.
    let next = "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.other";
    operator.client.publish_with_reply(next, "ev.user.victim", "".into()).await.unwrap();
    let stored = async { while messages(STREAM).await == 0 {} };
    timeout(WAIT_MAX, stored).await.unwrap();

    let mut billing = Peer::subscriber(account(Of::Bait), "billing").await;
    for place in ["ev.user.x", "users.v1.registered.y", "snapshot.v1.billing.y", "er.session.x"] {
        billing.client.publish_with_reply(NEXT, place, "".into()).await.unwrap();
        billing.client.publish_with_reply(INFO, place, "".into()).await.unwrap();
    }
    // Requests are answered in order; this one is the last.
    billing.request(INFO, headers(&[]), "").await;
    assert_eq!(take_one(&billing, NEXT).await.subject.as_str(), "users.v1.registered.x");
    billing.has_no_report().await;
    assert_eq!((messages(STREAM).await, messages(FEED).await), (1, 3));
    assert_eq!((messages(SNAPSHOTS).await, messages(SESSIONS).await), (1, 0));
}

#[tokio::test]
async fn a_subscriber_can_do_nothing_else() {
    let operator = operator_with_subscribers(Of::DeniedSubscriber).await;
    let mut billing = Peer::subscriber(account(Of::DeniedSubscriber), "billing").await;
    for subject in [
        // Consumers of others, and its own with another filter.
        "feed.CONSUMER.MSG.NEXT.USER_EVENTS.other",
        "feed.CONSUMER.MSG.NEXT.USER_SNAPSHOTS.other",
        "feed.CONSUMER.INFO.USER_EVENTS.other",
        "feed.CONSUMER.CREATE.USER_EVENTS.billing",
        "feed.CONSUMER.DELETE.USER_EVENTS.billing",
        "feed.CONSUMER.MSG.NEXT.USERS.mailer",
        "feed.STREAM.INFO.USER_EVENTS",
        "feed.STREAM.MSG.GET.USERS",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.billing",
        "$JS.API.CONSUMER.INFO.USER_EVENTS.billing",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.other",
        "$JS.API.CONSUMER.MSG.NEXT.USER_SNAPSHOTS.other",
        "$JS.API.CONSUMER.INFO.USER_EVENTS.other",
        "$JS.API.CONSUMER.CREATE.USER_EVENTS",
        "$JS.API.CONSUMER.CREATE.USER_EVENTS.billing",
        "$JS.API.CONSUMER.CREATE.USER_EVENTS.billing.users.v1.>",
        "$JS.API.CONSUMER.CREATE.USER_EVENTS.mine.users.v1.>",
        "$JS.API.CONSUMER.DURABLE.CREATE.USER_EVENTS.billing",
        "$JS.API.CONSUMER.DELETE.USER_EVENTS.billing",
        "$JS.API.CONSUMER.DELETE.USER_EVENTS.other",
        "$JS.API.CONSUMER.PAUSE.USER_EVENTS.other",
        "$JS.API.CONSUMER.UNPIN.USER_EVENTS.billing",
        "$JS.API.CONSUMER.LIST.USER_EVENTS",
        "$JS.API.CONSUMER.NAMES.USER_EVENTS",
        "$JS.ACK.USER_EVENTS.other.1.1.1.1.0",
        "$JS.ACK.hub.account.USER_EVENTS.other.1.1.1.1.0",
        "$JS.ACK.USERS.mailer.1.1.1.1.0",
        // The audit.
        "op.provision",
        "$JS.API.STREAM.MSG.GET.OPERATIONS",
        // The whole feed.
        "$JS.API.STREAM.INFO.USER_EVENTS",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.MSG.GET.USER_EVENTS",
        "$JS.API.STREAM.MSG.DELETE.USER_EVENTS",
        "$JS.API.STREAM.PURGE.USER_EVENTS",
        "$JS.API.STREAM.UPDATE.USER_EVENTS",
        "$JS.API.STREAM.DELETE.USER_EVENTS",
        "$JS.API.STREAM.SNAPSHOT.USER_EVENTS",
        "$JS.API.DIRECT.GET.USER_EVENTS",
        "$JS.API.DIRECT.GET.USER_EVENTS.users.v1.registered.x",
        "$JS.API.INFO",
        "$JS.FC.USER_EVENTS.other.x",
        // The log.
        "$JS.API.STREAM.MSG.GET.USERS",
        "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
        "$JS.API.CONSUMER.CREATE.USERS.mine.ev.user.*",
        "ev.user.x",
        "sec.user.x",
        "rv.user.x",
        // Writing to the feed, to other users and to the server.
        "users.v1.registered.x",
        "sessions.v1.started.x",
        "snapshot.v1.billing.x",
        "roster.position.users",
        "_INBOX_other.reply",
        "_INBOX_projector.reply",
        "_INBOX.reply",
        "_R_.reply",
        "$SYS.REQ.USER.INFO",
        "$SYS.REQ.SERVER.PING",
        "anything",
    ] {
        billing.is_denied_publish(subject).await;
    }
    for subject in [
        ">",
        "*",
        "users.v1.>",
        "users.v1.registered.x",
        "sessions.v1.*.*",
        "snapshot.v1.>",
        "ev.user.*",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.EVENT.ADVISORY.>",
        "$SYS.>",
        "_INBOX.>",
        "_INBOX_other.>",
        "_INBOX_projector.>",
        "_R_.>",
        "roster.position.*",
    ] {
        billing.is_denied_subscribe(subject).await;
    }
    billing.has_no_report().await;
    let context = jetstream::new(operator.client.clone());
    let state = context.get_stream(FEED).await.unwrap().get_info().await.unwrap().state;
    assert_eq!((state.messages, state.consumer_count), (3, 2));
}

/// A subscriber that keeps connecting exhausts its account's connections, and none of Roster's own services'.
#[tokio::test]
async fn subscribers_cannot_exhaust_the_connections_of_rosters_services() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let trust = TestTrust::with_accounts(1);
    let config = format!("max_connections: 1024\n{}", trust.server_config().unwrap());
    let options = NatsOptions { data_dir: data.nats(), port: None, config };
    let server = NatsServer::start(testing::binaries(), options).unwrap();
    let name = SubscriberName::parse("billing").unwrap();
    let creds = trust.account(0).subscriber_creds(&name).unwrap();
    let mut connections = Vec::new();
    let error = loop {
        let options = ConnectOptions::with_credentials(&creds).unwrap();
        match options.custom_inbox_prefix(name.inbox_prefix()).connect(server.url()).await {
            Ok(connection) => connections.push(connection),
            Err(error) => break error,
        }
        assert!(connections.len() <= 1_024, "the number of connections is not limited");
    };
    let held = i64::try_from(connections.len()).unwrap();
    assert_eq!(held, SUBSCRIBER_CONNECTIONS_MAX, "{error}");
    let creds = trust.account(0).creds(Role::CommandApi).unwrap();
    let mut commands = Peer::with_creds(&server.url(), &creds, Role::CommandApi).await.unwrap();
    commands.has_no_report().await;
}

#[tokio::test]
async fn limits_the_subscriptions_of_a_subscriber() {
    let _operator = operator_with_subscribers(Of::Subscriptions).await;
    let mut billing = Peer::subscriber(account(Of::Subscriptions), "billing").await;
    let mut held = Vec::new();
    for _ in 0..65 {
        held.push(billing.client.subscribe(billing.client.new_inbox()).await.unwrap());
    }
    billing.client.flush().await.unwrap();
    billing.reported("maximum subscriptions exceeded").await;
}

#[tokio::test]
async fn rejects_a_large_message_of_a_subscriber() {
    let _operator = operator_with_subscribers(Of::Payload).await;
    let mut billing = Peer::subscriber(account(Of::Payload), "billing").await;
    let large = vec![b' '; 64 * 1024 + 1];
    billing.client.publish(INFO, large.into()).await.unwrap();
    billing.reported("maximum payload violation").await;
}
