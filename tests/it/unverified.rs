//! Users who have not shown their address to be theirs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{PASSWORD, Pair, System};
use serde_json::{Value, json};

const ADA: &str = "ada@example.com";

fn claims(access: &str) -> Value {
    let payload = URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

async fn verification(system: &System) -> String {
    system.wait_for_mails_to(ADA, 1).await.remove(0).token().to_owned()
}

#[tokio::test]
async fn a_token_says_whether_the_address_is_verified() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let before = commands.log_in(ADA, PASSWORD).await;
    assert_eq!(claims(&before.access)["email_verified"], false);
    let body = json!({"token": verification(&system).await});
    let bearer = commands.with_token(&before.access);
    bearer.post("/api/v1/auth/verify-email-confirm", &body).await.expect(204);
    let after = Pair::of(&commands.refresh(&before.refresh).await.expect(200).body);
    assert_eq!(claims(&after.access)["email_verified"], true);
    system.queries().with_token(&before.access).get("/api/v1/auth/me").await.expect(401);
}

#[tokio::test]
async fn where_it_is_required_nobody_is_inside_before_the_address_is_verified() {
    let system = System::shared_with(&[("ROSTER_REGISTRATION_LOGIN_UNVERIFIED", "false")]).await;
    let commands = system.commands();
    let login = async |password: &str| {
        commands.post("/api/v1/auth/login", &json!({"email": ADA, "password": password})).await
    };
    let body = json!({"email": ADA, "password": PASSWORD});
    let refused = commands.post("/api/v1/auth/register?with_token=true", &body).await.expect(400);
    assert_eq!(refused.code(), "invalid-parameter");
    commands.register(ADA).await.expect(201);
    assert_eq!(login(PASSWORD).await.expect(403).code(), "email-not-verified");
    // Only who knows the password is told so.
    assert_eq!(login("a guess").await.expect(401).code(), "invalid-credentials");
    let proof = json!({"token": verification(&system).await, "password": PASSWORD});
    commands.post("/api/v1/auth/verify-email-confirm", &proof).await.expect(204);
    login(PASSWORD).await.expect(200);
}
