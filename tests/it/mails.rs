//! What is asked for by mail, and what the links in mails do.

use async_nats::jetstream;
use e2e::{Answer, Client, Mail, PASSWORD, Pair, System, wait_for};
use events::Fact;
use futures::future::join_all;
use serde_json::{Value, json};

const ADA: &str = "ada@example.com";
const NEW_PASSWORD: &str = "another password for tests";

async fn confirm(system: &System, call: &str, body: Value) -> Answer {
    system.commands().post(&format!("/api/v1/auth/{call}"), &body).await
}

/// The newest mail of a kind to an address, once there are so many.
async fn mail(system: &System, to: &str, purpose: &str, number: usize) -> Mail {
    let of_purpose = || {
        let mut mails = system.mails_to(to);
        mails.retain(|mail| mail.link.as_ref().is_some_and(|link| link.purpose == purpose));
        mails
    };
    wait_for("a mail", || async { of_purpose().len() >= number }).await;
    let mut mails = of_purpose();
    assert_eq!(mails.len(), number, "{mails:?}");
    mails.pop().unwrap()
}

/// Registers Ada and verifies the address.
async fn verified(system: &System) -> Pair {
    system.commands().register(ADA).await.expect(201);
    let token = mail(system, ADA, "verify-email", 1).await.token().to_owned();
    let proof = json!({"token": token, "password": PASSWORD});
    confirm(system, "verify-email-confirm", proof).await.expect(204);
    system.commands().log_in(ADA, PASSWORD).await
}

async fn me(system: &System, access: &str) -> Value {
    system.queries().with_token(access).get("/api/v1/auth/me").await.expect(200).body
}

async fn request_reset(system: &System, email: &str) -> Answer {
    confirm(system, "password-reset-request", json!({"email": email})).await.expect(202)
}

#[tokio::test]
async fn an_address_is_verified_by_the_mailed_link_alone_and_once() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register("Ada@Example.com").await.expect(201);
    let before = commands.log_in(ADA, PASSWORD).await;
    let first = mail(&system, "Ada@Example.com", "verify-email", 1).await;
    assert_eq!(me(&system, &before.access).await["email_verified"], false);
    for garbage in ["", "x", &first.token()[1..], &format!("{}A", first.token())] {
        let refused = confirm(&system, "verify-email-confirm", json!({"token": garbage})).await;
        assert_eq!(refused.expect(400).code(), "invalid-token");
    }

    // A newer link voids the older one.
    let bearer = commands.with_token(&before.access);
    bearer.send("POST", "/api/v1/auth/verify-email-request", None).await.expect(202);
    let second = mail(&system, "Ada@Example.com", "verify-email", 2).await;
    let token = |mail: &Mail| json!({"token": mail.token(), "password": PASSWORD});
    confirm(&system, "verify-email-confirm", token(&first)).await.expect(400);
    confirm(&system, "verify-email-confirm", token(&second)).await.expect(204);
    confirm(&system, "verify-email-confirm", token(&second)).await.expect(400);

    // Whoever was inside before, is outside now.
    commands.refresh(&before.refresh).await.expect(401);
    let after = commands.log_in(ADA, PASSWORD).await;
    assert_eq!(me(&system, &after.access).await["email_verified"], true);
    let again = commands.with_token(&after.access);
    again.send("POST", "/api/v1/auth/verify-email-request", None).await.expect(202);
}

#[tokio::test]
async fn asking_for_a_reset_tells_nothing_and_changes_nothing() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    system.commands().register(ADA).await.expect(201);
    let disabled = system.commands().register("disabled@example.com").await.expect(201);
    let path = disabled.header("location").unwrap();
    admin.patch(path, &json!({"status": "disabled"})).await.expect(200);
    let events = system.events().await.len();

    let mut answers = Vec::new();
    let host = system.commands().with_header("x-forwarded-host", "evil.example");
    for email in ["ADA@example.com", "nobody@example.com", "disabled@example.com"] {
        let path = "/api/v1/auth/password-reset-request";
        answers.push(host.post(path, &json!({"email": email})).await.expect(202));
    }
    assert!(answers.iter().all(|answer| answer.told() == answers[0].told()), "{answers:?}");
    for malformed in [json!({"email": "x"}), json!({}), json!({"email": ADA, "x": 1})] {
        confirm(&system, "password-reset-request", malformed).await.expect(422);
    }

    // To the address as it is stored, with a link whose base is configuration.
    let reset = mail(&system, ADA, "reset-password", 1).await;
    assert!(reset.link.unwrap().url.starts_with(e2e::LINK_BASE));
    assert_eq!(system.events().await.len(), events, "nothing happened to anybody");
    let context = jetstream::new(system.operator().await);
    wait_for("every order to be worked off", || async {
        let mut mails = context.get_stream("MAILS").await.unwrap();
        mails.info().await.unwrap().state.messages == 0
    })
    .await;
    assert_eq!(system.mails_to("nobody@example.com"), Vec::new());
    let reset_to_disabled = system
        .mails_to("disabled@example.com")
        .into_iter()
        .find(|mail| mail.link.as_ref().is_some_and(|link| link.purpose == "reset-password"));
    assert_eq!(reset_to_disabled, None);
}

#[tokio::test]
async fn a_reset_is_done_once_and_ends_everything_before_it() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let before = commands.log_in(ADA, PASSWORD).await;
    request_reset(&system, ADA).await;
    let older = mail(&system, ADA, "reset-password", 1).await;
    request_reset(&system, ADA).await;
    let newer = mail(&system, ADA, "reset-password", 2).await;

    let reset =
        |mail: &Mail, password: &str| json!({"token": mail.token(), "new_password": password});
    let path = "password-reset-confirm";
    let void = confirm(&system, path, reset(&older, NEW_PASSWORD)).await.expect(400);
    assert_eq!(void.code(), "invalid-token", "a newer link was sent");
    // A refused password uses nothing up.
    for (password, code) in [
        (PASSWORD, "same-password"),
        ("short", "too-short"),
        ("password123", "common-password"),
        ("ada@example.com", "contains-context"),
    ] {
        let refused = confirm(&system, path, reset(&newer, password)).await.expect(422);
        assert_eq!(refused.body["errors"][0]["pointer"], "/new_password");
        assert_eq!(refused.body["errors"][0]["code"], code, "{refused:?}");
    }
    // A link opens one door.
    for other in ["verify-email-confirm", "change-email-confirm", "change-email-abort"] {
        confirm(&system, other, json!({"token": newer.token()})).await.expect(400);
    }

    let racing =
        join_all((0..100).map(|_| confirm(&system, path, reset(&newer, NEW_PASSWORD)))).await;
    let count = |status: u16| racing.iter().filter(|answer| answer.status == status).count();
    // Some may find the hashing queue full: they did nothing.
    assert_eq!((count(204), count(400) + count(503)), (1, 99), "{racing:?}");
    let events = system.events().await;
    let of_type = |wire_type: &str| {
        events.iter().filter(|logged| logged.event.fact.wire_type() == wire_type).count()
    };
    assert_eq!(of_type("user.password_changed.v1"), 1);
    assert_eq!(of_type("user.email_verified.v1"), 1, "whoever has the mailbox owns the address");

    commands.refresh(&before.refresh).await.expect(401);
    system.queries().with_token(&before.access).get("/api/v1/auth/me").await.expect(401);
    let old = json!({"email": ADA, "password": PASSWORD});
    commands.post("/api/v1/auth/login", &old).await.expect(401);
    let after = commands.log_in(ADA, NEW_PASSWORD).await;
    assert_eq!(me(&system, &after.access).await["email_verified"], true);
    wait_for("the owner to be told", || async {
        system.mails_to(ADA).iter().any(|mail| mail.link.is_none())
    })
    .await;
}

#[tokio::test]
async fn a_password_is_not_replaced_by_itself() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let pair = commands.log_in(ADA, PASSWORD).await;
    let bearer = commands.with_token(&pair.access);
    let change = |current: &str| json!({"current_password": current, "new_password": PASSWORD});
    let refused = bearer.post("/api/v1/auth/change-password", &change(PASSWORD)).await.expect(422);
    assert_eq!(refused.body["errors"][0]["pointer"], "/new_password");
    assert_eq!(refused.body["errors"][0]["code"], "same-password", "{refused:?}");
    // Whoever does not know the present one learns nothing about it.
    let wrong = bearer.post("/api/v1/auth/change-password", &change("wrong")).await.expect(403);
    assert_eq!(wrong.code(), "wrong-password");
    // Nothing has ended.
    commands.refresh(&pair.refresh).await.expect(200);
}

/// Another password, another address, a disabled user: each voids what was sent before.
#[tokio::test]
async fn a_link_is_void_when_what_it_was_made_for_has_changed() {
    let system = System::shared().await;
    let commands = system.commands();
    let pair = verified(&system).await;
    request_reset(&system, ADA).await;
    let reset = mail(&system, ADA, "reset-password", 1).await;
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    commands
        .with_token(&pair.access)
        .post("/api/v1/auth/change-password", &change)
        .await
        .expect(204);
    let with =
        |mail: &Mail| json!({"token": mail.token(), "new_password": "a third password here"});
    confirm(&system, "password-reset-confirm", with(&reset)).await.expect(400);

    request_reset(&system, ADA).await;
    let reset = mail(&system, ADA, "reset-password", 2).await;
    let (admin, queries) = system.as_administrator().await;
    let listed = queries.get("/api/v1/users?email=ada@example.com").await.expect(200);
    let path = format!("/api/v1/users/{}", listed.body["items"][0]["id"].as_str().unwrap());
    admin.patch(&path, &json!({"status": "disabled"})).await.expect(200);
    confirm(&system, "password-reset-confirm", with(&reset)).await.expect(400);
    admin.delete(&path).await.expect(204);
    confirm(&system, "password-reset-confirm", with(&reset)).await.expect(400);
}

#[tokio::test]
async fn an_address_changes_when_it_is_confirmed() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let unverified = commands.log_in(ADA, PASSWORD).await;
    let wish =
        |password: &str| json!({"new_email": "Ada@New.example", "current_password": password});
    let path = "/api/v1/auth/change-email";
    let refused = commands.with_token(&unverified.access).post(path, &wish(PASSWORD)).await;
    assert_eq!(refused.expect(403).code(), "email-not-verified");
    let token = mail(&system, ADA, "verify-email", 1).await.token().to_owned();
    let proof = json!({"token": token, "password": PASSWORD});
    confirm(&system, "verify-email-confirm", proof).await.expect(204);
    let pair = commands.log_in(ADA, PASSWORD).await;
    let bearer = commands.with_token(&pair.access);
    assert_eq!(bearer.post(path, &wish("wrong")).await.expect(403).code(), "wrong-password");

    // Called off from the old address.
    bearer.post(path, &wish(PASSWORD)).await.expect(202);
    let confirmation = mail(&system, "Ada@New.example", "confirm-email", 1).await;
    let notice = mail(&system, ADA, "abort-email-change", 1).await;
    assert_eq!(me(&system, &pair.access).await["email"], ADA, "nothing changes before");
    let token = |mail: &Mail| json!({"token": mail.token()});
    confirm(&system, "change-email-abort", token(&notice)).await.expect(204);
    confirm(&system, "change-email-confirm", token(&confirmation)).await.expect(400);

    // Taken by somebody else meanwhile.
    bearer.post(path, &wish(PASSWORD)).await.expect(202);
    let confirmation = mail(&system, "Ada@New.example", "confirm-email", 2).await;
    let eve = commands.register("ada@new.example").await.expect(201);
    let taken = confirm(&system, "change-email-confirm", token(&confirmation)).await.expect(409);
    assert_eq!(taken.code(), "email-taken");
    let fields = format!("token={}", confirmation.token()).into_bytes();
    let form = Some(("application/x-www-form-urlencoded", fields));
    let page = commands.send("POST", "/links/confirm-email", form).await.expect(409);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(me(&system, &pair.access).await["email"], ADA);
    let (admin, queries) = system.as_administrator().await;
    admin.delete(eve.header("location").unwrap()).await.expect(204);

    // Confirmed.
    confirm(&system, "change-email-confirm", token(&confirmation)).await.expect(204);
    confirm(&system, "change-email-confirm", token(&confirmation)).await.expect(400);
    confirm(&system, "change-email-abort", token(&notice)).await.expect(400);
    system.queries().with_token(&pair.access).get("/api/v1/auth/me").await.expect(401);
    let pair = commands.log_in("ada@new.example", PASSWORD).await;
    assert_eq!(me(&system, &pair.access).await["email"], "Ada@New.example");
    let old = json!({"email": ADA, "password": PASSWORD});
    commands.post("/api/v1/auth/login", &old).await.expect(401);
    // It is kept for whoever can take the account back.
    commands.register(ADA).await.expect(409);
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn whom_an_administrator_makes_chooses_the_password() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let body = json!({"email": ADA, "full_name": "Ada", "roles": ["user", "editor"]});
    let made = admin.post("/api/v1/users", &body).await.expect(201);
    assert_eq!(made.body["roles"], json!(["editor", "user"]));
    let path = made.header("location").unwrap().to_owned();
    let link = mail(&system, ADA, "set-password", 1).await;
    let set = json!({"token": link.token(), "new_password": NEW_PASSWORD});
    confirm(&system, "password-reset-confirm", set.clone()).await.expect(204);
    confirm(&system, "password-reset-confirm", set).await.expect(400);
    let pair = system.commands().log_in(ADA, NEW_PASSWORD).await;
    assert_eq!(me(&system, &pair.access).await["email_verified"], true);

    let plain = system.commands().with_token(&pair.access);
    let reset = format!("{path}/password-reset");
    plain.send("POST", &reset, None).await.expect(403);
    plain.post("/api/v1/users", &body).await.expect(403);
    admin.send("POST", &reset, None).await.expect(202);
    mail(&system, ADA, "set-password", 2).await;
    admin.post("/api/v1/users", &body).await.expect(409);
}

/// A page behind a link: opening it changes nothing, posting its form does.
#[tokio::test]
async fn the_pages_ask_before_they_do_anything() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let link = mail(&system, ADA, "verify-email", 1).await;
    let page = format!("/links/verify-email?token={}", link.token());
    for _ in 0..2 {
        let opened = commands.get(&page).await.expect(200);
        assert_eq!(opened.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(opened.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(opened.header("cache-control"), Some("no-store"));
        assert!(opened.header("content-security-policy").unwrap().contains("default-src 'none'"));
        // Posted to the path alone: the token stands in no further address.
        let text = String::from_utf8(opened.bytes).unwrap();
        assert!(text.contains("<form method=\"post\" action=\"verify-email\">"), "{text}");
    }
    let form = |fields: String| ("application/x-www-form-urlencoded", fields.into_bytes());
    let post =
        async |path: &str, fields: String| commands.send("POST", path, Some(form(fields))).await;
    // The account may be a stranger's: the token alone confirms nothing.
    post("/links/verify-email", format!("token={}", link.token())).await.expect(403);
    let with = |password: &str| format!("token={}&password={password}", link.token());
    post("/links/verify-email", with("wrong")).await.expect(403);
    post("/links/verify-email", with("a+password+for+tests")).await.expect(200);
    post("/links/verify-email", with("a+password+for+tests")).await.expect(400);
    commands.get(&page).await.expect(400);
    commands.get("/links/unknown?token=x").await.expect(404);
    commands.get("/links/reset-password").await.expect(400);

    request_reset(&system, ADA).await;
    let reset = mail(&system, ADA, "reset-password", 1).await;
    let with = |password: &str| format!("token={}&new_password={password}", reset.token());
    post("/links/reset-password", with("short")).await.expect(422);
    post("/links/reset-password", with("another+password+for+tests")).await.expect(200);
    post("/links/reset-password", with("another+password+for+tests")).await.expect(400);
    commands.log_in(ADA, NEW_PASSWORD).await;
    post("/links/reset-password", "x".repeat(40_000)).await.expect(413);
    commands.post("/links/reset-password", &json!({"token": reset.token()})).await.expect(415);
}

#[tokio::test]
async fn callers_change_and_delete_themselves() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let pair = commands.log_in(ADA, PASSWORD).await;
    let bearer = commands.with_token(&pair.access);
    let patch = json!({"full_name": "Ada King", "metadata": {"title": "Countess"}});
    let changed = bearer.patch("/api/v1/auth/me", &patch).await.expect(200);
    assert_eq!(changed.body["full_name"], "Ada King");
    for member in ["roles", "status", "email", "email_verified", "id"] {
        let refused = bearer.patch("/api/v1/auth/me", &json!({member: "x"})).await.expect(422);
        assert_eq!(refused.body["errors"][0]["code"], "unknown-member");
    }
    let delete = async |client: &Client, password: &str| {
        let body = json!({"current_password": password}).to_string().into_bytes();
        client.send("DELETE", "/api/v1/auth/me", Some(("application/json", body))).await
    };
    assert_eq!(delete(&bearer, "wrong").await.expect(403).code(), "wrong-password");
    delete(&bearer, PASSWORD).await.expect(204);
    commands.refresh(&pair.refresh).await.expect(401);
    commands.register(ADA).await.expect(201);
    let (admin, queries) = system.as_administrator().await;
    let last = delete(&admin, e2e::ADMIN_PASSWORD).await.expect(409);
    assert_eq!(last.code(), "last-admin");
    system.views_equal_the_log(&queries).await;
}

/// The same rules wherever a password is chosen.
#[tokio::test]
async fn bad_passwords_are_refused_and_good_ones_are_not() {
    let system = System::shared().await;
    let commands = system.commands();
    let register = async |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        commands.post("/api/v1/auth/register", &body).await
    };
    let long = "x".repeat(257);
    for (password, code) in [
        ("short", "too-short"),
        (long.as_str(), "too-long"),
        ("Password123", "common-password"),
        ("lovelace@example.com", "contains-context"),
    ] {
        let refused = register("lovelace@example.com", password).await.expect(422);
        assert_eq!(refused.body["errors"][0]["pointer"], "/password");
        assert_eq!(refused.body["errors"][0]["code"], code, "{password}");
    }
    // Characters in no order that anybody would guess.
    let whole: String =
        (0..256_u32).map(|n| char::from_u32(0x4e00 + n * 7_919 % 5_003).unwrap()).collect();
    for (n, good) in ["  spaces count  ", "日本語のパスワード長い", &whole].into_iter().enumerate()
    {
        let email = format!("user{n}@example.com");
        register(&email, good).await.expect(201);
        commands.log_in(&email, good).await;
        let cut: String = good.chars().take(good.chars().count() - 1).collect();
        let body = json!({"email": email, "password": cut});
        commands.post("/api/v1/auth/login", &body).await.expect(401);
    }
}
