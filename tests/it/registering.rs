//! Register and see.

use std::sync::Arc;

use e2e::{Fold, PASSWORD, System, without_login};
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use serde_json::json;

#[tokio::test]
async fn of_a_hundred_registrations_of_one_address_one_wins() {
    let system = System::shared().await;
    let commands = system.commands();
    let spellings = ["Ada@Example.com", "ada@example.com", "ADA@EXAMPLE.COM", "aDa@eXample.Com"];
    let racing = (0..100).map(|n| {
        let commands = commands.clone();
        async move { commands.register(spellings[n % spellings.len()]).await }
    });
    let answers = join_all(racing).await;
    let count = |status: u16| answers.iter().filter(|a| a.status == status).count();
    assert_eq!((count(201), count(409)), (1, 99));
    assert!(answers.iter().all(|a| a.status == 201 || a.code() == "email-taken"));
    let events = system.events().await;
    assert_eq!(Fold::registrations(&events, "ada@example.com"), 1);
    let (_, queries) = system.as_administrator().await;
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn what_was_registered_is_seen_at_once_by_everyone() {
    const ROUNDS: usize = 1_000;
    const AT_ONCE: usize = 8;
    // A busy machine may be slow, but every answer waits until the views have it.
    let system = System::shared_with(&[("ROSTER_VIEWS_COMMAND_WAIT_MS", "10000")]).await;
    let (_, queries) = system.as_administrator().await;
    let (commands, queries) = (Arc::new(system.commands()), Arc::new(queries));
    let missing: Vec<String> = stream::iter(0..ROUNDS)
        .map(|n| {
            let (commands, queries) = (Arc::clone(&commands), Arc::clone(&queries));
            async move {
                let answer = commands.register(&format!("user{n}@example.com")).await.expect(201);
                assert_eq!(answer.header("roster-pending"), None, "the views have it");
                let id = answer.body["id"].as_str().unwrap().to_owned();
                let one = queries.get(&format!("/api/v1/users/{id}")).await;
                let page = queries.get("/api/v1/users").await.expect(200);
                let listed = page.body["items"].as_array().unwrap();
                let seen = one.status == 200
                    && one.position() >= answer.position()
                    && without_login(one.body) == answer.body
                    && listed.iter().any(|user| user["id"] == id.as_str());
                (!seen).then_some(id)
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|missing| async { missing })
        .collect()
        .await;
    assert!(missing.is_empty(), "{} were not seen, {:?} first", missing.len(), missing.first());
}

#[tokio::test]
async fn a_registration_answers_as_the_contract_says() {
    let system = System::shared().await;
    let commands = system.commands();
    let body = json!({
        "email": "Grace@Example.com", "password": PASSWORD, "full_name": "Grace Hopper",
        "metadata": {"$set": {"a.b": [1, 2.5, null]}},
    });
    let answer = commands.post("/api/v1/auth/register?with_token=true", &body).await.expect(201);
    let user = &answer.body["user"];
    assert_eq!(user["email"], "Grace@Example.com");
    assert_eq!(user["roles"], json!(["user"]));
    assert_eq!(user["email_verified"], false);
    assert_eq!(user["metadata"], body["metadata"]);
    assert_eq!(user["revision"], 1);
    assert_eq!(user.get("last_login_at"), None, "a command does not know it: {user}");
    assert_eq!(answer.header("etag"), Some("W/\"1\""));
    let location = format!("/api/v1/users/{}", user["id"].as_str().unwrap());
    assert_eq!(answer.header("location"), Some(location.as_str()));
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let token = answer.body["token"]["access_token"].as_str().unwrap();
    let me = system.queries().with_token(token).get("/api/v1/auth/me").await.expect(200);
    assert!(me.body["last_login_at"].is_string(), "the first session is a login: {me:?}");
    assert_eq!(&without_login(me.body), user);
    // Every spelling logs in, the password in one only.
    commands.login("GRACE@example.COM", PASSWORD).await;
    for (email, password) in
        [("grace@example.com", "A password for tests"), ("nobody@example.com", PASSWORD), ("", "")]
    {
        let body = json!({"email": email, "password": password});
        let refused = commands.post("/api/v1/auth/login", &body).await.expect(401);
        assert_eq!(refused.code(), "invalid-credentials");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    let keys = commands.get("/.well-known/jwks.json").await.expect(200);
    let members: Vec<&String> = keys.body["keys"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
}

/// The projector is down: nothing is lost, nothing waits for it, and the answer says so.
#[tokio::test]
async fn commands_go_on_without_the_projector() {
    let mut system = System::shared().await;
    let (_, queries) = system.as_administrator().await;
    system.kill_projector();
    let answer = system.commands().register("late@example.com").await.expect(201);
    assert_eq!(answer.header("roster-pending"), Some("true"));
    let path = format!("/api/v1/users/{}", answer.body["id"].as_str().unwrap());
    let position = answer.position().to_string();
    queries.get(&path).await.expect(404);
    let not_yet = queries.with_header("roster-position", &position).get(&path).await.expect(503);
    assert_eq!(not_yet.code(), "not-yet");
    assert!(not_yet.header("retry-after").is_some());

    system.start_projector();
    let seen = queries.get(&format!("{path}?min_position={position}")).await.expect(200);
    assert_eq!(without_login(seen.body), answer.body);
    let no_wait = system.commands().with_header("prefer", "respond-async");
    let answer = no_wait.register("quick@example.com").await.expect(201);
    assert_eq!(answer.header("roster-pending"), Some("true"));
}
