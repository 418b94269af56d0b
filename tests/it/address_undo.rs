//! An owner takes an account back whose address somebody else has changed.

use e2e::{Answer, Client, Mail, PASSWORD, Pair, System, wait_for};
use serde_json::json;

use crate::damage::Damage;
use crate::importing::import;
use crate::verifying::is_sound;

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

/// Lets the reservation of the address that was given up last end by its time, as if it had gone by.
async fn end_reservation(system: &System) {
    let damage = Damage::of(system).await;
    let claims = damage.messages("USERS", "uq.email.*").await;
    let released = claims.iter().rfind(|claim| claim.json()["state"] == "released").unwrap();
    let mut claim = released.json();
    claim["reserved"]["until"] = "2020-01-01T00:00:00.000Z".into();
    let headers = released.headers_of_a_copy();
    damage.write(&released.subject, headers, claim.to_string().into()).await;
}

/// A thief who registers with the address from before would defeat its owner's link.
#[tokio::test]
async fn every_address_from_before_is_reserved_for_its_owner_until_the_undo() {
    let system = System::shared().await;
    let commands = system.commands();
    let (admin, _) = system.as_administrator().await;
    verified_user(&system, ADA).await;
    verified_user(&system, "second@evil.example").await;
    let further = "further@evil.example";
    move_away(&system, ADA, THIEF, PASSWORD).await;
    let way_back = mailed(&system, ADA, "undo-email-change").await;
    move_away(&system, THIEF, further, PASSWORD).await;

    // A->B->C: A and B, in any spelling.
    for email in [ADA, "ADA@Example.com", THIEF, further] {
        let refused = commands.register(email).await;
        assert_eq!((refused.status, refused.code()), (409, "email-taken"), "{email}");
    }
    let body = json!({"email": ADA, "password": PASSWORD});
    assert_eq!(admin.post("/api/v1/users", &body).await.expect(409).code(), "email-taken");
    let line = json!({"email": ADA}).to_string();
    let imported = import(&admin, &line).await.expect(200).lines();
    assert_eq!(imported[0]["error"]["code"], "email-taken", "{imported:?}");
    let bearer =
        commands.with_token(&commands.log_in("second@evil.example", PASSWORD).await.access);
    let body = json!({"new_email": ADA, "current_password": PASSWORD});
    bearer.post("/api/v1/auth/change-email", &body).await.expect(202);
    let confirm = mailed(&system, ADA, "confirm-email").await;
    let body = json!({"token": confirm.token()});
    let refused = commands.post("/api/v1/auth/change-email-confirm", &body).await.expect(409);
    assert_eq!(refused.code(), "email-taken");
    let shown = system.roster(&["user", "show", ADA]);
    let said = String::from_utf8_lossy(&shown.stderr);
    assert!(said.contains("it is reserved for the user"), "{said}");

    undo(&commands, &way_back).await.expect(204);
    // What the thief had is reserved for nobody any more.
    for email in [THIEF, further] {
        commands.register(email).await.expect(201);
    }
    assert_eq!(commands.register(ADA).await.expect(409).code(), "email-taken");
    is_sound(&system, &[]);
}

#[tokio::test]
async fn whoever_changed_an_address_takes_it_again() {
    let system = System::shared().await;
    verified_user(&system, ADA).await;
    move_away(&system, ADA, THIEF, PASSWORD).await;
    move_away(&system, THIEF, ADA, PASSWORD).await;
    let refused = system.commands().register(THIEF).await.expect(409);
    assert_eq!(refused.code(), "email-taken");
}

/// The thief asks for the old address, the owner confirms it, and the thief undoes that.
#[tokio::test]
async fn an_address_that_was_taken_back_stays_reserved_when_that_is_undone() {
    let system = System::shared().await;
    let commands = system.commands();
    verified_user(&system, ADA).await;
    move_away(&system, ADA, THIEF, PASSWORD).await;
    let way_back = mailed(&system, ADA, "undo-email-change").await;
    move_away(&system, THIEF, ADA, PASSWORD).await;
    let thiefs_way_back = mailed(&system, THIEF, "undo-email-change").await;

    undo(&commands, &thiefs_way_back).await.expect(204);
    assert_eq!(commands.register(ADA).await.expect(409).code(), "email-taken");
    undo(&commands, &way_back).await.expect(204);
    undo(&commands, &thiefs_way_back).await.expect(400);
    let reset = json!({"email": ADA});
    commands.post("/api/v1/auth/password-reset-request", &reset).await.expect(202);
    let link = mailed(&system, ADA, "reset-password").await;
    let body = json!({"token": link.token(), "new_password": NEW_PASSWORD});
    commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
    commands.log_in(ADA, NEW_PASSWORD).await;
    is_sound(&system, &[]);
}

#[tokio::test]
async fn a_reservation_ends_with_its_user() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    verified_user(&system, ADA).await;
    let inside = move_away(&system, ADA, THIEF, PASSWORD).await;
    system.commands().register(ADA).await.expect(409);
    let me = system.queries().with_token(&inside.access).get("/api/v1/auth/me").await.expect(200);
    let id = me.body["id"].as_str().unwrap();
    admin.delete(&format!("/api/v1/users/{id}")).await.expect(204);
    system.commands().register(ADA).await.expect(201);
}

#[tokio::test]
async fn an_address_that_is_taken_after_its_reservation_is_not_given_back() {
    let system = System::shared().await;
    let commands = system.commands();
    verified_user(&system, ADA).await;
    move_away(&system, ADA, THIEF, PASSWORD).await;
    let way_back = mailed(&system, ADA, "undo-email-change").await;
    end_reservation(&system).await;
    let other = commands.register(ADA).await.expect(201);
    assert_eq!(undo(&commands, &way_back).await.expect(409).code(), "email-taken");
    // Nor does the page offer it.
    let page = format!("/links/undo-email-change?token={}", way_back.token());
    let opened = commands.send("GET", &page, None).await.expect(409);
    assert!(!format!("{:?}", opened.body).contains("<form"), "{opened:?}");
    let (admin, _) = system.as_administrator().await;
    admin.delete(other.header("location").unwrap()).await.expect(204);
    commands.send("GET", &page, None).await.expect(200);
    undo(&commands, &way_back).await.expect(204);
}

#[tokio::test]
async fn a_reserved_address_is_concealed_like_a_taken_one() {
    let system = System::shared_with(&[("ROSTER_REGISTRATION_CONCEAL_EXISTING", "true")]).await;
    let commands = system.commands();
    verified_user(&system, ADA).await;
    move_away(&system, ADA, THIEF, PASSWORD).await;
    let before = system.events().await.len();
    let reserved = commands.register(ADA).await.expect(202);
    let taken = commands.register(THIEF).await.expect(202);
    assert_eq!(reserved.told(), taken.told());
    assert_eq!(system.events().await.len(), before, "nobody was made");
    assert_eq!(reserved.told(), commands.register("free@example.com").await.expect(202).told());
}
