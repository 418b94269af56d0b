//! Edges of HTTP and of JSON, and of the life of a process.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use e2e::{Client, PASSWORD, Pair, System, wait_for};
use serde_json::{Value, json};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The first line of the answer to a request that is sent as it is.
fn raw(url: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

async fn is_dead(system: &System, pair: &Pair) {
    wait_for("the session's end to be known", || async {
        let me = system.queries().with_token(&pair.access);
        me.get("/api/v1/auth/me").await.status == 401
    })
    .await;
}

#[tokio::test]
async fn a_logout_with_a_bearer_takes_every_way_to_say_nothing() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    for (kind, body) in [
        ("", ""),
        ("application/json", "{}"),
        ("application/json", " { } "),
        ("application/json", "null"),
        ("application/json", "  \r\n"),
        ("text/plain", " "),
    ] {
        let pair = commands.log_in("ada@example.com", PASSWORD).await;
        let body = Some((kind, body.as_bytes().to_vec()));
        commands
            .with_token(&pair.access)
            .send("POST", "/api/v1/auth/logout", body)
            .await
            .expect(204);
        is_dead(&system, &pair).await;
    }
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    let head = format!(
        "POST /api/v1/auth/logout HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\
         Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        pair.access
    );
    let line = raw(&system.command_api.value("url"), &head);
    assert!(line.contains(" 204 "), "{line}");
    is_dead(&system, &pair).await;
}

#[tokio::test]
async fn a_logout_knows_whose_session_it_ends() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    let (one, two) = (
        commands.log_in("ada@example.com", PASSWORD).await,
        commands.log_in("ada@example.com", PASSWORD).await,
    );
    let path = "/api/v1/auth/logout";
    for body in [None, Some(("application/json", b"{}".to_vec()))] {
        assert_eq!(commands.send("POST", path, body).await.expect(401).code(), "unauthorized");
    }
    let other = json!({"refresh_token": two.refresh});
    let refused = commands.with_token(&one.access).post(path, &other).await.expect(422);
    assert_eq!(refused.body["errors"][0]["code"], "other-session");
    // A bad bearer is in nobody's way.
    commands.with_token("x.y.z").post(path, &other).await.expect(204);
    is_dead(&system, &two).await;
    let own = json!({"refresh_token": one.refresh});
    commands.with_token(&one.access).post(path, &own).await.expect(204);
    is_dead(&system, &one).await;
}

#[tokio::test]
async fn an_import_takes_the_marks_nulls_and_blank_lines_of_other_systems() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let nulls = json!({
        "email": "nulls@example.com", "full_name": null, "roles": null, "metadata": null,
        "email_verified": null, "password_hash": null, "created_at": null,
    });
    let text = format!("\u{feff}{{\"email\": \"first@example.com\"}}\r\n{nulls}\n\n \r\n");
    let body = Some(("application/x-ndjson", text.into_bytes()));
    let answer = admin.send("POST", "/api/v1/users/import", body).await.expect(200);
    let statuses: Vec<Value> = answer.lines().iter().map(|line| line["status"].clone()).collect();
    assert_eq!(statuses, ["created", "created"], "{answer:?}");
    let id = answer.lines()[1]["id"].as_str().unwrap().to_owned();
    let user = queries.get(&format!("/api/v1/users/{id}")).await.expect(200).body;
    assert_eq!((&user["roles"], &user["metadata"]), (&json!(["user"]), &json!({})));

    let none = Some(("application/x-ndjson", b"garbage".to_vec()));
    let rejected = admin.send("POST", "/api/v1/users/import", none).await.expect(200);
    assert_eq!(rejected.header("roster-position"), None, "nothing to show");
}

#[tokio::test]
async fn a_number_beyond_every_range_breaks_a_rule() {
    let system = System::shared().await;
    let body =
        format!(r#"{{"email":"a@example.com","password":"{PASSWORD}","metadata":{{"v":1e400}}}}"#);
    let body = Some(("application/json", body.into_bytes()));
    let refused = system.commands().send("POST", "/api/v1/auth/register", body).await.expect(422);
    assert_eq!(refused.body["errors"][0]["code"], "number-range");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let system = System::shared().await;
    let url = system.query_api.value("url");
    let path = "/.well-known/jwks.json";
    for (request, status) in [
        (format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), " 200 "),
        (format!("GET {path} HTTP/1.0\r\n\r\n"), " 200 "),
        (format!("GET {path} HTTP/1.1\r\nConnection: close\r\n\r\n"), " 400 "),
        (
            format!("GET {path} HTTP/1.1\r\nHost: h\r\nHost: h\r\nConnection: close\r\n\r\n"),
            " 400 ",
        ),
        (format!("GET {path} HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n"), " 400 "),
    ] {
        let line = raw(&url, &request);
        assert!(line.contains(status), "{request:?} {line}");
    }
}

#[tokio::test]
async fn what_a_session_call_tells_a_list_of_sessions_takes() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let login =
        commands.with_header("prefer", "respond-async").post("/api/v1/auth/login", &body).await;
    let position = login.header("roster-session-position").unwrap();
    let queries = system.queries().with_token(login.body["access_token"].as_str().unwrap());
    let waiting = queries.with_header("roster-session-position", position);
    let listed = waiting.get("/api/v1/auth/sessions").await.expect(200);
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 1);
    let told: u64 = listed.header("roster-session-position").unwrap().parse().unwrap();
    assert!(told >= position.parse().unwrap(), "{told} {position}");
}

#[tokio::test]
async fn pages_of_named_origins_alone_may_call() {
    let origin = "https://app.example.com";
    let system = System::shared_with(&[("ROSTER_HTTP_CORS_ORIGINS", origin)]).await;
    let path = "/api/v1/users/import";
    let preflight = |client: Client, origin: &str| {
        let client = client.with_header("origin", origin);
        client.with_header("access-control-request-method", "POST")
    };
    for client in [system.commands(), system.queries()] {
        let answer =
            preflight(client.clone(), origin).send("OPTIONS", path, None).await.expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert!(answer.header("access-control-allow-methods").unwrap().contains("PATCH"));
        assert!(answer.header("access-control-allow-headers").unwrap().contains("Idempotency-Key"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        let other = preflight(client, "https://app.example.com.evil.example");
        let answer = other.send("OPTIONS", path, None).await;
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    // Errors can be read by the page, too.
    let page = system.queries().with_header("origin", origin);
    let refused = page.get("/api/v1/auth/me").await.expect(401);
    assert_eq!(refused.header("access-control-allow-origin"), Some(origin));
    assert!(refused.header("access-control-expose-headers").unwrap().contains("Roster-Position"));
    assert_eq!(refused.header("vary"), Some("Origin"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    let bad = page.with_token("x.y.z").get("/api/v1/auth/me").await.expect(401);
    assert_eq!(bad.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    let other = system.queries().with_header("origin", "https://evil.example");
    assert_eq!(other.get("/api/v1/auth/me").await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_patch_of_another_type_hears_which_ones_there_are() {
    let system = System::shared().await;
    let body = Some(("text/plain", b"{}".to_vec()));
    let (admin, _) = system.as_administrator().await;
    let refused = admin.send("PATCH", "/api/v1/auth/me", body).await.expect(415);
    let types = Some("application/merge-patch+json, application/json");
    assert_eq!(refused.header("accept-patch"), types);
    let options = system.queries().send("OPTIONS", "/api/v1/auth/me", None).await.expect(204);
    assert_eq!(options.header("accept-patch"), types);
}

#[tokio::test]
async fn a_service_that_stops_is_not_ready_first_and_takes_requests_still() {
    let system = System::shared_with(&[("ROSTER_HTTP_STOP_DELAY_MS", "3000")]).await;
    let pid = system.query_api.pid().to_string();
    let private = Client::new(&system.query_api.value("private"));
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let mut stopping = Value::Null;
    wait_for("the service not to be ready", || {
        let ready = private.get("/readyz");
        async { ready.await.status == 503 }
    })
    .await;
    if let Some(answer) = private.try_send("GET", "/readyz", None).await {
        stopping = answer.body["failed"]["stop"].clone();
    }
    assert_eq!(stopping, "the service is stopping");
    // A new connection, as one that a load balancer makes before it knows.
    Client::new(&system.query_api.value("url")).get("/.well-known/jwks.json").await.expect(200);
    wait_for("the end", || async { private.try_send("GET", "/livez", None).await.is_none() }).await;
}

#[tokio::test]
async fn a_service_waits_for_nats_at_its_start() {
    let system = System::shared().await;
    let (private, nats) = (free_port(), free_port());
    let (url, listen) = (format!("nats://127.0.0.1:{nats}"), format!("127.0.0.1:{private}"));
    let settings = [("ROSTER_NATS_URL", url.as_str()), ("ROSTER_HTTP_PRIVATE_LISTEN", &listen)];
    let _waiting = system.spawn_with("command-api", &settings, "waiting");
    let private = Client::new(&format!("http://{listen}"));
    wait_for("the service to live", || async {
        private.try_send("GET", "/livez", None).await.is_some_and(|answer| answer.status == 200)
    })
    .await;
    let starting = private.get("/readyz").await.expect(503);
    assert_eq!(starting.body["failed"]["start"], "the service is starting");

    // The server comes.
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", nats)).await.unwrap();
    let real = system.nats_url().rsplit('/').next().unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let real = real.clone();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(&real).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    wait_for("the service to be ready", || async {
        private.try_send("GET", "/readyz", None).await.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_service_does_not_wait_for_nats_without_end() {
    let system = System::shared().await;
    let url = format!("nats://127.0.0.1:{}", free_port());
    let settings = [("ROSTER_NATS_URL", url.as_str()), ("ROSTER_NATS_START_WAIT_S", "1")];
    let mut waiting = system.spawn_with("query-api", &settings, "in-vain");
    wait_for("the end", || {
        let ended = waiting.ended().is_some();
        async move { ended }
    })
    .await;
    let log = system.log_of("in-vain");
    assert!(log.contains("NATS is not available yet"), "{log}");
}

#[tokio::test]
async fn the_schemas_of_the_feed_are_served() {
    let system = System::shared().await;
    let files = std::fs::read_dir("../asyncapi/schemas").unwrap();
    for client in [system.commands(), system.queries()] {
        client.get("/schemas/users.v1.no_such_type.json").await.expect(404);
        client.get("/schemas/users.v1.registered.json").await.expect(200);
    }
    for file in files {
        let file = file.unwrap();
        let name = file.file_name().into_string().unwrap();
        let answer = system.queries().get(&format!("/schemas/{name}")).await.expect(200);
        assert_eq!(answer.header("content-type"), Some("application/schema+json"));
        assert_eq!(answer.bytes, std::fs::read(file.path()).unwrap(), "{name}");
    }
}
