//! One request, found again wherever it led to.

use e2e::{Answer, Client, PASSWORD, System, wait_for};
use serde_json::{Value, json};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

const JSON_AND_ALL: [(&str, &str); 3] = [
    ("ROSTER_TELEMETRY_FORMAT", "json"),
    ("ROSTER_TELEMETRY_LOG", "debug,async_nats=warn"),
    ("ROSTER_SESSIONS_REUSE_WINDOW_S", "0"),
];

/// The lines of a service's log that name a request, whether themselves or by the span they stand in.
fn lines_of(system: &System, service: &str, request_id: &str) -> Vec<Value> {
    let names = |line: &Value| {
        let within = line["spans"]
            .as_array()
            .is_some_and(|spans| spans.iter().any(|span| span["request_id"] == request_id));
        line["request_id"] == request_id || within
    };
    let log = system.log_of(service);
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    lines.filter(names).collect()
}

/// Those that call for somebody.
fn alarms_of(system: &System, service: &str, request_id: &str) -> Vec<Value> {
    let mut lines = lines_of(system, service, request_id);
    lines.retain(|line| ["WARN", "ERROR"].iter().any(|level| line["level"] == *level));
    lines
}

fn named(client: &Client, request_id: &str) -> Client {
    client.with_header("x-request-id", request_id).with_header("traceparent", TRACEPARENT)
}

fn is_about(answer: &Answer, request_id: &str) {
    assert_eq!(answer.header("x-request-id"), Some(request_id));
    if answer.status >= 400 {
        assert_eq!(answer.body["instance"], request_id, "{answer:?}");
    }
}

#[tokio::test]
async fn a_request_is_named_in_every_line_it_leads_to() {
    let system = System::shared_with(&JSON_AND_ALL).await;
    let commands = system.commands();
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let register = "/api/v1/auth/register?with_token=true";
    let first = named(&commands, "first-1").post(register, &body).await.expect(201);
    is_about(&first, "first-1");
    let lines = lines_of(&system, "command-api", "first-1");
    let request: Vec<&Value> = lines.iter().filter(|line| line["message"] == "request").collect();
    assert_eq!(request.len(), 1, "{lines:?}");
    assert_eq!(request[0]["route"], "/api/v1/auth/register");
    assert_eq!((&request[0]["status"], &request[0]["trace_id"]), (&json!(201), &json!(TRACE_ID)));

    let events = system.events().await;
    let event =
        events.iter().find(|logged| logged.event.correlation_id.as_deref() == Some("first-1"));
    let event = &event.expect("the event of the request").event;
    // Nothing records spans here: the caller's context goes on as it is.
    assert_eq!(event.traceparent.as_deref(), Some(TRACEPARENT));
    wait_for("the projector to name the request", || async {
        let lines = lines_of(&system, "projector", "first-1");
        let has = |kind: &str| lines.iter().any(|line| line["event"] == kind);
        has("user.registered.v1") && has("session.started.v1")
    })
    .await;

    // What a client does wrong calls for nobody.
    let taken = named(&commands, "taken-1").post(register, &body).await.expect(409);
    is_about(&taken, "taken-1");
    assert_eq!(alarms_of(&system, "command-api", "taken-1"), Vec::<Value>::new());
    // A line of the application itself, in a task of its own.
    let token = first.body["token"]["refresh_token"].as_str().unwrap();
    commands.refresh(token).await.expect(200);
    let stolen = named(&commands, "stolen-1").refresh(token).await.expect(401);
    is_about(&stolen, "stolen-1");
    let lines = lines_of(&system, "command-api", "stolen-1");
    assert!(lines.iter().any(
        |line| line["message"] == "a replaced refresh token was used again; ending the session"
    ));
    assert_eq!(alarms_of(&system, "command-api", "stolen-1"), Vec::<Value>::new());

    // An id that is not sane is replaced, and a context that is not valid is dropped.
    let strange =
        commands.with_header("x-request-id", "a b").with_header("traceparent", "00-0-0-0");
    let answer = strange.register("eve@example.com").await.expect(201);
    let id = answer.header("x-request-id").unwrap();
    assert_ne!(id, "a b");
    let events = system.events().await;
    let event = events.iter().find(|logged| logged.event.correlation_id.as_deref() == Some(id));
    assert_eq!(event.expect("the event of the request").event.traceparent, None);
}

#[tokio::test]
async fn a_failure_is_one_line() {
    let system = System::own_with(&JSON_AND_ALL).await;
    let (commands, queries) = system.as_administrator().await;
    system.mongod().stop().unwrap();
    let failed = named(&queries, "views-1").get("/api/v1/users").await.expect(503);
    is_about(&failed, "views-1");
    system.nats().kill().unwrap();
    let failed_too = named(&commands, "log-1").register("ada@example.com").await.expect(503);
    is_about(&failed_too, "log-1");
    for (service, request_id, answer) in
        [("query-api", "views-1", failed), ("command-api", "log-1", failed_too)]
    {
        let alarms = alarms_of(&system, service, request_id);
        assert_eq!(alarms.len(), 1, "{alarms:?}");
        let line = &alarms[0];
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["code"], answer.code());
        assert_eq!(line["status"], 503);
        assert_eq!(line["request_id"], request_id);
        assert_eq!(line["trace_id"], TRACE_ID);
        assert!(line["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{line}");
    }
}
