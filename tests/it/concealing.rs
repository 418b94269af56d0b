//! Registrations that tell nobody who has an account.

use e2e::{Answer, Client, Mail, PASSWORD, System};
use serde_json::json;

const ADA: &str = "ada@example.com";
const EVE: &str = "eve@example.com";

async fn concealing() -> System {
    System::shared_with(&[("ROSTER_REGISTRATION_CONCEAL_EXISTING", "true")]).await
}

async fn login(client: &Client, email: &str, password: &str) -> Answer {
    client.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

/// Waits for a mail that was ordered behind all others.
async fn all_mailed(system: &System) {
    for _ in 0..2 {
        system.commands().register(EVE).await.expect(202);
    }
    system.wait_for_mails_to(EVE, 2).await;
}

/// How many mails say that somebody tried to register.
fn told(mails: &[Mail]) -> usize {
    mails.iter().filter(|mail| mail.subject == "You already have an account").count()
}

#[tokio::test]
async fn a_taken_address_is_answered_like_a_free_one_and_its_owner_told() {
    let system = concealing().await;
    let commands = system.commands();
    let free = commands.register(ADA).await.expect(202);
    let taken = commands.register("ADA@example.com").await.expect(202);
    assert_eq!(free.told(), taken.told());
    assert_eq!(free.body, serde_json::Value::Null);
    for header in ["location", "etag", "roster-position", "roster-pending"] {
        assert_eq!(free.header(header), None, "{header}");
    }
    let mails = system.wait_for_mails_to(ADA, 2).await;
    let verify = mails.iter().filter_map(|mail| mail.link.as_ref()).map(|link| &link.purpose);
    assert_eq!(verify.collect::<Vec<_>>(), ["verify-email"]);
    assert_eq!(told(&mails), 1);

    // What is wrong with a request is said in any case, and before anybody looks.
    let weak = json!({"email": ADA, "password": "password123"});
    commands.post("/api/v1/auth/register", &weak).await.expect(422);
    for email in [ADA, EVE] {
        let body = json!({"email": email, "password": PASSWORD});
        let path = "/api/v1/auth/register?with_token=true";
        let refused = commands.post(path, &body).await.expect(400);
        assert_eq!(refused.code(), "invalid-parameter");
    }
    // An administrator may read every address anyway.
    let (admin, _) = system.as_administrator().await;
    let body = json!({"email": ADA, "password": PASSWORD});
    assert_eq!(admin.post("/api/v1/users", &body).await.expect(409).code(), "email-taken");
}

#[tokio::test]
async fn nobody_logs_in_before_the_address_is_verified() {
    let system = concealing().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(202);
    // Or the password of the registration would tell that the address was free.
    let unverified = login(&commands, ADA, PASSWORD).await.expect(401);
    let unknown = login(&commands, EVE, PASSWORD).await.expect(401);
    assert_eq!(unverified.told(), unknown.told());

    let mails = system.wait_for_mails_to(ADA, 1).await;
    let body = json!({"token": mails[0].token(), "password": PASSWORD});
    commands.post("/api/v1/auth/verify-email-confirm", &body).await.expect(204);
    login(&commands, ADA, PASSWORD).await.expect(200);
}

#[tokio::test]
async fn a_repeated_registration_mails_nobody_and_a_used_key_tells_nothing() {
    let system = concealing().await;
    let with_key = system.commands().with_header("idempotency-key", "key 1");
    let register = async |full_name: &str, password: &str| {
        let body = json!({"email": ADA, "password": password, "full_name": full_name});
        with_key.post("/api/v1/auth/register", &body).await.expect(202)
    };
    let first = register("Ada", PASSWORD).await;
    let answers = [
        register("Ada", PASSWORD).await,
        register("Another", PASSWORD).await,
        register("Ada", "another password for tests").await,
    ];
    assert!(answers.iter().all(|answer| answer.told() == first.told()), "{answers:?}");

    // Of the one with another name: the same again was no news, whatever its password.
    all_mailed(&system).await;
    let mails = system.wait_for_mails_to(ADA, 2).await;
    assert_eq!((mails.len(), told(&mails)), (2, 1));
    let events = system.events().await;
    assert_eq!(e2e::Fold::registrations(&events, ADA), 1);
}

/// Repetitions under a key are counted nowhere where a free address could be told from a taken one.
#[tokio::test]
async fn repeated_registrations_close_no_account_that_was_free() {
    let system = System::shared_with(&[
        ("ROSTER_REGISTRATION_CONCEAL_EXISTING", "true"),
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_FREE", "3"),
        ("ROSTER_THROTTLE_ADDRESS_FAILURES_FREE", "3"),
        ("ROSTER_THROTTLE_REQUESTS_MAX", "1000"),
    ])
    .await;
    let commands = system.commands();
    commands.register(ADA).await.expect(202);
    let mut logins = Vec::new();
    for email in [ADA, EVE] {
        let with_key = commands.with_header("idempotency-key", email);
        let register = async |password: &str| {
            let body = json!({"email": email, "password": password});
            with_key.post("/api/v1/auth/register", &body).await.expect(202)
        };
        register(PASSWORD).await;
        for _ in 0..6 {
            register("another password for tests").await;
        }
        logins.push(login(&commands, email, "a guess at the password").await.expect(401));
    }
    assert_eq!(logins[0].told(), logins[1].told());
}

#[tokio::test]
async fn the_owner_is_told_so_often_and_not_more() {
    let system = System::shared_with(&[
        ("ROSTER_REGISTRATION_CONCEAL_EXISTING", "true"),
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_MAILS_MAX", "1"),
        ("ROSTER_THROTTLE_MAILS_WINDOW_S", "900"),
    ])
    .await;
    let commands = system.commands();
    let answers = [
        commands.register(ADA).await.expect(202),
        commands.register(ADA).await.expect(202),
        commands.register(ADA).await.expect(202),
    ];
    assert!(answers.iter().all(|answer| answer.told() == answers[0].told()), "{answers:?}");
    all_mailed(&system).await;
    assert_eq!(system.wait_for_mails_to(ADA, 2).await.len(), 2);
}
