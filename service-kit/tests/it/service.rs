//! The streams and the consumer of a further service, with the rights that such a service has.

use events::feed::FEED_STREAM;
use events::{Position, ServiceNames};
use futures::StreamExt as _;
use nats_access::{Account, Role, ServiceUser};
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, ProvisionError, Start, Write, feed_stream,
    service_feed_stream, service_log_stream, service_reaction,
};

use crate::support::{
    BYTES_MAX, account, command, connect, connect_service, limits, of_writer, provisioned,
};

const PRODUCT: ServiceNames = ServiceNames::fixed("product", "products");
const DELETIONS: [&str; 1] = ["users.v1.deleted.*"];

/// A handle of a service on a stream.
async fn of_service(account: &Account, stream: &str) -> EventLog {
    let client = connect_service(account, &ServiceUser::service(&PRODUCT)).await;
    EventLog::new(client, stream, limits())
}

/// Stores something as one append; the position is that of the last message.
async fn write(log: &EventLog, mut writes: Vec<Write>) -> Position {
    let last = writes.pop().unwrap();
    let append = writes.into_iter().fold(Append::new(command(), last), Append::with);
    let outcome = log.append(&append).await;
    let Outcome::Stored(position) = outcome else { panic!("{outcome:?}") };
    position
}

fn text(subject: String) -> Write {
    of_writer(&subject, Guard::absent(), "{}")
}

#[tokio::test]
async fn the_operator_makes_what_a_service_needs_and_it_works_with_it() {
    let (_, account) = provisioned().await;
    let operator = connect(account, Role::Operator).await;
    let at = |stream: &str| EventLog::new(operator.clone(), stream, limits());
    let mut settings = Settings::merge("", []).unwrap();
    settings.feed.bytes_max = BYTES_MAX;
    at(FEED_STREAM).provision(&feed_stream(&settings.log, &settings.feed)).await.unwrap();
    let log_spec = service_log_stream(&PRODUCT, 1, BYTES_MAX);
    let feed_spec = service_feed_stream(&PRODUCT, 1, BYTES_MAX);
    let reaction = service_reaction(&PRODUCT, &DELETIONS, 1);
    assert_eq!((log_spec.name(), feed_spec.name()), ("PRODUCTS", "PRODUCT_EVENTS"));
    assert_eq!((reaction.stream(), reaction.name()), (FEED_STREAM, "product-service"));
    assert_eq!(reaction.filters().collect::<Vec<_>>(), DELETIONS);

    // What is missing is named with the command that makes it.
    let log = of_service(account, log_spec.name()).await;
    let feed = of_service(account, feed_spec.name()).await;
    let told = of_service(account, FEED_STREAM).await;
    for missing in [
        log.verify(&log_spec).await,
        feed.verify(&feed_spec).await,
        told.verify_consumer(&reaction).await.map(|_| ()),
    ] {
        let missing = missing.unwrap_err().to_string();
        assert!(missing.contains("run `product-service provision`"), "{missing}");
    }
    for _ in 0..2 {
        at(log_spec.name()).provision(&log_spec).await.unwrap();
        at(feed_spec.name()).provision(&feed_spec).await.unwrap();
        at(FEED_STREAM).provision_consumer(&reaction).await.unwrap();
    }
    log.verify(&log_spec).await.unwrap();
    feed.verify(&feed_spec).await.unwrap();

    // Its own log: a command with its record, read back and followed.
    let record = text(PRODUCT.idempotency_record("key"));
    let position = write(&log, vec![record, text(PRODUCT.events("one"))]).await;
    let last = log.last(&PRODUCT.events("one")).await.unwrap().unwrap();
    assert_eq!(last.position, position);
    let filter = PRODUCT.events_filter();
    for start in [Start::Behind(Position(0)), Start::LastOfEach] {
        let mut following = log.follow(&[&filter], start).await.unwrap();
        let first = following.messages.next().await.unwrap().unwrap();
        assert_eq!((first.position, PRODUCT.aggregate(&first.subject)), (position, "one"));
    }
    write(&feed, vec![text(PRODUCT.feed_event("added", "one"))]).await;

    // What it is told, from the start on.
    let told_of = |subject: &str| vec![text(subject.to_owned())];
    let projector = EventLog::new(connect(account, Role::Projector).await, FEED_STREAM, limits());
    write(&projector, told_of("users.v1.registered.ada")).await;
    write(&projector, told_of("users.v1.deleted.ada")).await;
    assert_eq!(told.verify_consumer(&reaction).await.unwrap().pending, 1);
    let mut tasks = Box::pin(told.take(&reaction, 1).await.unwrap());
    let task = tasks.next().await.unwrap().unwrap();
    assert_eq!(task.subject(), "users.v1.deleted.ada");
    task.ack().await.unwrap();
    let backlog = told.verify_consumer(&reaction).await.unwrap();
    assert_eq!((backlog.pending, backlog.under_way), (0, 0));

    // Another filter is seen, and is the operator's to give.
    let all = service_reaction(&PRODUCT, &["users.v1.deleted.*", "users.v1.registered.*"], 1);
    assert_eq!(all.filters().count(), 2);
    let different = told.verify_consumer(&all).await.unwrap_err();
    assert!(matches!(different, ProvisionError::DifferentConsumer { .. }), "{different}");
    at(FEED_STREAM).provision_consumer(&all).await.unwrap();
    told.verify_consumer(&all).await.unwrap();
}

/// Two services whose plurals are the same, and one that has a stream of somebody else's by name.
#[tokio::test]
async fn a_stream_of_another_service_is_not_taken_over() {
    let account = account();
    let operator = connect(account, Role::Operator).await;
    let at = |stream: &str| EventLog::new(operator.clone(), stream, limits());
    let product = service_log_stream(&PRODUCT, 1, BYTES_MAX);
    at("PRODUCTS").provision(&product).await.unwrap();
    let article = ServiceNames::parse("article", "products").unwrap();
    let article = service_log_stream(&article, 1, BYTES_MAX);
    let error = at("PRODUCTS").provision(&article).await.unwrap_err();
    assert!(matches!(error, ProvisionError::Different { .. }), "{error}");
    assert!(error.to_string().contains("another service"), "{error}");
    at("PRODUCTS").verify(&product).await.unwrap();
    // One subject more of its own is another matter.
    let wider = json!({ "name": "PRODUCTS", "subjects": ["ev.product.*"], "max_bytes": BYTES_MAX });
    operator.request("$JS.API.STREAM.DELETE.PRODUCTS", "".into()).await.unwrap();
    let made =
        operator.request("$JS.API.STREAM.CREATE.PRODUCTS", wider.to_string().into()).await.unwrap();
    let made: Value = serde_json::from_slice(&made.payload).unwrap();
    assert!(made.get("error").is_none(), "{made}");
    at("PRODUCTS").provision(&product).await.unwrap();
    at("PRODUCTS").verify(&product).await.unwrap();
}
