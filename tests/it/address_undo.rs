//! An owner takes an account back whose address somebody else has changed.

use e2e::{Answer, Client, Mail, PASSWORD, Pair, System, wait_for};
use serde_json::json;

const ADA: &str = "ada@example.com";
const THIEF: &str = "thief@evil.example";
const NEW_PASSWORD: &str = "another password for tests";

/// The newest mail with a link for a purpose, once there is one.
async fn mailed(system: &System, to: &str, purpose: &str) -> Mail {
    let newest = || {
        let is_it = |mail: &Mail| mail.link.as_ref().is_some_and(|link| link.purpose == purpose);
        system.mails_to(to).into_iter().rfind(is_it)
    };
    wait_for("a mail", || async { newest().is_some() }).await;
    newest().unwrap()
}

/// Registers a user with a verified address.
async fn verified_user(system: &System, email: &str) {
    let (admin, _) = system.as_administrator().await;
    let body = json!({"email": email, "password": PASSWORD, "email_verified": true});
    admin.post("/api/v1/users", &body).await.expect(201);
}

/// Changes the address of whoever knows the password, and confirms it from the new mailbox.
async fn move_away(system: &System, from: &str, to: &str, password: &str) -> Pair {
    let commands = system.commands();
    let bearer = commands.with_token(&commands.log_in(from, password).await.access);
    let body = json!({"new_email": to, "current_password": password});
    bearer.post("/api/v1/auth/change-email", &body).await.expect(202);
    let link = mailed(system, to, "confirm-email").await;
    let body = json!({"token": link.token()});
    commands.post("/api/v1/auth/change-email-confirm", &body).await.expect(204);
    commands.log_in(to, password).await
}

async fn undo(client: &Client, link: &Mail) -> Answer {
    client.post("/api/v1/auth/change-email-undo", &json!({"token": link.token()})).await
}

#[tokio::test]
async fn an_owner_takes_the_account_back_whatever_the_thief_did_meanwhile() {
    let system = System::shared().await;
    let commands = system.commands();
    verified_user(&system, ADA).await;
    let inside = move_away(&system, ADA, THIEF, PASSWORD).await;
    let way_back = mailed(&system, ADA, "undo-email-change").await;

    // Another password, a reset, a logout everywhere, and one address further.
    let bearer = commands.with_token(&inside.access);
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    bearer.post("/api/v1/auth/change-password", &change).await.expect(204);
    let request = json!({"email": THIEF});
    commands.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    let reset = mailed(&system, THIEF, "reset-password").await;
    let reset = json!({"token": reset.token(), "new_password": "a third password here"});
    commands.post("/api/v1/auth/password-reset-confirm", &reset).await.expect(204);
    let inside = commands.log_in(THIEF, "a third password here").await;
    let bearer = commands.with_token(&inside.access);
    bearer.send("POST", "/api/v1/auth/logout-all", None).await.expect(204);
    let further = "further@evil.example";
    let inside = move_away(&system, THIEF, further, "a third password here").await;
    let thiefs_way_back = mailed(&system, THIEF, "undo-email-change").await;

    // The page says whose account it is, and not where it went.
    let page = format!("/links/undo-email-change?token={}", way_back.token());
    let opened = commands.send("GET", &page, None).await.expect(200);
    let text = format!("{:?}", opened.body);
    assert!(!text.contains("evil"), "{text}");

    undo(&commands, &way_back).await.expect(204);
    assert_eq!(undo(&commands, &way_back).await.expect(400).code(), "invalid-token");
    assert_eq!(undo(&commands, &thiefs_way_back).await.expect(400).code(), "invalid-token");
    commands.refresh(&inside.refresh).await.expect(401);
    system.queries().with_token(&inside.access).get("/api/v1/auth/me").await.expect(401);
    for email in [ADA, THIEF, further] {
        for password in [PASSWORD, NEW_PASSWORD, "a third password here"] {
            let body = json!({"email": email, "password": password});
            commands.post("/api/v1/auth/login", &body).await.expect(401);
        }
    }

    // The way in is a mail to the address that is back.
    let request = json!({"email": ADA});
    commands.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    let reset = mailed(&system, ADA, "reset-password").await;
    let reset = json!({"token": reset.token(), "new_password": "the owner's own password"});
    commands.post("/api/v1/auth/password-reset-confirm", &reset).await.expect(204);
    let owner = commands.log_in(ADA, "the owner's own password").await;
    let me = system.queries().with_token(&owner.access).get("/api/v1/auth/me").await.expect(200);
    assert_eq!((&me.body["email"], &me.body["email_verified"]), (&json!(ADA), &json!(true)));
    let (_, queries) = system.as_administrator().await;
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn an_address_that_somebody_else_has_by_now_is_not_taken_back() {
    let system = System::shared().await;
    let commands = system.commands();
    verified_user(&system, ADA).await;
    move_away(&system, ADA, THIEF, PASSWORD).await;
    let way_back = mailed(&system, ADA, "undo-email-change").await;
    let other = commands.register(ADA).await.expect(201);
    assert_eq!(undo(&commands, &way_back).await.expect(409).code(), "email-taken");
    let (admin, _) = system.as_administrator().await;
    admin.delete(other.header("location").unwrap()).await.expect(204);
    undo(&commands, &way_back).await.expect(204);
}
