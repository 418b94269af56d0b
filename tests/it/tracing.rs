//! One request through all services, as a receiver of spans sees it.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::{Client, OtlpReceiver, Received, System, wait_for};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// A trace that its caller does not record.
const UNSAMPLED: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

async fn traced(receiver: &OtlpReceiver) -> System {
    System::shared_with(&[("ROSTER_TELEMETRY_OTLP_ENDPOINT", &receiver.url())]).await
}

/// The `traceparent` in the event of a request.
async fn traceparent_of(system: &System, request_id: Option<&str>) -> String {
    let events = system.events().await;
    let event =
        events.iter().find(|logged| logged.event.correlation_id.as_deref() == request_id).unwrap();
    event.event.traceparent.clone().expect("a trace context")
}

/// Waits until all three services have told of a trace, and gives their spans in order.
async fn spans_of(receiver: &OtlpReceiver, trace_id: &str) -> [Received; 3] {
    let services = ["roster-command-api", "roster-projector", "roster-reactor"];
    let find = || {
        let spans = receiver.of_trace(trace_id);
        services.map(|service| {
            let mut found = spans.iter().filter(|received| received.service == service);
            (found.next().cloned(), found.count())
        })
    };
    wait_for("spans of all services", || async { find().iter().all(|(span, _)| span.is_some()) })
        .await;
    find().map(|(span, more)| {
        assert_eq!(more, 0, "one span of each: {span:?}");
        span.unwrap()
    })
}

#[tokio::test]
async fn a_request_is_one_trace_through_all_services() {
    let receiver = OtlpReceiver::start().await;
    let system = traced(&receiver).await;
    let commands = system.commands();

    // One that nobody shall see comes first: what is sent later shows that it was not.
    let unseen = commands.with_header("traceparent", UNSAMPLED);
    let unseen = unseen.register("unseen@example.com").await.expect(201);
    let passed_on = traceparent_of(&system, unseen.header("x-request-id")).await;
    assert!(passed_on.starts_with("00-5bf92f3577b34da6a3ce929d0e0e4736-"), "{passed_on}");
    assert!(passed_on.ends_with("-00") && !passed_on.contains(CALLER), "{passed_on}");

    // The caller's trace goes on: caller, request, work on its event.
    let caller = commands
        .with_header("traceparent", &format!("00-{TRACE_ID}-{CALLER}-01"))
        .with_header("tracestate", "vendor=opaque");
    let answer = caller.register("ada@example.com").await.expect(201);
    let id = answer.header("x-request-id");
    let [request, projected, reacted] = spans_of(&receiver, TRACE_ID).await;
    assert_eq!(request.span.name, "POST /api/v1/auth/register");
    assert_eq!(request.span.kind, SpanKind::Server as i32);
    assert_eq!(request.parent_id(), CALLER);
    assert_eq!(request.span.trace_state, "vendor=opaque");
    assert_eq!(request.attribute("http.response.status_code").as_deref(), Some("201"));
    assert_eq!(request.attribute("roster.request_id").as_deref(), id);
    assert_eq!(
        traceparent_of(&system, id).await,
        format!("00-{TRACE_ID}-{}-01", request.span_id()),
        "the event names our span, not the caller's"
    );
    for work in [&projected, &reacted] {
        assert_eq!(work.parent_id(), request.span_id());
        assert_eq!(work.span.name, "process USERS");
        assert_eq!(work.span.kind, SpanKind::Consumer as i32);
        assert_eq!(work.attribute("roster.event_type").as_deref(), Some("user.registered.v1"));
        assert!(work.span.start_time_unix_nano >= request.span.start_time_unix_nano);
        assert!(!format!("{work:?}{request:?}").contains("example.com"));
    }

    // Without a caller's trace one begins here, and what is no context is none.
    for given in ["", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
        let client = commands.with_header("traceparent", given);
        let answer = client.register(&format!("own{}@example.com", given.len())).await.expect(201);
        let parent = traceparent_of(&system, answer.header("x-request-id")).await;
        let parts: Vec<&str> = parent.split('-').collect();
        let [request, projected, _] = spans_of(&receiver, parts[1]).await;
        assert_eq!((request.parent_id().as_str(), parts[3]), ("", "01"));
        assert_eq!(request.span_id(), parts[2]);
        assert_eq!(projected.parent_id(), request.span_id());
    }
    assert!(receiver.of_trace("5bf92f3577b34da6a3ce929d0e0e4736").is_empty(), "not recorded");
}

/// Its end is waited for by a thread of the test; the receiver needs another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_that_wait_are_sent_at_the_end() {
    let receiver = OtlpReceiver::start().await;
    let system = traced(&receiver).await;
    let other = system.another("command-api");
    let client = Client::new(&other.value("url"));
    let client = client.with_header("traceparent", &format!("00-{TRACE_ID}-{CALLER}-01"));
    client.get("/.well-known/jwks.json").await.expect(200);
    assert!(other.end("-TERM").success());
    let spans = receiver.of_trace(TRACE_ID);
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].span.name, "GET /.well-known/jwks.json");
}

/// A receiver that takes connections and never answers: the worst kind.
#[tokio::test]
async fn a_receiver_that_hangs_is_in_nobodys_way() {
    // The system completes connections that nobody accepts.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let system = System::shared_with(&[("ROSTER_TELEMETRY_OTLP_ENDPOINT", &url)]).await;
    let other = system.another("command-api");
    let client = Client::new(&other.value("url"));
    let private = Client::new(&other.value("private"));
    let keys = || async { client.get("/.well-known/jwks.json").await.expect(200) };
    // More than may wait.
    for _ in 0..3_000 {
        keys().await;
    }
    let spans = |outcome: &'static str| {
        let private = private.clone();
        async move {
            let labels = [("service", "command-api"), ("outcome", outcome)];
            private.scrape().await.value("roster_trace_spans_total", &labels).unwrap()
        }
    };
    wait_for("spans to be given up", || async { spans("lost").await > 0.0 }).await;
    assert!(spans("begun").await >= 3_000.0);
    assert!(spans("sent").await == 0.0);
    let began = Instant::now();
    keys().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(other.end("-TERM").success());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}
