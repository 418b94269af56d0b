//! Limits on attempts, as clients meet them.

use e2e::{Client, PASSWORD, System};
use futures::future::join_all;
use serde_json::json;

const ADA: &str = "ada@example.com";

async fn limited() -> System {
    System::shared_with(&[
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_FREE", "3"),
        ("ROSTER_THROTTLE_MAILS_MAX", "2"),
    ])
    .await
}

async fn login(client: &Client, email: &str, password: &str) -> e2e::Answer {
    client.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

/// What a refusal says, but for its own name and time.
fn told(answer: &e2e::Answer) -> (u16, String, Vec<&str>) {
    let names = answer.headers.keys().map(String::as_str).collect();
    (answer.status, answer.code().to_owned(), names)
}

#[tokio::test]
async fn guessing_ends_and_the_owner_gets_in_all_the_same() {
    let system = limited().await;
    let other = system.another("command-api");
    let (here, there) = (system.commands(), Client::new(&other.value("url")));
    here.register(ADA).await.expect(201);
    let inside = here.log_in(ADA, PASSWORD).await;

    // Known and unknown are counted alike, over both processes.
    for email in [ADA, "nobody@example.com"] {
        for client in [&here, &there, &here] {
            login(client, email, "a wrong password").await.expect(401);
        }
    }
    let (known, unknown) =
        (login(&there, ADA, PASSWORD).await, login(&there, "nobody@example.com", PASSWORD).await);
    assert_eq!(told(&known), told(&unknown));
    assert_eq!((known.status, known.code()), (429, "too-many-requests"));
    let wait = known.header("retry-after").unwrap();
    assert!(known.header("ratelimit").unwrap().ends_with(&format!(";t={wait}")), "{known:?}");
    assert!(known.header("ratelimit-policy").unwrap().starts_with("\"account\";q=3;"), "{known:?}");

    // A header that anyone can send changes nothing.
    let elsewhere = there.with_header("x-forwarded-for", "198.51.100.7");
    login(&elsewhere, ADA, PASSWORD).await.expect(429);

    // Who is inside stays inside, and may change the password.
    let refreshed = here.refresh(&inside.refresh).await.expect(200);
    let bearer = here.with_token(refreshed.body["access_token"].as_str().unwrap());
    let change =
        json!({"current_password": PASSWORD, "new_password": "another password for tests"});
    bearer.post("/api/v1/auth/change-password", &change).await.expect(204);

    // Who has the mailbox gets in, and the count begins anew.
    let request = json!({"email": ADA});
    here.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    let is_reset =
        |mail: &e2e::Mail| mail.link.as_ref().is_some_and(|link| link.purpose == "reset-password");
    e2e::wait_for("the reset mail", || async { system.mails_to(ADA).iter().any(is_reset) }).await;
    let reset = system.mails_to(ADA).into_iter().find(is_reset).unwrap();
    let body = json!({"token": reset.token(), "new_password": "a third password here"});
    here.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
    login(&there, ADA, "a third password here").await.expect(200);
}

#[tokio::test]
async fn a_users_own_logins_are_not_in_each_others_way() {
    let system = limited().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let answers = join_all((0..20).map(|_| login(&commands, ADA, PASSWORD))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    let answers = join_all((0..20).map(|n| {
        let (commands, wrong) = (commands.clone(), format!("a wrong password {n}"));
        async move { login(&commands, ADA, &wrong).await }
    }))
    .await;
    let count = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(401), count(429)), (3, 17), "{answers:?}");
}

#[tokio::test]
async fn mails_to_one_account_are_capped_without_a_word() {
    let system = limited().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    for _ in 0..5 {
        let request = json!({"email": ADA});
        commands.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    }
    // An order behind the others: when it is worked off, they are.
    commands.register("eve@example.com").await.expect(201);
    commands
        .post("/api/v1/auth/password-reset-request", &json!({"email": "eve@example.com"}))
        .await
        .expect(202);
    let resets = |to: &str| {
        let mails = system.mails_to(to);
        mails
            .iter()
            .filter(|m| m.link.as_ref().is_some_and(|l| l.purpose == "reset-password"))
            .count()
    };
    e2e::wait_for("the last mail", || async { resets("eve@example.com") == 1 && resets(ADA) >= 2 })
        .await;
    assert_eq!(resets(ADA), 2);
}
