//! The owner is told of a login from a device that was not seen before.

use e2e::{PASSWORD, System, wait_for};
use serde_json::json;

const ADA: &str = "ada@example.com";
const SUBJECT: &str = "Your account was used on a new device";

#[tokio::test]
async fn a_login_from_a_new_device_is_told_once() {
    let system = System::shared_with(&[("ROSTER_HTTP_TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    let (admin, _) = system.as_administrator().await;
    let body = json!({"email": ADA, "password": PASSWORD, "email_verified": true});
    admin.post("/api/v1/users", &body).await.expect(201);
    let commands = system.commands();
    let from = |address: &str, agent: &str| {
        commands.with_header("x-forwarded-for", address).with_header("user-agent", agent)
    };
    let notices = || system.mails_to(ADA).iter().filter(|mail| mail.subject == SUBJECT).count();
    // The first one, right after the registration, is what everybody does; the others are known by then.
    for address in ["198.51.100.7", "198.51.100.7", "198.51.7.100"] {
        from(address, "browser").log_in(ADA, PASSWORD).await;
    }
    from("203.0.113.9", "browser").log_in(ADA, PASSWORD).await;
    wait_for("the notice of another network", || async { notices() == 1 }).await;
    from("198.51.100.7", "script").log_in(ADA, PASSWORD).await;
    wait_for("the notice of another client", || async { notices() == 2 }).await;
    from("203.0.113.9", "browser").log_in(ADA, PASSWORD).await;
    // Another one behind it: when its notice is there, the one before was looked at.
    from("192.0.2.1", "browser").log_in(ADA, PASSWORD).await;
    wait_for("the last notice", || async { notices() >= 3 }).await;
    assert_eq!(notices(), 3);
}
