//! The same request again is the same answer.

use e2e::{Client, PASSWORD, System, rename};
use futures::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::damage::Damage;

use crate::erasing::wait_until_erased;

#[tokio::test]
async fn a_repeated_registration_is_the_first_one() {
    let system = System::shared().await;
    let with_key = system.commands().with_header("idempotency-key", "key 1");
    let body = json!({"email": "ada@example.com", "password": PASSWORD, "full_name": "Ada"});
    let first = with_key.post("/api/v1/auth/register", &body).await.expect(201);

    // Also when the user has changed since.
    let (admin, _) = system.as_administrator().await;
    let path = first.header("location").unwrap().to_owned();
    admin.patch(&path, &rename("Ada Lovelace")).await.expect(200);
    let again = with_key.post("/api/v1/auth/register", &body).await.expect(201);
    assert_eq!(again.body, first.body);
    for header in ["location", "etag", "roster-position"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
    assert_eq!(system.events().await.len(), 3, "administrator, Ada, her name");

    let mut other = body.clone();
    other["full_name"] = "Eve".into();
    let refused = with_key.post("/api/v1/auth/register", &other).await.expect(422);
    assert_eq!(refused.code(), "idempotency-key-reused");
    let mut wrong = body.clone();
    wrong["password"] = "another password".into();
    with_key.post("/api/v1/auth/register", &wrong).await.expect(401);
    // Without the key it is a new wish.
    let taken = system.commands().post("/api/v1/auth/register", &body).await.expect(409);
    assert_eq!(taken.code(), "email-taken");
    // Keys are per caller: another address has its own.
    let mut stranger = body.clone();
    stranger["email"] = "eve@example.com".into();
    with_key.post("/api/v1/auth/register", &stranger).await.expect(201);
}

#[tokio::test]
async fn changes_and_deletions_are_repeated_to_no_effect() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let user = system.commands().register("ada@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();

    let with_key = admin.with_header("idempotency-key", "change");
    let first = with_key.patch(&path, &rename("One")).await.expect(200);
    admin.patch(&path, &rename("Two")).await.expect(200);
    let again = with_key.patch(&path, &rename("One")).await.expect(200);
    assert_eq!((again.body.clone(), again.position()), (first.body.clone(), first.position()));
    with_key.patch(&path, &rename("Three")).await.expect(422);

    let several = json!({"full_name": "Four", "roles": ["user", "clerk"], "status": "disabled"});
    let with_key = admin.with_header("idempotency-key", "several");
    let first = with_key.patch(&path, &several).await.expect(200);
    assert_eq!(first.body["revision"], 6, "three events");
    let again = with_key.patch(&path, &several).await.expect(200);
    assert_eq!((again.body.clone(), again.position()), (first.body.clone(), first.position()));

    let with_key = admin.with_header("idempotency-key", "delete");
    let first = with_key.delete(&path).await.expect(204);
    let again = with_key.delete(&path).await.expect(204);
    assert_eq!(again.position(), first.position());
    assert_eq!(admin.delete(&path).await.expect(204).position(), first.position());
}

#[tokio::test]
async fn the_same_key_at_once_is_done_once() {
    let system = System::shared().await;
    let with_key = system.commands().with_header("idempotency-key", "race");
    let answers = join_all((0..20).map(|_| with_key.register("ada@example.com"))).await;
    let done: Vec<_> = answers.iter().filter(|a| a.status == 201).collect();
    assert!(!done.is_empty());
    for answer in &answers {
        match answer.status {
            201 => assert_eq!(answer.body, done[0].body),
            _ => assert_eq!(answer.code(), "idempotency-key-in-flight", "{answer:?}"),
        }
    }
    assert_eq!(system.events().await.len(), 2, "administrator and one user");
}

#[tokio::test]
async fn a_password_change_that_is_sent_many_times_at_once_happens_once() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    let token = commands.login("ada@example.com", PASSWORD).await;
    let with_key = commands.with_token(&token).with_header("idempotency-key", "race");
    let body = json!({"current_password": PASSWORD, "new_password": "another password for tests"});
    let change = || with_key.post("/api/v1/auth/change-password", &body);
    let answers = join_all((0..20).map(|_| change())).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 204);
    assert!(!done.is_empty() && !refused.is_empty(), "{answers:?}");
    for answer in refused {
        assert_eq!((answer.status, answer.code()), (409, "idempotency-key-in-flight"));
    }
    assert_eq!(change().await.expect(204).position(), done[0].position());
    assert_eq!(system.events().await.len(), 3, "administrator, Ada, her password");
}

#[tokio::test]
async fn a_registration_that_is_repeated_for_a_token_goes_the_way_of_a_login() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let with_key = system.commands().with_header("idempotency-key", "token");
    let path = "/api/v1/auth/register?with_token=true";
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let first = with_key.post(path, &body).await.expect(201);
    let user = first.header("location").unwrap().to_owned();

    // The roles of today, in an answer that is otherwise the first one.
    admin.patch(&user, &json!({"roles": ["user", "operator"]})).await.expect(200);
    let again = with_key.post(path, &body).await.expect(201);
    assert_eq!((&again.body["user"], again.position()), (&first.body["user"], first.position()));
    let token = again.body["token"]["access_token"].as_str().unwrap();
    queries.with_token(token).get("/api/v1/users").await.expect(200);

    // Nothing of a disabled user is good, and no new token is made.
    admin.send("POST", &format!("{user}/disable"), None).await.expect(200);
    let refused = with_key.post(path, &body).await.expect(401);
    assert_eq!(refused.code(), "invalid-credentials");
    assert_eq!(refused.body.get("token"), None);
    admin.send("POST", &format!("{user}/enable"), None).await.expect(200);
    with_key.post(path, &body).await.expect(201);

    // The password of today.
    let mut wrong = body.clone();
    wrong["password"] = "another password".into();
    with_key.post(path, &wrong).await.expect(401);
    admin.delete(&user).await.expect(204);
    assert_eq!(with_key.post(path, &body).await.expect(422).code(), "idempotency-key-reused");
}

/// A request that was held up must not bring back who is gone; with a new key it is a new registration.
#[tokio::test]
async fn the_key_of_a_deleted_user_makes_nobody_again() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let body = json!({"email": "ada@example.com", "password": PASSWORD});
    let registering = system.commands().with_header("idempotency-key", "key 1");
    let creating = admin.with_header("idempotency-key", "key 1");
    for (client, path) in [(&registering, "/api/v1/auth/register"), (&creating, "/api/v1/users")] {
        let made = client.post(path, &body).await.expect(201);
        let user = made.header("location").unwrap().to_owned();
        admin.delete(&user).await.expect(204);
        let refused = client.post(path, &body).await.expect(422);
        assert_eq!(refused.code(), "idempotency-key-reused");
        let id = user.rsplit('/').next().unwrap();
        wait_until_erased(&system, id).await;
        let again = client.post(path, &body).await.expect(422);
        assert_eq!(
            (again.code(), &again.body["detail"]),
            (refused.code(), &refused.body["detail"])
        );
        assert!(again.body["detail"].as_str().unwrap().contains("deleted"), "{again:?}");
    }
    system
        .commands()
        .with_header("idempotency-key", "key 2")
        .post("/api/v1/auth/register", &body)
        .await
        .expect(201);
}

#[tokio::test]
async fn a_repeated_request_that_had_nothing_to_do_undoes_no_later_change() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let user = system.commands().register("ada@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();

    let with_key = admin.with_header("idempotency-key", "rename");
    let first = with_key.patch(&path, &rename("Test User")).await.expect(200);
    assert_eq!(first.body["revision"], 1, "it was so already");
    admin.patch(&path, &rename("Another")).await.expect(200);
    let again = with_key.patch(&path, &rename("Test User")).await.expect(200);
    assert_eq!((again.body.clone(), again.position()), (first.body.clone(), first.position()));
    let reused = with_key.patch(&path, &rename("Third")).await.expect(422);
    assert_eq!(reused.code(), "idempotency-key-reused");

    let enable = admin.with_header("idempotency-key", "enable");
    let (enabled, disabled) = (format!("{path}/enable"), format!("{path}/disable"));
    enable.send("POST", &enabled, None).await.expect(200);
    let last = admin.send("POST", &disabled, None).await.expect(200);
    let again = enable.send("POST", &enabled, None).await.expect(200);
    assert_eq!((&again.body["status"], &again.body["revision"]), (&json!("active"), &json!(2)));
    let now = admin.patch(&path, &json!({})).await.expect(200);
    assert_eq!(
        (&now.body["status"], &now.body["full_name"]),
        (&json!("disabled"), &json!("Another"))
    );
    assert_eq!(now.body["revision"], last.body["revision"], "nothing happened since");

    admin.delete(&path).await.expect(204);
    let with_key = admin.with_header("idempotency-key", "delete");
    let first = with_key.delete(&path).await.expect(204);
    assert_eq!(with_key.delete(&path).await.expect(204).position(), first.position());
}

/// What no fingerprint keeps is proved before anything is answered.
#[tokio::test]
async fn a_repeated_request_with_other_secrets_is_refused() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    let with_key = commands.with_token(&pair.access).with_header("idempotency-key", "change");
    let path = "/api/v1/auth/change-password";
    let change = |new: &str| json!({"current_password": PASSWORD, "new_password": new});
    with_key.post(path, &change("another password for tests")).await.expect(204);
    let pair = commands.refresh(&pair.refresh).await.expect(200);
    let access = pair.body["access_token"].as_str().unwrap();
    let with_key = commands.with_token(access).with_header("idempotency-key", "change");
    with_key.post(path, &change("another password for tests")).await.expect(204);
    let refused = with_key.post(path, &change("a third password here")).await.expect(401);
    assert_eq!(refused.code(), "invalid-credentials");
    commands.log_in("ada@example.com", "another password for tests").await;

    let request = json!({"email": "ada@example.com"});
    commands.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    let is_reset =
        |mail: &e2e::Mail| mail.link.as_ref().is_some_and(|link| link.purpose == "reset-password");
    let mails = || system.mails_to("ada@example.com");
    e2e::wait_for("the mail", || async { mails().iter().any(is_reset) }).await;
    let link = mails().into_iter().find(is_reset).unwrap();
    let with_key = commands.with_header("idempotency-key", "reset");
    let reset = |new: &str| json!({"token": link.token(), "new_password": new});
    let path = "/api/v1/auth/password-reset-confirm";
    let first = with_key.post(path, &reset("a third password here")).await.expect(204);
    let again = with_key.post(path, &reset("a third password here")).await.expect(204);
    assert_eq!(again.position(), first.position());
    with_key.post(path, &reset("a fourth password here")).await.expect(401);

    // Whether there is a password is no secret.
    let (admin, _) = system.as_administrator().await;
    let with_key = admin.with_header("idempotency-key", "make");
    let mut body = json!({"email": "bob@example.com", "password": PASSWORD});
    with_key.post("/api/v1/users", &body).await.expect(201);
    with_key.post("/api/v1/users", &body).await.expect(201);
    body.as_object_mut().unwrap().remove("password");
    let reused = with_key.post("/api/v1/users", &body).await.expect(422);
    assert_eq!(reused.code(), "idempotency-key-reused");
}

/// Keys are remembered in the log of users, and a caller may make as many as they like.
#[tokio::test]
async fn a_request_that_does_nothing_is_not_remembered() {
    let system = System::shared().await;
    let damage = Damage::of(&system).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    commands.register("ada@example.com").await.expect(201);
    let (here, there) = (
        commands.log_in("ada@example.com", PASSWORD).await,
        commands.log_in("ada@example.com", PASSWORD).await,
    );
    let keyed =
        |client: &Client| client.with_header("idempotency-key", &Uuid::now_v7().to_string());
    let records = async || damage.messages("USERS", "ik.>").await.len();
    let logout = json!({ "refresh_token": there.refresh });
    keyed(&commands).post("/api/v1/auth/logout", &logout).await.expect(204);
    let before = records().await;

    let ada = commands.with_token(&here.access);
    for _ in 0..3 {
        let nobodys = format!("/api/v1/auth/sessions/{}", Uuid::now_v7());
        keyed(&ada).send("DELETE", &nobodys, None).await.expect(404);
        // A session that has ended already.
        keyed(&commands).post("/api/v1/auth/logout", &logout).await.expect(204);
        // An address that is verified already.
        let request = "/api/v1/auth/verify-email-request";
        keyed(&admin).send("POST", request, None).await.expect(202);
    }
    assert_eq!(records().await, before);
    keyed(&ada).send("POST", "/api/v1/auth/logout", None).await.expect(204);
    assert_eq!(records().await, before + 1, "and what does something is");
}
