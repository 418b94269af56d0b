//! Every role can do its work with what it has.

use async_nats::jetstream;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures::StreamExt as _;
use nats_access::Role;
use tokio::time::timeout;

use crate::support::{Of, Peer, STREAM, WAIT_MAX, account, headers, operator_with_stream, text};

const INFO: &str = "$JS.API.STREAM.INFO.USERS";
const GET: &str = "$JS.API.STREAM.MSG.GET.USERS";

#[tokio::test]
async fn command_api_appends_and_reads_back() {
    let account = account(Of::CommandApi);
    let _operator = operator_with_stream(account).await;
    let mut command_api = Peer::connect(account, Role::CommandApi).await;

    let info = command_api.request(INFO, headers(&[]), "").await;
    assert!(text(&info).contains(r#""name":"USERS""#), "{}", text(&info));

    let guard =
        headers(&[("Nats-Expected-Stream", STREAM), ("Nats-Expected-Last-Subject-Sequence", "0")]);
    let stored = command_api.request("ev.user.one", guard.clone(), "fact").await;
    assert!(text(&stored).contains(r#""seq":1"#), "{}", text(&stored));
    let conflict = command_api.request("ev.user.one", guard, "fact").await;
    assert!(text(&conflict).contains("10071"), "{}", text(&conflict));

    // Every kind of subject at once: whole or not at all.
    let subjects =
        ["uq.email.key", "uq.role.admin", "sec.user.two", "ik.key", "rv.user.two", "ev.user.two"];
    let mut last = None;
    for (index, subject) in subjects.iter().enumerate() {
        let sequence = (index + 1).to_string();
        let mut headers = headers(&[
            ("Nats-Batch-Id", "batch"),
            ("Nats-Batch-Sequence", &sequence),
            ("Nats-Expected-Last-Subject-Sequence", "0"),
        ]);
        if index + 1 == subjects.len() {
            headers.insert("Nats-Batch-Commit", "1");
        }
        last = Some(command_api.request(subject, headers, "part").await);
    }
    let last = last.unwrap();
    assert!(text(&last).contains(r#""count":6"#), "{}", text(&last));
    assert!(text(&last).contains(r#""seq":7"#), "{}", text(&last));

    let found = command_api.request(GET, headers(&[]), r#"{"last_by_subj":"ev.user.two"}"#).await;
    assert!(text(&found).contains(r#""seq":7"#), "{}", text(&found));

    let mut positions = command_api.client.subscribe("roster.position.*").await.unwrap();
    command_api.client.flush().await.unwrap();
    let projector = Peer::connect(account, Role::Projector).await;
    projector.client.publish("roster.position.users", "7".into()).await.unwrap();
    let position = timeout(WAIT_MAX, positions.next()).await.unwrap().unwrap();
    assert_eq!(text(&position), "7");
    command_api.has_no_report().await;
}

#[tokio::test]
async fn command_api_counts_attempts() {
    let account = account(Of::Throttle);
    let operator = Peer::connect(account, Role::Operator).await;
    let bucket = r#"{"name":"KV_THROTTLE","subjects":["$KV.THROTTLE.>"],"max_msgs_per_subject":1}"#;
    let made = operator.request("$JS.API.STREAM.CREATE.KV_THROTTLE", headers(&[]), bucket).await;
    assert!(text(&made).contains(r#""created""#), "{}", text(&made));

    let mut command_api = Peer::connect(account, Role::CommandApi).await;
    let info = "$JS.API.STREAM.INFO.KV_THROTTLE";
    let info = command_api.request(info, headers(&[]), "").await;
    assert!(text(&info).contains(r#""name":"KV_THROTTLE""#), "{}", text(&info));
    let guard = headers(&[("Nats-Expected-Last-Subject-Sequence", "0")]);
    let stored = command_api.request("$KV.THROTTLE.account.x", guard, "1").await;
    assert!(text(&stored).contains(r#""seq":1"#), "{}", text(&stored));
    let found = command_api
        .request(
            "$JS.API.STREAM.MSG.GET.KV_THROTTLE",
            headers(&[]),
            r#"{"last_by_subj":"$KV.THROTTLE.account.x"}"#,
        )
        .await;
    assert!(text(&found).contains(r#""seq":1"#), "{}", text(&found));
    command_api.has_no_report().await;
}

#[tokio::test]
async fn projector_reads_the_facts_in_order() {
    let account = account(Of::Projector);
    let operator = operator_with_stream(account).await;
    for subject in ["ev.user.one", "sec.user.one", "ev.user.two", "uq.email.key", "ev.user.one"] {
        operator.request(subject, headers(&[]), subject).await;
    }
    let mut projector = Peer::connect(account, Role::Projector).await;

    let context = jetstream::new(projector.client.clone());
    let mut facts = facts(&context.get_stream_no_info(STREAM).await.unwrap()).await;
    for wanted in [(1, "ev.user.one"), (3, "ev.user.two"), (5, "ev.user.one")] {
        assert_eq!(next(&mut facts).await, (wanted.0, wanted.1.to_owned()));
    }
    // What comes later as well, and not only what was there.
    operator.request("ev.user.two", headers(&[]), "").await;
    assert_eq!(next(&mut facts).await, (6, "ev.user.two".to_owned()));

    // The other way to the stream, which asks for its configuration first.
    let stream = context.get_stream(STREAM).await.unwrap();
    let consumer = stream.create_consumer(ordered()).await.unwrap();
    let name = consumer.cached_info().name.clone();
    let info = stream.consumer_info(&name).await.unwrap();
    assert_eq!(info.num_pending, 4);
    assert!(stream.delete_consumer(&name).await.unwrap().success);
    let found = projector.request(GET, headers(&[]), r#"{"seq":3}"#).await;
    assert!(text(&found).contains("ev.user.two"), "{}", text(&found));
    projector.client.publish("roster.position.users", "6".into()).await.unwrap();
    projector.has_no_report().await;
}

#[tokio::test]
async fn projector_goes_on_when_its_consumer_is_gone() {
    let account = account(Of::ProjectorRecovery);
    let operator = operator_with_stream(account).await;
    operator.request("ev.user.one", headers(&[]), "").await;
    let mut projector = Peer::connect(account, Role::Projector).await;
    let context = jetstream::new(projector.client.clone());
    let mut facts = facts(&context.get_stream_no_info(STREAM).await.unwrap()).await;
    assert_eq!(next(&mut facts).await, (1, "ev.user.one".to_owned()));

    let stream = jetstream::new(operator.client.clone()).get_stream(STREAM).await.unwrap();
    let mut names = stream.consumer_names();
    while let Some(name) = names.next().await {
        stream.delete_consumer(&name.unwrap()).await.unwrap();
    }
    operator.request("ev.user.two", headers(&[]), "").await;
    assert_eq!(next(&mut facts).await, (2, "ev.user.two".to_owned()));
    projector.has_no_report().await;
}

#[tokio::test]
async fn query_api_hears_the_position() {
    let account = account(Of::QueryApi);
    let mut query_api = Peer::connect(account, Role::QueryApi).await;
    let mut positions = query_api.client.subscribe("roster.position.*").await.unwrap();
    let inbox = query_api.client.new_inbox();
    let mut replies = query_api.client.subscribe(inbox.clone()).await.unwrap();
    query_api.client.flush().await.unwrap();

    let projector = Peer::connect(account, Role::Projector).await;
    projector.client.publish("roster.position.users", "1".into()).await.unwrap();
    let position = timeout(WAIT_MAX, positions.next()).await.unwrap().unwrap();
    assert_eq!(text(&position), "1");
    let operator = Peer::connect(account, Role::Operator).await;
    operator.client.publish(inbox, "reply".into()).await.unwrap();
    let reply = timeout(WAIT_MAX, replies.next()).await.unwrap().unwrap();
    assert_eq!(text(&reply), "reply");
    query_api.has_no_report().await;
}

fn ordered() -> OrderedConfig {
    OrderedConfig { filter_subject: "ev.user.*".to_owned(), ..OrderedConfig::default() }
}

async fn facts<I>(stream: &jetstream::stream::Stream<I>) -> Ordered {
    stream.create_consumer(ordered()).await.unwrap().messages().await.unwrap()
}

/// The next fact: its position and its subject. An error in between is one the client mends.
async fn next(facts: &mut Ordered) -> (u64, String) {
    let message = timeout(WAIT_MAX, async {
        loop {
            match facts.next().await.unwrap() {
                Ok(message) => return message,
                Err(error) => eprintln!("to be mended: {error}"),
            }
        }
    })
    .await
    .unwrap();
    (message.info().unwrap().stream_sequence, message.subject.to_string())
}
