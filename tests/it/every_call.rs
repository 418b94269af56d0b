//! The rules that hold for every call, tried on every call that the OpenAPI document describes.
//!
//! What is expected follows from what the document says of a call (its method, its headers, its body) and from no
//! list of calls: a new one is tried without being named here.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::jetstream;
use e2e::{Answer, Client, PASSWORD, Pair, System, parts};
use serde_json::{Value, json};

/// More than any log of a test has.
const BEYOND: &str = "999999999999";

struct Call {
    method: String,
    path: String,
    described: Value,
}

impl Call {
    fn is_safe(&self) -> bool {
        self.method == "GET"
    }

    fn has(&self, kind: &str, name: &str) -> bool {
        let parameters = self.described["parameters"].as_array();
        parameters.into_iter().flatten().any(|one| one["in"] == kind && one["name"] == name)
    }

    /// Media type and schema of its body.
    fn body(&self) -> Option<(&str, &Value)> {
        let content = self.described.pointer("/requestBody/content")?.as_object()?;
        content.iter().next().map(|(kind, content)| (kind.as_str(), &content["schema"]))
    }

    fn needs_token(&self) -> bool {
        let nobody = |all: &Vec<Value>| all.iter().any(|one| one == &json!({}));
        let ways = self.described["security"].as_array().unwrap();
        !ways.is_empty() && !nobody(ways)
    }

    fn success(&self) -> u16 {
        let answers = self.described["responses"].as_object().unwrap();
        answers.keys().next().unwrap().parse().unwrap()
    }

    fn is_of_users(&self) -> bool {
        self.path.starts_with("/api/v1/users")
    }
}

/// A request that succeeds, each time with a user of its own.
struct Good {
    client: Client,
    method: String,
    path: String,
    body: Option<(String, Vec<u8>)>,
}

impl Good {
    async fn send(&self) -> Answer {
        self.with(&self.client, "").await
    }

    /// The same with another client, and something behind its path.
    async fn with(&self, client: &Client, query: &str) -> Answer {
        let body = self.body.as_ref().map(|(kind, bytes)| (kind.as_str(), bytes.clone()));
        client.send(&self.method, &format!("{}{query}", self.path), body).await
    }

    async fn with_header(&self, name: &str, value: &str) -> Answer {
        self.with(&self.client.with_header(name, value), "").await
    }
}

struct Tried {
    system: System,
    document: Value,
    calls: Vec<Call>,
    admin: Client,
    made: AtomicUsize,
}

impl Tried {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(settings: &[(&str, &str)]) -> Self {
        // Many registrations from one address, and positions that nobody waits for long.
        let always = [("ROSTER_THROTTLE_ENABLED", "false"), ("ROSTER_VIEWS_QUERY_WAIT_MS", "20")];
        let system = System::shared_with(&[&always, settings].concat()).await;
        let document = system.commands().get("/openapi.json").await.expect(200).body;
        let mut calls = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, described) in item.as_object().unwrap() {
                let (method, path) = (method.to_uppercase(), path.clone());
                calls.push(Call { method, path, described: described.clone() });
            }
        }
        assert!(calls.len() > 30, "{}", calls.len());
        let (admin, _) = system.as_administrator().await;
        Self { system, document, calls, admin, made: AtomicUsize::new(0) }
    }

    fn new_address(&self) -> String {
        format!("user{}@example.com", self.made.fetch_add(1, Ordering::Relaxed))
    }

    fn of(&self, call: &Call) -> Client {
        if call.is_safe() { self.system.queries() } else { self.system.commands() }
    }

    /// A good request of a call.
    async fn good(&self, call: &Call) -> Good {
        let email = self.new_address();
        let verified = !call.path.ends_with("/verify-email-confirm");
        let user = json!({"email": email, "password": PASSWORD, "email_verified": verified});
        let id = self.admin.post("/api/v1/users", &user).await.expect(201).body["id"].clone();
        let pair = match call.is_of_users() {
            true => None,
            false => Some(self.system.commands().log_in(&email, PASSWORD).await),
        };
        let mut client = self.of(call);
        if call.needs_token() {
            client = match &pair {
                Some(pair) => client.with_token(&pair.access),
                None if call.is_safe() => self.system.as_administrator().await.1,
                None => self.admin.clone(),
            };
        }
        let session = pair.as_ref().map(|pair| parts(&pair.access).1["sid"].clone());
        let path = call
            .path
            .replace("{user_id}", id.as_str().unwrap())
            .replace("{session_id}", session.as_ref().and_then(Value::as_str).unwrap_or_default());
        let body = match call.body() {
            None => None,
            Some((kind, schema)) => {
                let text = self.body(call, schema, &email, pair.as_ref()).await;
                Some((kind.to_owned(), text.into_bytes()))
            }
        };
        Good { client, method: call.method.clone(), path, body }
    }

    /// The example of a body with what is this user's in it.
    async fn body(&self, call: &Call, schema: &Value, email: &str, pair: Option<&Pair>) -> String {
        let Some(name) = schema["$ref"].as_str().and_then(|name| name.rsplit('/').next()) else {
            // Lines of JSON.
            return json!({"email": self.new_address()}).to_string();
        };
        let schema = &self.document["components"]["schemas"][name];
        let given = schema.get("example").unwrap_or(&schema["properties"]).as_object().unwrap();
        let mut members = given.clone();
        for member in given.keys() {
            let own = match member.as_str() {
                // What makes something takes an address that nobody has.
                "email" if call.success() == 201 => self.new_address(),
                "email" => email.to_owned(),
                "new_email" => self.new_address(),
                "password" | "current_password" => PASSWORD.to_owned(),
                "new_password" => format!("another {PASSWORD}"),
                "refresh_token" => pair.unwrap().refresh.clone(),
                "token" => self.mailed(call, email, pair.unwrap()).await,
                _ => continue,
            };
            members.insert(member.clone(), own.into());
        }
        Value::Object(members).to_string()
    }

    /// The token of the mail that a call is the answer to.
    async fn mailed(&self, call: &Call, email: &str, pair: &Pair) -> String {
        let commands = self.system.commands().with_token(&pair.access);
        let (mut to, mut purpose) = (email.to_owned(), "verify-email");
        if call.path.contains("password-reset") {
            let body = json!({"email": email});
            commands.post("/api/v1/auth/password-reset-request", &body).await.expect(202);
            purpose = "reset-password";
        } else if call.path.contains("change-email") {
            let new_email = self.new_address();
            let body = json!({"new_email": new_email, "current_password": PASSWORD});
            let anyhow = commands.with_header("if-match", "*");
            anyhow.post("/api/v1/auth/change-email", &body).await.expect(202);
            purpose = "abort-email-change";
            if call.path.contains("confirm") {
                (to, purpose) = (new_email, "confirm-email");
            } else if call.path.contains("undo") {
                let token = self.link_to(&new_email, "confirm-email").await;
                let body = json!({"token": token});
                commands.post("/api/v1/auth/change-email-confirm", &body).await.expect(204);
                purpose = "undo-email-change";
            }
        }
        self.link_to(&to, purpose).await
    }

    /// The token of the newest mail of a purpose.
    async fn link_to(&self, to: &str, purpose: &str) -> String {
        let found = || {
            let mails = self.system.mails_to(to);
            let link = mails.into_iter().filter_map(|mail| mail.link);
            link.rev().find(|link| link.purpose == purpose)
        };
        e2e::wait_for("a link", || async { found().is_some() }).await;
        found().unwrap().token
    }

    /// Whether a user may stand in the answers of a call, however deep.
    fn answers_users(&self, call: &Call) -> bool {
        let status = call.success().to_string();
        let content = &call.described["responses"][status]["content"];
        self.refers_to(content, "#/components/schemas/UserRead")
    }

    fn refers_to(&self, schema: &Value, wanted: &str) -> bool {
        match schema {
            Value::Object(members) => members.iter().any(|(name, value)| match value.as_str() {
                Some(reference) if name == "$ref" => {
                    let pointer = reference.trim_start_matches('#');
                    let behind = self.document.pointer(pointer).unwrap();
                    reference == wanted || self.refers_to(behind, wanted)
                }
                _ => self.refers_to(value, wanted),
            }),
            Value::Array(items) => items.iter().any(|item| self.refers_to(item, wanted)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        }
    }

    /// What has been done so far: facts about users and sessions, and mails asked for.
    async fn done(&self, call: &Call) -> (usize, u64, u64) {
        let context = jetstream::new(self.system.operator().await);
        let stream = async |name: &str| context.get_stream(name).await.unwrap();
        // The reactor asks for mails about events, whenever it reads them. A call that is only taken in has none.
        let mails = match call.success() {
            202 => stream("MAILS").await.get_info().await.unwrap().state.last_sequence,
            _ => 0,
        };
        let sessions = stream("SESSIONS").await;
        let session = sessions.get_last_raw_message_by_subject("ev.session.*.*").await;
        (self.system.events().await.len(), session.map_or(0, |last| last.sequence), mails)
    }
}

fn refused(answer: Answer, status: u16, code: &str, call: &Call, what: &str) {
    let told = (answer.status, answer.code());
    assert_eq!(told, (status, code), "{} {} {what}: {answer:?}", call.method, call.path);
}

#[tokio::test]
async fn every_call_refuses_parameters_and_bodies_that_it_does_not_describe() {
    let tried = Tried::start().await;
    for call in &tried.calls {
        let good = tried.good(call).await;
        let client = &good.client;
        let unknown = good.with(client, "?no-such-parameter=1").await;
        refused(unknown, 400, "invalid-parameter", call, "unknown parameter");
        let garbage = Some((call.body().map_or("", |(kind, _)| kind), b"\x07garbage".to_vec()));
        let answer = client.send(&good.method, &good.path, garbage).await;
        if call.body().is_some_and(|(kind, _)| kind == "application/x-ndjson") {
            // Each line is answered for itself.
            assert_eq!(answer.clone().expect(200).lines()[0]["error"]["code"], "malformed-body");
        } else {
            refused(answer, 400, "malformed-body", call, "garbage");
        }
        // What was refused was not done: it can be done now.
        good.send().await.expect(call.success());
    }
}

#[tokio::test]
async fn every_call_that_writes_holds_preconditions() {
    let tried = Tried::start().await;
    for call in tried.calls.iter().filter(|call| !call.is_safe()) {
        let compares = call.has("header", "If-Match");
        assert!(compares || !call.path.contains("{user_id}"), "{} {}", call.method, call.path);
        let good = tried.good(call).await;
        let stale = if compares { "stale-revision" } else { "precondition-failed" };
        for tag in ["W/\"7777\"", "\"7777\"", "\"no revision\""] {
            refused(good.with_header("if-match", tag).await, 412, stale, call, "If-Match");
        }
        let any = good.with_header("if-none-match", "*").await;
        refused(any, 412, "precondition-failed", call, "If-None-Match");
        for name in ["if-match", "if-none-match"] {
            let broken = good.with_header(name, "no tag").await;
            refused(broken, 400, "invalid-header", call, name);
        }
        let revision = "W/\"1\", W/\"2\"";
        let answer = match compares {
            true => good.with_header("if-match", revision).await,
            false => good.with_header("if-none-match", revision).await,
        };
        answer.expect(call.success());
    }
}

#[tokio::test]
async fn every_change_of_a_user_needs_if_match_where_that_is_configured() {
    let tried = Tried::start_with(&[("ROSTER_HTTP_IF_MATCH_REQUIRED", "true")]).await;
    let mut seen = BTreeSet::new();
    for call in tried.calls.iter().filter(|call| !call.is_safe()) {
        let needed = call.has("header", "If-Match") && call.needs_token();
        let described = call.described["responses"].get("428").is_some();
        assert_eq!(described, needed, "{} {}", call.method, call.path);
        let good = tried.good(call).await;
        if needed {
            refused(good.send().await, 428, "precondition-required", call, "no If-Match");
            // Somebody who is not known hears of that first.
            let anonymous = good.with(&tried.of(call), "").await;
            refused(anonymous, 401, "unauthorized", call, "no token");
            good.with_header("if-match", "*").await.expect(call.success());
        } else {
            good.send().await.expect(call.success());
        }
        seen.insert((needed, call.is_of_users()));
    }
    let both = [false, true];
    let all = both.into_iter().flat_map(|needed| both.map(|of_users| (needed, of_users)));
    assert_eq!(seen, all.collect());
}

#[tokio::test]
async fn every_call_that_writes_takes_an_idempotency_key() {
    let tried = Tried::start().await;
    let mut without = BTreeSet::new();
    for call in tried.calls.iter().filter(|call| !call.is_safe()) {
        let good = tried.good(call).await;
        for key in ["k".repeat(256), "\u{e9}".to_owned(), String::new()] {
            let answer = good.with_header("idempotency-key", &key).await;
            refused(answer, 400, "invalid-header", call, "key");
        }
        if !call.has("header", "Idempotency-Key") {
            without.insert(call.path.as_str());
            continue;
        }
        // Administrators make several of these calls, each for another user.
        let key = format!("{} {}", call.method, call.path);
        let keyed = good.client.with_header("idempotency-key", &key);
        let first = good.with(&keyed, "").await.expect(call.success());
        let done = tried.done(call).await;
        let again = good.with(&keyed, "").await;
        let told = |answer: &Answer| {
            let kept = ["location", "etag", "roster-position", "roster-session-position"];
            let headers = kept.map(|name| answer.header(name).map(str::to_owned));
            (answer.status, headers, answer.bytes.clone())
        };
        assert_eq!(told(&again), told(&first), "{} {}", call.method, call.path);
        assert_eq!(tried.done(call).await, done, "{} {} was done twice", call.method, call.path);
    }
    let of_sessions = ["/api/v1/auth/login", "/api/v1/auth/refresh"];
    assert_eq!(without, BTreeSet::from(of_sessions));
}

/// The users in an answer, however deep.
fn users_in(body: &Value) -> Vec<&Value> {
    match body {
        Value::Object(members) if members.contains_key("email_verified") => vec![body],
        Value::Object(members) => members.values().flat_map(users_in).collect(),
        Value::Array(items) => items.iter().flat_map(users_in).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[tokio::test]
async fn the_last_login_is_answered_by_every_query_and_by_no_write() {
    let tried = Tried::start().await;
    let mut seen = BTreeSet::new();
    for call in tried.calls.iter().filter(|call| tried.answers_users(call)) {
        let answer = tried.good(call).await.send().await.expect(call.success());
        let users = users_in(&answer.body);
        assert!(!users.is_empty(), "{} {}: {answer:?}", call.method, call.path);
        for user in users {
            let known = user.get("last_login_at").is_some();
            assert_eq!(known, call.is_safe(), "{} {}: {user}", call.method, call.path);
        }
        seen.insert(call.is_safe());
    }
    assert_eq!(seen, BTreeSet::from([false, true]));
}

#[tokio::test]
async fn every_call_that_waits_for_views_can_be_told_not_to() {
    let tried = Tried::start().await;
    for call in tried.calls.iter().filter(|call| !call.is_safe()) {
        let good = tried.good(call).await;
        let answer = good.with_header("prefer", "wait=1, respond-async; foo=\"a,b\"").await;
        let answer = answer.expect(call.success());
        let pending = call.has("header", "Prefer").then_some("true");
        assert_eq!(answer.header("roster-pending"), pending, "{} {}", call.method, call.path);
    }
}

#[tokio::test]
async fn every_query_waits_for_a_position_of_its_own_log() {
    let tried = Tried::start().await;
    for call in tried.calls.iter().filter(|call| call.is_safe()) {
        let names = ["Roster-Position", "Roster-Session-Position"];
        let own = names.into_iter().find(|name| call.has("header", name));
        assert_eq!(own.is_some(), call.has("query", "min_position"), "{}", call.path);
        assert_eq!(own.is_some(), call.needs_token(), "{}", call.path);
        let good = tried.good(call).await;
        for name in names.into_iter().filter(|name| Some(*name) != own) {
            good.with_header(name, BEYOND).await.expect(200);
        }
        let Some(name) = own else { continue };
        let late = good.with_header(name, BEYOND).await;
        refused(late, 503, "not-yet", call, name);
        let late = good.with(&good.client, &format!("?min_position={BEYOND}")).await;
        refused(late, 503, "not-yet", call, "min_position");
        refused(good.with_header(name, "x").await, 400, "invalid-header", call, name);
        let wrong = good.with(&good.client, "?min_position=x").await;
        refused(wrong, 400, "invalid-parameter", call, "min_position");
        let answer = good.with(&good.client, "?min_position=1").await.expect(200);
        let position = answer.header(&name.to_lowercase()).map(str::parse::<u64>);
        assert!(position.is_some_and(|position| position.is_ok()), "{} {answer:?}", call.path);
    }
}

#[tokio::test]
async fn every_path_says_which_methods_it_has_whoever_is_asked() {
    let tried = Tried::start().await;
    for (path, item) in tried.document["paths"].as_object().unwrap() {
        let mut methods: BTreeSet<String> =
            item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        let path = path.replace(['{', '}'], "");
        let all = ["GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE"];
        let other = all.iter().find(|method| !methods.contains(**method)).unwrap();
        if methods.contains("GET") {
            methods.insert("HEAD".to_owned());
        }
        methods.insert("OPTIONS".to_owned());
        let allow = |answer: &Answer| -> BTreeSet<String> {
            answer.header("allow").unwrap().split(", ").map(str::to_owned).collect()
        };
        for client in [tried.system.commands(), tried.system.queries()] {
            let wrong = client.send(other, &path, None).await.expect(405);
            assert_eq!((wrong.code(), allow(&wrong)), ("method-not-allowed", methods.clone()));
            let options = client.send("OPTIONS", &path, None).await.expect(204);
            assert_eq!(allow(&options), methods, "{path}");
        }
        // What another process has is not here, and does not look as if it were nowhere.
        for (method, client) in [("GET", tried.system.commands()), ("POST", tried.system.queries())]
        {
            if methods.contains(method) && path != "/.well-known/jwks.json" {
                let elsewhere = client.send(method, &path, None).await.expect(405);
                assert_eq!(allow(&elsewhere), methods, "{method} {path}");
            }
        }
    }
}
