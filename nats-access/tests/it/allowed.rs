//! Every role can do its work with its permissions.

use async_nats::jetstream::consumer::pull::{Config, Ordered, OrderedConfig};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::{self, AckKind};
use futures::StreamExt as _;
use local_stack::{DataDir, NatsOptions, NatsServer, testing};
use nats_access::{Role, TestTrust};
use tokio::time::timeout;

use crate::support::{
    MAILER, MAILS, NOTICES, Of, Peer, SESSIONS, STREAM, WAIT_MAX, account, headers, make_streams,
    operator_with_stream, text,
};

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

    // Every kind of subject in one atomic batch.
    let subjects = [
        "uq.email.key",
        "uq.role.admin",
        "sec.user.two",
        "ik.key",
        "rv.user.two",
        "lk.verify.two",
        "ev.user.two",
    ];
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
    assert!(text(&last).contains(r#""count":7"#), "{}", text(&last));
    assert!(text(&last).contains(r#""seq":8"#), "{}", text(&last));

    let found = command_api.request(GET, headers(&[]), r#"{"last_by_subj":"ev.user.two"}"#).await;
    assert!(text(&found).contains(r#""seq":8"#), "{}", text(&found));
    let order = headers(&[("Nats-Expected-Last-Subject-Sequence", "0")]);
    let placed = command_api.request("mail.order.one", order, "order").await;
    assert!(text(&placed).contains(r#""stream":"MAILS""#), "{}", text(&placed));

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
    // The consumer also delivers later messages.
    operator.request("ev.user.two", headers(&[]), "").await;
    assert_eq!(next(&mut facts).await, (6, "ev.user.two".to_owned()));

    // The other way to the stream, which first requests its configuration.
    let stream = context.get_stream(STREAM).await.unwrap();
    let consumer = stream.create_consumer(ordered("other")).await.unwrap();
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
async fn projector_continues_when_its_consumer_is_deleted() {
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
async fn query_api_receives_the_position() {
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

#[tokio::test]
async fn mailer_pulls_from_its_consumers_and_acknowledges() {
    let account = account(Of::MailerPulls);
    let operator = operator_with_stream(account).await;
    let mut mailer = Peer::connect(account, Role::Mailer).await;
    let bucket = r#"{"name":"KV_THROTTLE_COUNTS","subjects":["$KV.THROTTLE_COUNTS.>"],"max_msgs_per_subject":1}"#;
    operator.request("$JS.API.STREAM.CREATE.KV_THROTTLE_COUNTS", headers(&[]), bucket).await;
    for stream in [STREAM, MAILS, "KV_THROTTLE_COUNTS"] {
        let info = format!("$JS.API.STREAM.INFO.{stream}");
        let info = mailer.request(&info, headers(&[]), "").await;
        assert!(text(&info).contains(r#""config""#), "{}", text(&info));
    }
    operator.request("ev.user.one", headers(&[]), "fact").await;
    let guard = headers(&[("Nats-Expected-Last-Subject-Sequence", "0")]);
    for subject in [
        "mail.order.one",
        "lk.verify.one",
        "mail.parked.other",
        "mail.notice.one",
        "$KV.THROTTLE_COUNTS.sent.one",
    ] {
        let stored = mailer.request(subject, guard.clone(), "order").await;
        assert!(text(&stored).contains(r#""seq""#), "{}", text(&stored));
    }
    let context = jetstream::new(mailer.client.clone());
    for (stream, subject) in [(STREAM, "ev.user.one"), (MAILS, "mail.order.one")] {
        let get = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let last = format!(r#"{{"last_by_subj":"{subject}"}}"#);
        let found = mailer.request(&get, headers(&[]), &last).await;
        assert!(text(&found).contains(subject), "{}", text(&found));

        let mut consumer: PullConsumer =
            context.get_consumer_from_stream(MAILER, stream).await.unwrap();
        // Every kind of acknowledgement: nak, in progress, ack.
        for (kind, deliveries) in [(AckKind::Nak(None), 1), (AckKind::Progress, 2)] {
            let message = pull(&consumer).await;
            let ack = message.reply.clone().unwrap();
            assert!(ack.starts_with(&format!("$JS.ACK.{stream}.{MAILER}.")), "{ack}");
            assert_eq!(message.info().unwrap().delivered, deliveries);
            message.double_ack_with(kind).await.unwrap();
            if deliveries == 2 {
                message.double_ack().await.unwrap();
            }
        }
        let info = consumer.info().await.unwrap();
        assert_eq!((info.num_pending, info.num_ack_pending), (0, 0));
    }
    let notices: PullConsumer = context.get_consumer_from_stream(NOTICES, MAILS).await.unwrap();
    let notice = pull(&notices).await;
    assert_eq!(notice.subject.as_str(), "mail.notice.one");
    notice.double_ack().await.unwrap();
    let count = r#"{"last_by_subj":"$KV.THROTTLE_COUNTS.sent.one"}"#;
    let count =
        mailer.request("$JS.API.STREAM.MSG.GET.KV_THROTTLE_COUNTS", headers(&[]), count).await;
    assert!(text(&count).contains("$KV.THROTTLE_COUNTS.sent.one"), "{}", text(&count));
    let mails = jetstream::new(operator.client.clone()).get_stream(MAILS).await.unwrap();
    let state = mails.get_info().await.unwrap().state;
    assert_eq!(state.messages, 1, "the acknowledged job is gone, the parked one stays");
    mailer.has_no_report().await;
}

/// The server's other form of acknowledgement, which contains domain and account.
#[tokio::test]
async fn mailer_acknowledges_on_the_longer_subject() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let trust = TestTrust::with_accounts(1);
    let config =
        format!("{}feature_flags {{ js_ack_fc_v2: true }}\n", trust.server_config().unwrap());
    let options = NatsOptions { data_dir: data.nats(), port: None, config };
    let server = NatsServer::start(testing::binaries(), options).unwrap();
    let connect = async |role| {
        let creds = trust.account(0).creds(role).unwrap();
        Peer::with_creds(&server.url(), &creds, role).await.unwrap()
    };
    let operator = connect(Role::Operator).await;
    make_streams(&operator).await;
    operator.request("mail.order.one", headers(&[]), "order").await;
    let mut mailer = connect(Role::Mailer).await;
    let context = jetstream::new(mailer.client.clone());
    let mut consumer: PullConsumer = context.get_consumer_from_stream(MAILER, MAILS).await.unwrap();
    let message = pull(&consumer).await;
    let ack = message.reply.clone().unwrap();
    assert!(!ack.starts_with("$JS.ACK.MAILS."), "{ack}");
    message.double_ack().await.unwrap();
    assert_eq!(consumer.info().await.unwrap().num_ack_pending, 0);
    mailer.has_no_report().await;
}

async fn pull(consumer: &PullConsumer) -> jetstream::Message {
    let mut messages = consumer.batch().max_messages(1).messages().await.unwrap();
    timeout(WAIT_MAX, messages.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn both_apis_follow_revocations() {
    let account = account(Of::RevocationsFollowed);
    let operator = operator_with_stream(account).await;
    for subject in ["ev.user.one", "rv.user.one", "ev.session.one.two", "rv.session.two"] {
        operator.request(subject, headers(&[]), subject).await;
    }
    for role in [Role::QueryApi, Role::CommandApi] {
        let mut peer = Peer::connect(account, role).await;
        let context = jetstream::new(peer.client.clone());
        for (stream, filter, wanted) in
            [(STREAM, "rv.user.*", "rv.user.one"), (SESSIONS, "rv.session.*", "rv.session.two")]
        {
            let stream = context.get_stream_no_info(stream).await.unwrap();
            let consumer = stream
                .create_consumer(Config {
                    name: Some(format!("follow-{role}")),
                    filter_subject: filter.to_owned(),
                    ack_policy: AckPolicy::None,
                    memory_storage: true,
                    ..Config::default()
                })
                .await
                .unwrap();
            assert_eq!(pull(&consumer).await.subject.as_str(), wanted);
        }
        peer.has_no_report().await;
    }
}

/// With an explicit name: without one, the request uses a subject that no service may publish to.
fn ordered(name: &str) -> OrderedConfig {
    OrderedConfig {
        name: Some(name.to_owned()),
        filter_subject: "ev.user.*".to_owned(),
        ..OrderedConfig::default()
    }
}

async fn facts<I>(stream: &jetstream::stream::Stream<I>) -> Ordered {
    stream.create_consumer(ordered("facts")).await.unwrap().messages().await.unwrap()
}

/// The position and the subject of the next fact. The client recovers from errors in between.
async fn next(facts: &mut Ordered) -> (u64, String) {
    let message = timeout(WAIT_MAX, async {
        loop {
            match facts.next().await.unwrap() {
                Ok(message) => return message,
                Err(error) => eprintln!("recovering from: {error}"),
            }
        }
    })
    .await
    .unwrap();
    (message.info().unwrap().stream_sequence, message.subject.to_string())
}
