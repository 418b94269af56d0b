//! What comes in broken gets a clear answer, and never a 500.

use e2e::{Answer, Client, PASSWORD, System};
use serde_json::{Value, json};

fn check(answer: &Answer, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status, answer.code()), (status, code), "{what}: {answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
    assert_eq!(answer.body["status"], status, "{what}");
    for member in ["type", "title", "instance"] {
        assert!(answer.body[member].is_string(), "{what}: {member}");
    }
    assert_eq!(answer.header("x-request-id"), answer.body["instance"].as_str(), "{what}");
}

async fn raw(client: &Client, body: &[u8]) -> Answer {
    client.send("POST", "/api/v1/auth/register", Some(("application/json", body.to_vec()))).await
}

#[tokio::test]
async fn bodies_that_are_not_json() {
    let system = System::shared().await;
    let commands = system.commands();
    let deep = format!("{{\"metadata\":{}1{}}}", "{\"a\":".repeat(500), "}".repeat(500));
    let table: [(&str, &[u8]); 12] = [
        ("nothing", b""),
        ("broken", b"{\"email\": "),
        ("a list", b"[]"),
        ("null", b"null"),
        ("something behind it", b"{} {}"),
        ("a duplicate member", br#"{"email":"a@example.com","email":"b@example.com"}"#),
        ("an escaped duplicate", br#"{"email":"a@example.com","\u0065mail":"b@example.com"}"#),
        ("a duplicate further in", br#"{"metadata":{"a":{"b":1,"b":2}}}"#),
        ("a lone surrogate", br#"{"email":"\ud800@example.com"}"#),
        ("bytes that are not UTF-8", b"{\"email\":\"\xff@example.com\"}"),
        ("a raw NUL", b"{\"email\":\"a\0@example.com\"}"),
        ("too deep", deep.as_bytes()),
    ];
    for (what, body) in table {
        check(&raw(&commands, body).await, 400, "malformed-body", what);
    }
    let mut large = br#"{"full_name":""#.to_vec();
    large.resize(1_000_000, b'x');
    large.extend_from_slice(br#""}"#);
    check(&raw(&commands, &large).await, 413, "body-too-large", "a megabyte");
}

#[tokio::test]
async fn bodies_that_break_a_rule() {
    let system = System::shared().await;
    let commands = system.commands();
    let good = json!({"email": "ada@example.com", "password": PASSWORD});
    let table: Vec<(&str, Value, &str, &str)> = vec![
        ("email", json!(7), "/email", "type"),
        ("email", json!(null), "/email", "type"),
        ("email", json!(""), "/email", "email"),
        ("email", json!("ada"), "/email", "email"),
        ("email", json!("ada@example"), "/email", "email"),
        ("email", json!("ada@@example.com"), "/email", "email"),
        ("email", json!("a da@example.com"), "/email", "email"),
        ("email", json!("ada\u{0}@example.com"), "/email", "email"),
        ("email", json!("ada\u{202e}@example.com"), "/email", "email"),
        ("email", json!("ada@exa\u{200b}mple.com"), "/email", "email"),
        ("email", json!("ada@example.com\r\nBcc: eve@example.com"), "/email", "email"),
        ("email", json!("ada@[127.0.0.1]"), "/email", "email"),
        ("email", json!(format!("{}@example.com", "a".repeat(65))), "/email", "email"),
        ("email", json!(format!("a@{}com", "a.".repeat(500))), "/email", "email"),
        ("password", json!("short"), "/password", "too-short"),
        ("password", json!("x".repeat(10_000)), "/password", "too-long"),
        ("password", json!(["a"]), "/password", "type"),
        ("full_name", json!(""), "/full_name", "blank"),
        ("full_name", json!("a\u{0}b"), "/full_name", "control-character"),
        ("full_name", json!("x".repeat(201)), "/full_name", "too-long"),
        ("full_name", json!({}), "/full_name", "type"),
        ("metadata", json!([]), "/metadata", "type"),
        ("metadata", json!({"a": "x".repeat(5000)}), "/metadata", "too-long"),
        ("metadata", json!({"a\u{0}": 1}), "/metadata", "nul"),
        ("metadata", json!({"a": 18_446_744_073_709_551_615_u64}), "/metadata", "number-range"),
        ("roles", json!(["admin"]), "/roles", "unknown-member"),
        ("is_superuser", json!(true), "/is_superuser", "unknown-member"),
        ("a/b~c", json!(1), "/a~1b~0c", "unknown-member"),
    ];
    for (member, value, pointer, code) in table {
        let mut body = good.clone();
        body[member] = value;
        let what = body.to_string();
        let answer = commands.post("/api/v1/auth/register", &body).await;
        check(&answer, 422, "validation-failed", &what);
        let error = &answer.body["errors"][0];
        assert_eq!(
            (error["pointer"].as_str(), error["code"].as_str()),
            (Some(pointer), Some(code)),
            "{what}"
        );
    }
    let all = commands.post("/api/v1/auth/register", &json!({"emial": "x"})).await;
    check(&all, 422, "validation-failed", "everything at once");
    assert_eq!(all.body["errors"].as_array().unwrap().len(), 3, "{all:?}");

    // What is odd but allowed is kept as it is.
    let mut odd = good.clone();
    odd["full_name"] = "Ада \u{202e}ecalevol\u{200d}".into();
    odd["metadata"] = json!({"nul": "a\u{0}b", "": "", "$where": "1", "deep": [[[{}]]]});
    odd["password"] = " nul \u{0} and spaces ".into();
    let kept = commands.post("/api/v1/auth/register", &odd).await.expect(201);
    assert_eq!(kept.body["full_name"], odd["full_name"]);
    assert_eq!(kept.body["metadata"], odd["metadata"]);
    commands.login("ada@example.com", " nul \u{0} and spaces ").await;
    assert_eq!(system.events().await.len(), 2, "administrator and the odd one");
}

#[tokio::test]
async fn requests_that_are_not_what_the_route_takes() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let commands = system.commands();
    let body = json!({"email": "ada@example.com", "password": PASSWORD}).to_string().into_bytes();
    for content_type in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "application/merge-patch+json",
        "application/json; charset=latin1",
    ] {
        let sent = Some((content_type, body.clone()));
        let answer = commands.send("POST", "/api/v1/auth/register", sent).await;
        check(&answer, 415, "unsupported-media-type", content_type);
    }
    let compressed = commands.with_header("content-encoding", "gzip");
    let sent = Some(("application/json", body.clone()));
    let answer = compressed.send("POST", "/api/v1/auth/register", sent).await;
    check(&answer, 415, "unsupported-media-type", "gzip");

    for (method, path, status, code) in [
        ("PUT", "/api/v1/auth/register", 405, "method-not-allowed"),
        ("TRACE", "/api/v1/auth/login", 405, "method-not-allowed"),
        ("GET", "/api/v1/auth/nothing", 404, "not-found"),
        ("GET", "/", 404, "not-found"),
        ("GET", "/%ff%00", 404, "not-found"),
        ("POST", "/api/v1/auth/register?with_token=yes", 400, "invalid-parameter"),
    ] {
        let sent = (method == "POST").then(|| ("application/json", body.clone()));
        check(&commands.send(method, path, sent).await, status, code, path);
    }
    let long = format!("/{}", "x".repeat(20_000));
    check(&commands.get(&long).await, 414, "uri-too-long", "a long address");
    for key in ["", &"k".repeat(256)] {
        let keyed = commands.with_header("idempotency-key", key);
        check(&keyed.register("ada@example.com").await, 400, "invalid-header", "idempotency key");
    }
    let id = "/api/v1/users/0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    for path in ["/api/v1/users/x", "/api/v1/users/*", "/api/v1/users/%00", id] {
        check(&queries.get(path).await, 404, "not-found", path);
        check(&admin.patch(path, &json!({})).await, 404, "not-found", path);
    }
    for (patch, pointer) in [
        (json!({"email": "x@example.com"}), "/email"),
        (json!({"id": "x"}), "/id"),
        (json!({"roles": "admin"}), "/roles"),
        (json!({"roles": [1]}), "/roles"),
        (json!({"roles": ["Admin"]}), "/roles"),
        (json!({"roles": null}), "/roles"),
        (json!({"status": "gone"}), "/status"),
        (json!({"status": null}), "/status"),
        (json!({"metadata": "x"}), "/metadata"),
    ] {
        let answer = admin.patch(id, &patch).await;
        check(&answer, 422, "validation-failed", &patch.to_string());
        assert_eq!(answer.body["errors"][0]["pointer"], pointer);
    }
    let tagged = admin.with_header("if-match", "3");
    check(&tagged.patch(id, &json!({})).await, 400, "invalid-header", "if-match");
    let twice = queries.with_header("authorization", "Bearer x");
    check(&twice.get("/api/v1/auth/me").await, 401, "unauthorized", "two tokens");

    // What a problem points to can be read.
    let docs = commands.get("/docs/error-codes.md").await.expect(200);
    assert_eq!(docs.header("content-type"), Some("text/markdown; charset=utf-8"));
}
