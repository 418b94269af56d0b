//! What an owner's recovery ends: everything that was pending on the account, and whoever was inside.

use e2e::{Client, Mail, PASSWORD, Pair, System, wait_for};
use serde_json::{Value, json};

const NEW_PASSWORD: &str = "another password for tests";

/// The newest link of a purpose in the mails to an address, once there is one.
async fn mailed(system: &System, to: &str, purpose: &str) -> Mail {
    let newest = || {
        let is_it = |mail: &Mail| mail.link.as_ref().is_some_and(|link| link.purpose == purpose);
        system.mails_to(to).into_iter().rfind(is_it)
    };
    wait_for("a mail", || async { newest().is_some() }).await;
    newest().unwrap()
}

/// Makes a user with a verified address and a password; the path of the user.
async fn verified_user(admin: &Client, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD, "email_verified": true});
    let made = admin.post("/api/v1/users", &body).await.expect(201);
    made.header("location").unwrap().to_owned()
}

/// Asks for another address, and waits for the mails: the link to confirm and the one to abort.
async fn change_of_address(system: &System, caller: &Client, from: &str, to: &str) -> [Mail; 2] {
    let body = json!({"new_email": to, "current_password": PASSWORD});
    caller.post("/api/v1/auth/change-email", &body).await.expect(202);
    let confirm = mailed(system, to, "confirm-email").await;
    [confirm, mailed(system, from, "abort-email-change").await]
}

fn token(mail: &Mail) -> Value {
    json!({"token": mail.token()})
}

async fn post(client: &Client, path: &str) -> u16 {
    client.send("POST", path, None).await.status
}

#[tokio::test]
async fn a_pending_change_of_address_dies_with_every_recovery() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let recoveries =
        ["change", "reset", "logout-all", "logout-of", "disable", "roles", "set-password"];
    for recovery in recoveries {
        let (old, new) = (format!("{recovery}@example.com"), format!("{recovery}@evil.example"));
        let path = verified_user(&admin, &old).await;
        let bearer = commands.with_token(&commands.log_in(&old, PASSWORD).await.access);
        let [confirm, abort] = change_of_address(&system, &bearer, &old, &new).await;
        match recovery {
            "change" => {
                let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
                bearer.post("/api/v1/auth/change-password", &body).await.expect(204);
            }
            "logout-all" => assert_eq!(post(&bearer, "/api/v1/auth/logout-all").await, 204),
            "logout-of" => assert_eq!(post(&admin, &format!("{path}/logout-all")).await, 200),
            "disable" => {
                assert_eq!(post(&admin, &format!("{path}/disable")).await, 200);
                assert_eq!(post(&admin, &format!("{path}/enable")).await, 200);
            }
            "roles" => {
                admin.patch(&path, &json!({"roles": ["user", "clerk"]})).await.expect(200);
            }
            _ => {
                let purpose = if recovery == "reset" {
                    let request = json!({"email": old});
                    commands
                        .post("/api/v1/auth/password-reset-request", &request)
                        .await
                        .expect(202);
                    "reset-password"
                } else {
                    assert_eq!(post(&admin, &format!("{path}/password-reset")).await, 202);
                    "set-password"
                };
                let link = mailed(&system, &old, purpose).await;
                let body = json!({"token": link.token(), "new_password": NEW_PASSWORD});
                commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
            }
        }
        let call = "/api/v1/auth/change-email-confirm";
        let refused = commands.post(call, &token(&confirm)).await;
        assert_eq!((refused.status, refused.code()), (400, "invalid-token"), "{recovery}");
        // The way back stays open, whoever has changed the password meanwhile.
        let call = "/api/v1/auth/change-email-abort";
        assert_eq!(commands.post(call, &token(&abort)).await.status, 204, "{recovery}");
    }
}

/// The session in an access token.
async fn current_session(queries: &Client, access: &str) -> String {
    let sessions = queries.with_token(access).get("/api/v1/auth/sessions").await.expect(200);
    let is_current = |session: &&Value| session["current"] == true;
    let current = sessions.body["items"].as_array().unwrap().iter().find(is_current).unwrap();
    current["id"].as_str().unwrap().to_owned()
}

/// The owner throws a thief's session out, and with it what the thief has asked for.
#[tokio::test]
async fn a_pending_change_of_address_dies_with_the_session_that_asked_for_it() {
    let system = System::shared_with(&[("ROSTER_SESSIONS_PER_USER_MAX", "2")]).await;
    let (admin, queries) = system.as_administrator().await;
    let commands = system.commands();
    for end in ["by-owner", "logout", "by-token", "cap", "theft", "other"] {
        let (old, new) = (format!("{end}@example.com"), format!("{end}@evil.example"));
        verified_user(&admin, &old).await;
        let owner = commands.log_in(&old, PASSWORD).await;
        let thief = commands.log_in(&old, PASSWORD).await;
        let inside = commands.with_token(&thief.access);
        let [confirm, abort] = change_of_address(&system, &inside, &old, &new).await;
        match end {
            "by-owner" => {
                let path = format!(
                    "/api/v1/auth/sessions/{}",
                    current_session(&queries, &thief.access).await
                );
                commands.with_token(&owner.access).delete(&path).await.expect(204);
            }
            "logout" => assert_eq!(post(&inside, "/api/v1/auth/logout").await, 204),
            "by-token" => drop(commands.log_out_with(&thief.refresh).await.expect(204)),
            "cap" => {
                for _ in 0..2 {
                    commands.log_in(&old, PASSWORD).await;
                }
                commands.refresh(&thief.refresh).await.expect(401);
            }
            "theft" => {
                let next = commands.refresh(&thief.refresh).await.expect(200);
                let next = next.body["refresh_token"].as_str().unwrap().to_owned();
                commands.refresh(&next).await.expect(200);
                commands.refresh(&thief.refresh).await.expect(401);
            }
            // That of the owner is another matter.
            _ => drop(commands.log_out_with(&owner.refresh).await.expect(204)),
        }
        let page = format!("/links/confirm-email?token={}", confirm.token());
        let page = commands.send("GET", &page, None).await.status;
        let call = "/api/v1/auth/change-email-confirm";
        let confirmed = commands.post(call, &token(&confirm)).await;
        if end == "other" {
            assert_eq!((page, confirmed.status), (200, 204), "{end}");
            continue;
        }
        assert_eq!(page, 400, "{end}");
        assert_eq!((confirmed.status, confirmed.code()), (400, "invalid-token"), "{end}");
        let call = "/api/v1/auth/change-email-abort";
        assert_eq!(commands.post(call, &token(&abort)).await.status, 204, "{end}");
    }
}

#[tokio::test]
async fn an_invitation_outlives_a_change_of_roles() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let email = "invited@example.com";
    let made = admin.post("/api/v1/users", &json!({"email": email})).await.expect(201);
    let link = mailed(&system, email, "set-password").await;
    let roles = json!({"roles": ["user", "clerk"]});
    admin.patch(made.header("location").unwrap(), &roles).await.expect(200);
    let body = json!({"token": link.token(), "new_password": NEW_PASSWORD});
    system.commands().post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
}

#[tokio::test]
async fn a_confirmed_change_of_address_ends_every_session_but_its_own() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    for from_within in [false, true] {
        let (old, new) =
            (format!("{from_within}@example.com"), format!("{from_within}@new.example"));
        verified_user(&admin, &old).await;
        let other: Pair = commands.log_in(&old, PASSWORD).await;
        let own: Pair = commands.log_in(&old, PASSWORD).await;
        let bearer = commands.with_token(&own.access);
        let [confirm, _] = change_of_address(&system, &bearer, &old, &new).await;
        let client = if from_within { &bearer } else { &commands };
        client.post("/api/v1/auth/change-email-confirm", &token(&confirm)).await.expect(204);
        commands.refresh(&other.refresh).await.expect(401);
        commands.refresh(&own.refresh).await.expect(if from_within { 200 } else { 401 });
        commands.log_in(&new, PASSWORD).await;
    }
}

const VERIFY: &str = "/api/v1/auth/verify-email-confirm";

/// Registers an address, and waits for the link that verifies it.
async fn registered(system: &System, email: &str) -> Mail {
    system.commands().register(email).await.expect(201);
    mailed(system, email, "verify-email").await
}

#[tokio::test]
async fn following_the_link_to_an_address_leaves_no_stranger_inside() {
    let system = System::shared().await;
    let commands = system.commands();
    let (squatter, victim) = (PASSWORD, NEW_PASSWORD);
    let email = "victim@example.com";
    let link = registered(&system, email).await;
    let inside = commands.log_in(email, squatter).await;

    // One click of habit changes nothing and uses nothing up; nor does the token of another user.
    let only = token(&link);
    assert_eq!(commands.post(VERIFY, &only).await.expect(403).code(), "password-required");
    commands.register("eve@example.com").await.expect(201);
    let eve = commands.log_in("eve@example.com", PASSWORD).await;
    commands.with_token(&eve.access).post(VERIFY, &only).await.expect(403);
    let with = |member: &str, text: &str| json!({"token": link.token(), member: text});
    let wrong = commands.post(VERIFY, &with("password", "a guess")).await.expect(403);
    assert_eq!(wrong.code(), "wrong-password");
    let weak = commands.post(VERIFY, &with("new_password", "short")).await.expect(422);
    assert_eq!(weak.body["errors"][0]["pointer"], "/new_password");
    let both = json!({"token": link.token(), "password": squatter, "new_password": victim});
    commands.post(VERIFY, &both).await.expect(422);

    let taken = commands.with_header("idempotency-key", "mine");
    taken.post(VERIFY, &with("new_password", victim)).await.expect(204);
    taken.post(VERIFY, &with("new_password", victim)).await.expect(204);
    taken.post(VERIFY, &with("new_password", "a third password here")).await.expect(401);
    taken.post(VERIFY, &only).await.expect(422);
    let login = json!({"email": email, "password": squatter});
    commands.post("/api/v1/auth/login", &login).await.expect(401);
    commands.refresh(&inside.refresh).await.expect(401);
    let pair = commands.log_in(email, victim).await;
    let me = system.queries().with_token(&pair.access).get("/api/v1/auth/me").await.expect(200);
    assert_eq!(me.body["email_verified"], true);
}

#[tokio::test]
async fn an_honest_user_verifies_with_a_password_or_from_within() {
    let system = System::shared().await;
    let commands = system.commands();
    let (by_password, from_within) = ("ada@example.com", "bob@example.com");
    let link = registered(&system, by_password).await;
    let before = commands.log_in(by_password, PASSWORD).await;
    let body = json!({"token": link.token(), "password": PASSWORD});
    let keyed = commands.with_header("idempotency-key", "proof");
    keyed.post(VERIFY, &body).await.expect(204);
    keyed.post(VERIFY, &body).await.expect(204);
    let other = json!({"token": link.token(), "password": "a guess"});
    keyed.post(VERIFY, &other).await.expect(401);
    commands.post(VERIFY, &body).await.expect(400);
    commands.refresh(&before.refresh).await.expect(401);
    commands.log_in(by_password, PASSWORD).await;

    // Who is logged in needs no password, and stays inside; other sessions end.
    let link = registered(&system, from_within).await;
    let other = commands.log_in(from_within, PASSWORD).await;
    let own = commands.log_in(from_within, PASSWORD).await;
    commands.with_token(&own.access).post(VERIFY, &token(&link)).await.expect(204);
    commands.refresh(&other.refresh).await.expect(401);
    let own = Pair::of(&commands.refresh(&own.refresh).await.expect(200).body);
    let me = system.queries().with_token(&own.access).get("/api/v1/auth/me").await.expect(200);
    assert_eq!(me.body["email_verified"], true);
}

#[tokio::test]
async fn the_page_of_a_verification_takes_a_new_password() {
    let system = System::shared().await;
    let commands = system.commands();
    let email = "victim@example.com";
    let link = registered(&system, email).await;
    let (_, page) = commands.get_text(&format!("/links/verify-email?token={}", link.token())).await;
    for field in ["name=\"password\"", "name=\"new_password\""] {
        assert!(page.contains(field), "{page}");
    }
    let fields = format!("token={}&new_password=another+password+for+tests", link.token());
    let form = Some(("application/x-www-form-urlencoded", fields.into_bytes()));
    commands.send("POST", "/links/verify-email", form).await.expect(200);
    commands.log_in(email, NEW_PASSWORD).await;
}
