//! A peer service can do its work with the permissions derived from its names, and nothing else.

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::{self, stream};
use events::ServiceNames;
use futures::StreamExt as _;
use local_stack::{DataDir, NatsOptions, NatsServer, testing};
use nats_access::{Role, ServiceUser, TestTrust};
use tokio::time::timeout;

use crate::support::{
    FEED, MAILS, Of, Peer, SESSIONS, SNAPSHOTS, STREAM, WAIT_MAX, account, filter_of_mailer,
    headers, make_streams, operator_with_stream, text,
};

const PRODUCT: ServiceNames = ServiceNames::fixed("product", "products");
const ORDER: ServiceNames = ServiceNames::fixed("order", "orders");
const DELETIONS: &str = "users.v1.deleted.*";

/// An operator who has also provisioned two services.
async fn operator_with_services(of: Of) -> Peer {
    let operator = operator_with_stream(account(of)).await;
    for names in [PRODUCT, ORDER] {
        provision(&operator, &names).await;
    }
    operator
}

/// Creates the streams of a service and its consumer of Roster's feed.
async fn provision(operator: &Peer, names: &ServiceNames) {
    let context = jetstream::new(operator.client.clone());
    for (name, subjects) in [
        (names.log_stream(), names.log_subjects().to_vec()),
        (names.feed_stream(), names.feed_subjects().to_vec()),
    ] {
        let config = stream::Config {
            name,
            subjects,
            max_bytes: 1024 * 1024,
            allow_atomic_publish: true,
            allow_message_ttl: true,
            ..stream::Config::default()
        };
        context.create_stream(config).await.unwrap();
    }
    let config = Config {
        durable_name: Some(names.consumer()),
        filter_subject: DELETIONS.to_owned(),
        ..Config::default()
    };
    context.create_consumer_on_stream(config, FEED).await.unwrap();
}

async fn product(of: Of) -> Peer {
    Peer::service(account(of), &ServiceUser::service(&PRODUCT)).await
}

/// A consumer with which a service follows a stream.
async fn following(peer: &Peer, stream: &str, filter: &str) -> PullConsumer {
    let context = jetstream::new(peer.client.clone());
    let stream = context.get_stream_no_info(stream).await.unwrap();
    stream
        .create_consumer(Config {
            name: Some(format!("follow-{}", stream_safe(filter))),
            filter_subject: filter.to_owned(),
            ack_policy: AckPolicy::None,
            memory_storage: true,
            ..Config::default()
        })
        .await
        .unwrap()
}

fn stream_safe(filter: &str) -> String {
    filter.replace(['.', '*'], "-")
}

async fn pull(consumer: &PullConsumer) -> jetstream::Message {
    let mut messages = consumer.batch().max_messages(1).messages().await.unwrap();
    timeout(WAIT_MAX, messages.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test]
async fn a_service_writes_and_reads_its_own_streams() {
    let operator = operator_with_services(Of::Service).await;
    let mut product = product(Of::Service).await;

    // A fact and its idempotency record in one atomic batch.
    let mut last = None;
    for (index, subject) in ["ik.product.key", "ev.product.one"].iter().enumerate() {
        let sequence = (index + 1).to_string();
        let mut headers = headers(&[
            ("Nats-Batch-Id", "batch"),
            ("Nats-Batch-Sequence", &sequence),
            ("Nats-Expected-Last-Subject-Sequence", "0"),
        ]);
        if index == 1 {
            headers.insert("Nats-Batch-Commit", "1");
        }
        last = Some(product.request(subject, headers, "part").await);
    }
    let last = last.unwrap();
    assert!(text(&last).contains(r#""count":2"#), "{}", text(&last));

    for stream in ["PRODUCTS", "PRODUCT_EVENTS"] {
        let info =
            product.request(&format!("$JS.API.STREAM.INFO.{stream}"), headers(&[]), "").await;
        assert!(text(&info).contains(&format!(r#""name":"{stream}""#)), "{}", text(&info));
    }
    let get = "$JS.API.STREAM.MSG.GET.PRODUCTS";
    let found = product.request(get, headers(&[]), r#"{"last_by_subj":"ev.product.one"}"#).await;
    assert!(text(&found).contains(r#""seq":2"#), "{}", text(&found));
    let published = product.request("products.v1.added.one", headers(&[]), "published").await;
    assert!(text(&published).contains(r#""stream":"PRODUCT_EVENTS""#), "{}", text(&published));
    let get = "$JS.API.STREAM.MSG.GET.PRODUCT_EVENTS";
    let found = product.request(get, headers(&[]), r#"{"seq":1}"#).await;
    assert!(text(&found).contains("products.v1.added.one"), "{}", text(&found));

    // The position of its views, announced by one of its processes to all; and a retry request of its operator.
    let mut positions = product.client.subscribe("roster.position.products").await.unwrap();
    let mut requests = product.client.subscribe("roster.parked.products").await.unwrap();
    product.client.publish("roster.position.products", "7".into()).await.unwrap();
    let position = timeout(WAIT_MAX, positions.next()).await.unwrap().unwrap();
    assert_eq!(text(&position), "7");
    operator.client.publish("roster.parked.products", "again".into()).await.unwrap();
    let request = timeout(WAIT_MAX, requests.next()).await.unwrap().unwrap();
    assert_eq!(text(&request), "again");
    product.has_no_report().await;
}

#[tokio::test]
async fn a_service_follows_its_log_and_revocations_and_reads_the_feed() {
    let operator = operator_with_services(Of::ServiceFollows).await;
    let mut product = product(Of::ServiceFollows).await;
    for subject in [
        "ik.product.key",
        "ev.product.one",
        "ev.user.one",
        "rv.user.one",
        "ev.session.one.two",
        "rv.session.two",
        "users.v1.registered.one",
        "users.v1.deleted.one",
    ] {
        operator.request(subject, headers(&[]), subject).await;
    }
    for (stream, filter, wanted) in [
        ("PRODUCTS", "ev.product.*", "ev.product.one"),
        (STREAM, "rv.user.*", "rv.user.one"),
        (SESSIONS, "rv.session.*", "rv.session.two"),
    ] {
        let consumer = following(&product, stream, filter).await;
        assert_eq!(pull(&consumer).await.subject.as_str(), wanted);
    }
    let context = jetstream::new(product.client.clone());
    let mut own: PullConsumer =
        context.get_consumer_from_stream(PRODUCT.consumer(), FEED).await.unwrap();
    let message = pull(&own).await;
    assert_eq!(message.subject.as_str(), "users.v1.deleted.one");
    let ack = message.reply.clone().unwrap();
    assert!(ack.starts_with("$JS.ACK.USER_EVENTS.product-service."), "{ack}");
    message.double_ack().await.unwrap();
    let info = own.info().await.unwrap();
    assert_eq!((info.num_pending, info.num_ack_pending), (0, 0));
    product.has_no_report().await;
}

/// The server's other form of acknowledgement, which contains domain and account.
#[tokio::test]
async fn a_service_acknowledges_on_the_longer_subject() {
    let folder = testing::temp_dir();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let trust = TestTrust::with_accounts(1);
    let config =
        format!("{}feature_flags {{ js_ack_fc_v2: true }}\n", trust.server_config().unwrap());
    let options = NatsOptions { data_dir: data.nats(), port: None, config };
    let server = NatsServer::start(testing::binaries(), options).unwrap();
    let creds = trust.account(0).creds(Role::Operator).unwrap();
    let operator = Peer::with_creds(&server.url(), &creds, Role::Operator).await.unwrap();
    make_streams(&operator).await;
    provision(&operator, &PRODUCT).await;
    operator.request("users.v1.deleted.one", headers(&[]), "gone").await;

    let user = ServiceUser::service(&PRODUCT);
    let mut product = Peer::service_at(&server.url(), trust.account(0), &user).await;
    let context = jetstream::new(product.client.clone());
    let mut own: PullConsumer =
        context.get_consumer_from_stream(PRODUCT.consumer(), FEED).await.unwrap();
    let message = pull(&own).await;
    let ack = message.reply.clone().unwrap();
    assert!(!ack.starts_with("$JS.ACK.USER_EVENTS."), "{ack}");
    message.double_ack().await.unwrap();
    assert_eq!(own.info().await.unwrap().num_ack_pending, 0);
    product.has_no_report().await;
}

#[tokio::test]
async fn a_verifier_follows_revocations() {
    let operator = operator_with_services(Of::Verifier).await;
    for subject in ["ev.user.one", "rv.user.one", "ev.session.one.two", "rv.session.two"] {
        operator.request(subject, headers(&[]), subject).await;
    }
    let mut verifier = Peer::service(account(Of::Verifier), &ServiceUser::verifier(&PRODUCT)).await;
    for (stream, filter, wanted) in
        [(STREAM, "rv.user.*", "rv.user.one"), (SESSIONS, "rv.session.*", "rv.session.two")]
    {
        let consumer = following(&verifier, stream, filter).await;
        assert_eq!(pull(&consumer).await.subject.as_str(), wanted);
    }
    verifier.has_no_report().await;
}

/// Subjects that belong to the operator, to Roster or to other services.
const FOREIGN_SUBJECTS: &[&str] = &[
    // Logs and feeds.
    "ev.user.x",
    "ev.session.x.y",
    "sec.user.x",
    "uq.email.x",
    "ik.x",
    "rv.user.x",
    "rv.session.x",
    "lk.verify.x",
    "er.session.x",
    "mail.order.x",
    "op.provision",
    "users.v1.registered.x",
    "sessions.v1.started.x",
    "snapshot.v1.billing.x",
    "$KV.THROTTLE.account.x",
    "ev.order.x",
    "ik.order.x",
    "orders.v1.added.x",
    "roster.position.users",
    "roster.position.orders",
    "roster.parked.retry",
    "roster.parked.products",
    // Streams.
    "$JS.API.STREAM.INFO.USERS",
    "$JS.API.STREAM.INFO.SESSIONS",
    "$JS.API.STREAM.INFO.USER_EVENTS",
    "$JS.API.STREAM.INFO.ORDERS",
    "$JS.API.STREAM.INFO.OPERATIONS",
    "$JS.API.STREAM.MSG.GET.USERS",
    "$JS.API.STREAM.MSG.GET.SESSIONS",
    "$JS.API.STREAM.MSG.GET.USER_EVENTS",
    "$JS.API.STREAM.MSG.GET.ORDERS",
    "$JS.API.STREAM.MSG.GET.ORDER_EVENTS",
    "$JS.API.STREAM.MSG.DELETE.USERS",
    "$JS.API.STREAM.MSG.DELETE.PRODUCTS",
    "$JS.API.STREAM.MSG.DELETE.PRODUCT_EVENTS",
    "$JS.API.STREAM.CREATE.PRODUCTS",
    "$JS.API.STREAM.CREATE.OTHER",
    "$JS.API.STREAM.UPDATE.PRODUCTS",
    "$JS.API.STREAM.PURGE.PRODUCTS",
    "$JS.API.STREAM.PURGE.PRODUCT_EVENTS",
    "$JS.API.STREAM.DELETE.PRODUCTS",
    "$JS.API.STREAM.SNAPSHOT.PRODUCTS",
    "$JS.API.STREAM.RESTORE.PRODUCTS",
    "$JS.API.STREAM.UPDATE.USERS",
    "$JS.API.STREAM.PURGE.USERS",
    "$JS.API.STREAM.DELETE.USERS",
    "$JS.API.STREAM.NAMES",
    "$JS.API.STREAM.LIST",
    "$JS.API.DIRECT.GET.PRODUCTS",
    "$JS.API.DIRECT.GET.USERS",
    "$JS.API.INFO",
    // Consumers of others, and its own with another filter.
    "$JS.API.CONSUMER.CREATE.USERS",
    "$JS.API.CONSUMER.CREATE.USERS.mine",
    "$JS.API.CONSUMER.CREATE.USERS.mine.ev.user.*",
    "$JS.API.CONSUMER.CREATE.USERS.mailer.rv.user.*",
    "$JS.API.CONSUMER.CREATE.USERS.eraser.rv.user.*",
    "$JS.API.CONSUMER.CREATE.SESSIONS.mine.ev.session.*.*",
    "$JS.API.CONSUMER.CREATE.PRODUCTS",
    "$JS.API.CONSUMER.CREATE.PRODUCTS.mine",
    "$JS.API.CONSUMER.CREATE.PRODUCTS.mine.ik.product.*",
    "$JS.API.CONSUMER.CREATE.PRODUCT_EVENTS.mine.products.v1.*.*",
    "$JS.API.CONSUMER.CREATE.ORDERS.mine.ev.order.*",
    "$JS.API.CONSUMER.CREATE.USER_EVENTS",
    "$JS.API.CONSUMER.CREATE.USER_EVENTS.product-service",
    "$JS.API.CONSUMER.CREATE.USER_EVENTS.product-service.users.v1.*.*",
    "$JS.API.CONSUMER.CREATE.USER_EVENTS.mine.users.v1.deleted.*",
    "$JS.API.CONSUMER.DURABLE.CREATE.USER_EVENTS.product-service",
    "$JS.API.CONSUMER.DURABLE.CREATE.PRODUCTS.mine",
    "$JS.API.CONSUMER.DELETE.USER_EVENTS.product-service",
    "$JS.API.CONSUMER.DELETE.USERS.mine",
    "$JS.API.CONSUMER.PAUSE.USER_EVENTS.product-service",
    "$JS.API.CONSUMER.INFO.USER_EVENTS.order-service",
    "$JS.API.CONSUMER.INFO.USERS.mailer",
    "$JS.API.CONSUMER.LIST.USER_EVENTS",
    "$JS.API.CONSUMER.NAMES.USERS",
    "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.order-service",
    "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.billing",
    "$JS.API.CONSUMER.MSG.NEXT.USERS.mailer",
    "$JS.API.CONSUMER.MSG.NEXT.USERS.eraser",
    "$JS.API.CONSUMER.MSG.NEXT.ORDERS.mine",
    "$JS.API.CONSUMER.MSG.NEXT.PRODUCT_EVENTS.mine",
    "$JS.ACK.USER_EVENTS.order-service.1.1.1.1.0",
    "$JS.ACK.x.y.USER_EVENTS.order-service.1.1.1.1.0",
    "$JS.ACK.USERS.mailer.1.1.1.1.0",
    // Reply subjects of others, the server, and everything else.
    "_INBOX.reply",
    "_INBOX_projector.reply",
    "_INBOX_order-service.reply",
    "$SYS.REQ.USER.INFO",
    "$SYS.REQ.SERVER.PING",
    "feed.CONSUMER.INFO.USER_EVENTS.product-service",
    "anything",
];

/// Subjects that none of them may subscribe to.
const PRIVATE: &[&str] = &[
    ">",
    "*",
    "ev.>",
    "ev.user.*",
    "ev.product.*",
    "ik.product.*",
    "products.v1.*.*",
    "users.v1.>",
    "rv.user.*",
    "ev.order.*",
    "roster.>",
    "roster.position.*",
    "roster.position.users",
    "roster.position.orders",
    "roster.parked.retry",
    "roster.parked.orders",
    "_INBOX.>",
    "_INBOX_projector.>",
    "_INBOX_order-service.>",
    "$JS.>",
    "$JS.ACK.>",
    "$JS.EVENT.ADVISORY.>",
    "$SYS.>",
];

/// Tries everything and checks that nothing happened.
async fn can_do_nothing(of: Of, user: &ServiceUser, publish: &[&str], subscribe: &[&str]) {
    let operator = operator_with_services(of).await;
    let before = state(&operator).await;
    let mut peer = Peer::service(account(of), user).await;
    for subject in FOREIGN_SUBJECTS.iter().chain(publish) {
        peer.is_denied_publish(subject).await;
    }
    for subject in PRIVATE.iter().chain(subscribe) {
        peer.is_denied_subscribe(subject).await;
    }
    peer.has_no_report().await;
    assert_eq!(state(&operator).await, before);
    assert_eq!(filter_of_mailer(&operator).await, "ev.user.*");
    let context = jetstream::new(operator.client.clone());
    for names in [PRODUCT, ORDER] {
        let consumer: PullConsumer =
            context.get_consumer_from_stream(names.consumer(), FEED).await.unwrap();
        assert_eq!(consumer.cached_info().config.filter_subject, DELETIONS);
    }
}

/// The numbers of messages and consumers of every stream.
async fn state(operator: &Peer) -> Vec<(&'static str, u64, usize)> {
    let context = jetstream::new(operator.client.clone());
    let mut state = Vec::new();
    for name in [STREAM, SESSIONS, FEED, "PRODUCTS", "PRODUCT_EVENTS", "ORDERS", "ORDER_EVENTS"] {
        let of = context.get_stream(name).await.unwrap().get_info().await.unwrap().state;
        state.push((name, of.messages, of.consumer_count));
    }
    state
}

#[tokio::test]
async fn a_service_can_do_nothing_else() {
    let publish =
        ["ev.product.one.deeper", "ik.product", "products.v2.added.one", "products.v1.added"];
    let subscribe = ["_INBOX_product-verifier.>"];
    let user = ServiceUser::service(&PRODUCT);
    can_do_nothing(Of::DeniedService, &user, &publish, &subscribe).await;
}

#[tokio::test]
async fn a_verifier_can_do_nothing_else() {
    let publish = [
        "ev.product.x",
        "ik.product.x",
        "products.v1.added.x",
        "roster.position.products",
        "$JS.API.STREAM.INFO.PRODUCTS",
        "$JS.API.STREAM.MSG.GET.PRODUCTS",
        "$JS.API.STREAM.MSG.GET.PRODUCT_EVENTS",
        "$JS.API.CONSUMER.CREATE.PRODUCTS.mine.ev.product.*",
        "$JS.API.CONSUMER.MSG.NEXT.PRODUCTS.mine",
        "$JS.API.CONSUMER.INFO.USER_EVENTS.product-service",
        "$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.product-service",
        "$JS.ACK.USER_EVENTS.product-service.1.1.1.1.0",
        "$JS.ACK.x.y.USER_EVENTS.product-service.1.1.1.1.0",
    ];
    let subscribe =
        ["_INBOX_product-service.>", "roster.position.products", "roster.parked.products"];
    let user = ServiceUser::verifier(&PRODUCT);
    can_do_nothing(Of::DeniedVerifier, &user, &publish, &subscribe).await;
}

/// The subject that permissions allow names one filter; the payload must not name another one.
#[tokio::test]
async fn the_filter_in_the_payload_must_match_the_subject() {
    let operator = operator_with_services(Of::ServiceFilters).await;
    let before = state(&operator).await;
    let mut product = product(Of::ServiceFilters).await;
    for (subject, stream, filters) in [
        (
            "$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*",
            "USERS",
            r#""filter_subject":"ev.user.*""#,
        ),
        (
            "$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*",
            "USERS",
            r#""filter_subject":"sec.user.*""#,
        ),
        (
            "$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*",
            "USERS",
            r#""filter_subjects":["ev.user.*","sec.user.*"]"#,
        ),
        ("$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*", "USERS", r#""description":"everything""#),
        (
            "$JS.API.CONSUMER.CREATE.SESSIONS.mine.rv.session.*",
            "SESSIONS",
            r#""filter_subject":"ev.session.*.*""#,
        ),
        (
            "$JS.API.CONSUMER.CREATE.PRODUCTS.mine.ev.product.*",
            "PRODUCTS",
            r#""filter_subject":"ik.product.*""#,
        ),
        // Another stream and another consumer than those in the subject.
        (
            "$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*",
            "USER_EVENTS",
            r#""filter_subject":"rv.user.*""#,
        ),
    ] {
        let payload = format!(
            r#"{{"stream_name":"{stream}","config":{{"name":"mine","ack_policy":"none",{filters}}}}}"#
        );
        let answer = product.request(subject, headers(&[]), &payload).await;
        assert!(text(&answer).contains(r#""error""#), "{payload}: {}", text(&answer));
    }
    let other = r#"{"stream_name":"USERS","config":{"name":"mailer","durable_name":"mailer","ack_policy":"explicit","filter_subject":"rv.user.*"}}"#;
    let subject = "$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*";
    let answer = product.request(subject, headers(&[]), other).await;
    assert!(text(&answer).contains(r#""error""#), "{}", text(&answer));
    product.has_no_report().await;
    assert_eq!(state(&operator).await, before);
    assert_eq!(filter_of_mailer(&operator).await, "ev.user.*");
}

/// Every kind of subject that Roster's streams store.
const STORED_SUBJECTS: &[&str] = &[
    "sec.user.x",
    "uq.email.x",
    "uq.role.admin",
    "rv.user.x",
    "lk.password.x",
    "ik.x",
    "ev.session.x.y",
    "rv.session.x",
    "er.session.x",
    "mail.order.x",
    "mail.parked.x",
    "users.v1.registered.x",
    "sessions.v1.started.x",
    "snapshot.v1.billing.x",
    "$JS.API.STREAM.PURGE.USERS",
    "$JS.API.STREAM.MSG.DELETE.USERS",
];
/// More users than a projector parks before it stops.
const INVENTED_USERS: usize = 12;

/// The server does not check the reply subject of a request: within the account of the streams, it stores the answer
/// there.
async fn answers_reach_no_log(of: Of, user: &ServiceUser, requests: &[(&str, &str)]) {
    let operator = operator_with_services(of).await;
    operator.request("users.v1.deleted.one", headers(&[]), "gone").await;
    operator.request("rv.user.one", headers(&[]), "5").await;
    operator.request("ev.product.zero", headers(&[]), "5").await;
    // The same request from a user within the account.
    let create = "$JS.API.CONSUMER.CREATE.USERS.own.rv.user.*";
    let make = r#"{"stream_name":"USERS","config":{"name":"own","ack_policy":"none","filter_subject":"rv.user.*"}}"#;
    operator.client.publish_with_reply(create, "ev.user.victim", make.into()).await.unwrap();
    let context = jetstream::new(operator.client.clone());
    let users = context.get_stream(STREAM).await.unwrap();
    let stored = async { while users.get_info().await.unwrap().state.messages < 2 {} };
    timeout(WAIT_MAX, stored).await.unwrap();

    let messages = async || {
        let mut counts = Vec::new();
        for (name, messages, _) in state(&operator).await {
            counts.push((name, messages));
        }
        for name in [MAILS, SNAPSHOTS] {
            let info = context.get_stream(name).await.unwrap().get_info().await.unwrap();
            counts.push((name, info.state.messages));
        }
        counts
    };
    let before = messages().await;
    let mut peer = Peer::service(account(of), user).await;
    let invented: Vec<_> = (0..INVENTED_USERS).map(|n| format!("ev.user.invented-{n}")).collect();
    for place in STORED_SUBJECTS.iter().copied().chain(invented.iter().map(String::as_str)) {
        for (subject, payload) in requests {
            let (subject, payload) = ((*subject).to_owned(), (*payload).to_owned());
            let place = place.to_owned();
            peer.client.publish_with_reply(subject, place, payload.into()).await.unwrap();
        }
    }
    // Requests are answered in order, and this one is the last.
    let answer = peer.request(LAST, headers(&[]), MAKE_LAST).await;
    assert!(text(&answer).contains("consumer_create_response"), "{}", text(&answer));
    // The server received everything and denied nothing: the result is what counts.
    peer.has_no_report().await;
    assert_eq!(messages().await, before);
}

/// A request for a consumer of revocations.
const MAKE_LAST: &str = r#"{"stream_name":"USERS","config":{"name":"last","ack_policy":"none","filter_subject":"rv.user.*"}}"#;
const LAST: &str = "$JS.API.CONSUMER.CREATE.USERS.last.rv.user.*";
const CREATE_MINE: (&str, &str) = (
    "$JS.API.CONSUMER.CREATE.USERS.mine.rv.user.*",
    r#"{"stream_name":"USERS","config":{"name":"mine","ack_policy":"none","filter_subject":"rv.user.*"}}"#,
);
const CREATE_OF_SESSIONS: (&str, &str) = (
    "$JS.API.CONSUMER.CREATE.SESSIONS.mine.rv.session.*",
    r#"{"stream_name":"SESSIONS","config":{"name":"mine","ack_policy":"none","filter_subject":"rv.session.*"}}"#,
);
const NEXT_MINE: (&str, &str) = ("$JS.API.CONSUMER.MSG.NEXT.USERS.mine", r#"{"batch":1}"#);

#[tokio::test]
async fn no_answer_to_a_verifier_reaches_a_log() {
    let requests = [CREATE_MINE, CREATE_OF_SESSIONS, NEXT_MINE];
    answers_reach_no_log(Of::VerifierAnswers, &ServiceUser::verifier(&PRODUCT), &requests).await;
}

#[tokio::test]
async fn no_answer_to_a_service_reaches_a_log() {
    let requests = [
        CREATE_MINE,
        CREATE_OF_SESSIONS,
        NEXT_MINE,
        ("$JS.API.STREAM.MSG.GET.PRODUCTS", r#"{"seq":1}"#),
        ("$JS.API.STREAM.INFO.PRODUCTS", ""),
        ("$JS.API.CONSUMER.INFO.USER_EVENTS.product-service", ""),
        ("$JS.API.CONSUMER.MSG.NEXT.USER_EVENTS.product-service", r#"{"batch":1}"#),
    ];
    answers_reach_no_log(Of::ServiceAnswers, &ServiceUser::service(&PRODUCT), &requests).await;
}

/// Text that the service chooses, forwarded by the server: a consumer may name a delivery subject. A stream or the
/// API does not count as a subscriber of that subject.
#[tokio::test]
async fn a_delivery_subject_chosen_by_a_service_reaches_no_log() {
    let operator = operator_with_services(Of::ServicePushes).await;
    let mut product = product(Of::ServicePushes).await;
    product.request("ev.product.one", headers(&[]), r#"{"seq":1}"#).await;
    let before = state(&operator).await;
    let places = [
        "ev.user.x",
        "uq.role.admin",
        "$JS.API.STREAM.MSG.DELETE.PRODUCTS",
        "$JS.API.STREAM.PURGE.USERS",
    ];
    for (n, place) in places.iter().enumerate() {
        let push = format!(
            r#"{{"stream_name":"PRODUCTS","config":{{"name":"push-{n}","ack_policy":"none",
            "filter_subject":"ev.product.*","deliver_subject":"{place}"}}}}"#
        );
        let create = format!("$JS.API.CONSUMER.CREATE.PRODUCTS.push-{n}.ev.product.*");
        let made = product.request(&create, headers(&[]), &push).await;
        assert!(text(&made).contains(r#""created""#), "{}", text(&made));
    }
    product.request("ev.product.two", headers(&[]), r#"{"seq":1}"#).await;
    for n in 0..places.len() {
        let info = format!("$JS.API.CONSUMER.INFO.PRODUCTS.push-{n}");
        let info = operator.request(&info, headers(&[]), "").await;
        assert!(text(&info).contains(r#""num_pending":2"#), "{}", text(&info));
    }
    let logs = |state: &[(&'static str, u64, usize)]| -> Vec<_> {
        state.iter().filter(|(name, ..)| *name != "PRODUCTS").copied().collect()
    };
    assert_eq!(logs(&state(&operator).await), logs(&before));
    product.has_no_report().await;
}
