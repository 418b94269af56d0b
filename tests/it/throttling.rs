//! Limits on attempts, as clients meet them.

use std::sync::atomic::{AtomicUsize, Ordering};

use e2e::{Answer, Client, PASSWORD, System, wait_for};
use futures::future::join_all;
use serde_json::json;

const ADA: &str = "ada@example.com";
/// Wrong passwords in a row that close an account for good: a delay before that would end while a busy
/// machine looks at it.
const FAILURES_MAX: usize = 4;

async fn limited() -> System {
    System::shared_with(&[
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_FREE", "3"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_MAX", &FAILURES_MAX.to_string()),
        ("ROSTER_THROTTLE_MAILS_MAX", "2"),
        // On a busy machine an attempt waits longer for those before it.
        ("ROSTER_THROTTLE_WAIT_MAX_MS", "5000"),
    ])
    .await
}

async fn login(client: &Client, email: &str, password: &str) -> Answer {
    client.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

/// Guesses at one process after the other until the account is closed for good; how many were looked at.
async fn guess_until_closed(clients: [&Client; 2], email: &str) -> usize {
    let (asked, looked_at) = (AtomicUsize::new(0), AtomicUsize::new(0));
    wait_for("an account to be closed", || async {
        let client = clients[asked.fetch_add(1, Ordering::Relaxed) % clients.len()];
        let answer = login(client, email, "a wrong password").await;
        if answer.status == 401 {
            looked_at.fetch_add(1, Ordering::Relaxed);
        }
        // Longer than any delay: the default is 15 minutes at most.
        answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() > 900)
    })
    .await;
    looked_at.into_inner()
}

/// What a refusal says, but for its own name and time.
fn told(answer: &Answer) -> (u16, String, Vec<&str>) {
    let names = answer.headers.keys().map(String::as_str).collect();
    (answer.status, answer.code().to_owned(), names)
}

#[tokio::test]
async fn guessing_ends_and_the_owner_gets_in_all_the_same() {
    let mut system = limited().await;
    let other = system.another("command-api");
    let (here, there) = (system.commands(), Client::new(&other.value("url")));
    here.register(ADA).await.expect(201);
    let inside = here.log_in(ADA, PASSWORD).await;

    // Known and unknown are counted alike, over both processes.
    for email in [ADA, "nobody@example.com"] {
        assert_eq!(guess_until_closed([&here, &there], email).await, FAILURES_MAX, "{email}");
    }
    let (known, unknown) =
        (login(&there, ADA, PASSWORD).await, login(&there, "nobody@example.com", PASSWORD).await);
    assert_eq!(told(&known), told(&unknown));
    assert_eq!((known.status, known.code()), (429, "too-many-requests"));
    let wait = known.header("retry-after").unwrap();
    assert!(known.header("ratelimit").unwrap().ends_with(&format!(";t={wait}")), "{known:?}");
    assert!(known.header("ratelimit-policy").unwrap().starts_with("\"account\";q=3;"), "{known:?}");

    // Whoever starts later has the count as well, and another address is no way around it.
    system.restart_command_api();
    let here = system.commands();
    let elsewhere = here.with_header("x-forwarded-for", "198.51.100.7");
    for client in [&here, &there, &elsewhere] {
        login(client, ADA, PASSWORD).await.expect(429);
    }

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
    wait_for("the reset mail", || async { system.mails_to(ADA).iter().any(is_reset) }).await;
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
    // The last place before the account is closed may be taken when a delay is over.
    assert!((3..=FAILURES_MAX).contains(&count(401)), "{answers:?}");
    assert_eq!(count(401) + count(429), 20, "{answers:?}");
}

/// A repetition says whether its password is right.
#[tokio::test]
async fn a_repeated_registration_counts_as_a_login() {
    let system = limited().await;
    let commands = system.commands();
    let with_key = commands.with_header("idempotency-key", "key 1");
    for path in ["/api/v1/auth/register", "/api/v1/auth/register?with_token=true"] {
        let email = format!("{}@example.com", path.len());
        let body = |password: &str| json!({"email": email, "password": password});
        with_key.post(path, &body(PASSWORD)).await.expect(201);
        with_key.post(path, &body(PASSWORD)).await.expect(201);
        assert_eq!(guess_until_closed([&commands, &commands], &email).await, FAILURES_MAX);
        // Neither the right password nor a guess is looked at.
        for password in [PASSWORD, "another password"] {
            let refused = with_key.post(path, &body(password)).await.expect(429);
            assert!(refused.header("ratelimit-policy").unwrap().starts_with("\"account\""));
        }
    }
}

#[tokio::test]
async fn guesses_by_a_repeated_registration_close_the_account() {
    let system = limited().await;
    let commands = system.commands();
    let with_key = commands.with_header("idempotency-key", "key 1");
    let body = |password: &str| json!({"email": ADA, "password": password});
    let path = "/api/v1/auth/register?with_token=true";
    with_key.post(path, &body(PASSWORD)).await.expect(201);
    wait_for("a guess to be refused unseen", || async {
        let guess = with_key.post(path, &body("a wrong password")).await;
        assert!([401, 429].contains(&guess.status), "{guess:?}");
        guess.status == 429
    })
    .await;
    login(&commands, ADA, PASSWORD).await.expect(429);
}

/// Uncounted guesses would be free: without the counts no password is looked at.
#[tokio::test]
async fn without_its_counts_a_login_is_refused_and_tells_nothing() {
    let system = limited().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let inside = commands.log_in(ADA, PASSWORD).await;
    let context = async_nats::jetstream::new(system.operator().await);
    context.delete_stream("KV_THROTTLE").await.unwrap();
    for password in [PASSWORD, "a wrong password"] {
        let refused = login(&commands, ADA, password).await.expect(503);
        assert_eq!(refused.code(), "unavailable");
        assert!(refused.header("retry-after").is_some(), "{refused:?}");
    }
    commands.refresh(&inside.refresh).await.expect(200);
}

#[tokio::test]
async fn mails_to_one_account_are_capped_without_a_word_and_the_last_link_is_good() {
    let system = limited().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let inside = commands.log_in(ADA, PASSWORD).await;
    for _ in 0..5 {
        let request = json!({"email": ADA});
        commands.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    }
    // What strangers ask for uses up nothing of what the owner may ask for.
    let bearer = commands.with_token(&inside.access);
    bearer.send("POST", "/api/v1/auth/verify-email-request", None).await.expect(202);
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
    wait_for("the last mail", || async { resets("eve@example.com") == 1 && resets(ADA) >= 2 })
        .await;
    assert_eq!(resets(ADA), 2);
    let mut mails = system.mails_to(ADA);
    mails.retain(|m| m.link.as_ref().is_some_and(|l| l.purpose == "reset-password"));
    let last = mails.pop().unwrap();
    let body = json!({"token": last.token(), "new_password": "another password for tests"});
    commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
}

/// Registers until the limit of an address, then once more.
async fn fill(client: &Client, prefix: &str) {
    for n in 0..2 {
        client.register(&format!("{prefix}{n}@example.com")).await.expect(201);
    }
    let refused = client.register(&format!("{prefix}2@example.com")).await.expect(429);
    let wait = refused.header("retry-after").unwrap();
    assert!(refused.header("ratelimit").unwrap().ends_with(&format!(";t={wait}")), "{refused:?}");
}

const REQUESTS: [(&str, &str); 3] = [
    ("ROSTER_THROTTLE_ENABLED", "true"),
    ("ROSTER_THROTTLE_REQUESTS_MAX", "2"),
    ("ROSTER_THROTTLE_REQUESTS_WINDOW_S", "86400"),
];

/// The address that the newest session of a user was started from.
async fn seen_from(system: &System, client: &Client, email: &str) -> String {
    let access = client.log_in(email, PASSWORD).await.access;
    let listed = system.queries().with_token(&access).get("/api/v1/auth/sessions").await;
    let items = listed.expect(200).body["items"].as_array().unwrap().clone();
    let current = items.iter().find(|session| session["current"] == true).unwrap();
    current["ip"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_header_that_anyone_can_send_gives_nobody_another_address() {
    let system = System::shared_with(&REQUESTS).await;
    let other = system.another("command-api");
    let (here, there) = (system.commands(), Client::new(&other.value("url")));
    fill(&here, "first").await;
    for n in 0..3 {
        let forged = there.with_header("x-forwarded-for", &format!("198.51.100.{n}"));
        forged.register(&format!("forged{n}@example.com")).await.expect(429);
    }
    let forged = here.with_header("x-forwarded-for", "198.51.100.7");
    assert_eq!(seen_from(&system, &forged, "first0@example.com").await, "127.0.0.1");
}

#[tokio::test]
async fn behind_a_trusted_proxy_every_client_has_its_own_limit() {
    let proxies = [("ROSTER_HTTP_TRUSTED_PROXIES", "127.0.0.0/8")];
    let system = System::shared_with(&[&REQUESTS[..], &proxies].concat()).await;
    let through = |address: &str| system.commands().with_header("x-forwarded-for", address);
    fill(&through("198.51.100.7"), "seven").await;
    fill(&through("198.51.100.8"), "eight").await;
    // What stands further to the left is the client's own claim.
    let claims = through("203.0.113.1, 198.51.100.7");
    claims.register("claims@example.com").await.expect(429);
    assert_eq!(seen_from(&system, &claims, "seven0@example.com").await, "198.51.100.7");
}

/// The limit is on requests, not on what becomes of them: a refusal costs work as well.
#[tokio::test]
async fn refused_registrations_count() {
    let system = System::shared_with(&REQUESTS).await;
    let commands = system.commands();
    for password in ["short", "zxcvbnm,./zxcvbnm"] {
        let body = json!({"email": ADA, "password": password});
        commands.post("/api/v1/auth/register", &body).await.expect(422);
    }
    let refused = commands.register(ADA).await.expect(429);
    assert!(refused.header("ratelimit-policy").unwrap().starts_with("\"registrations\";q=2;"));
}

#[tokio::test]
async fn new_passwords_by_a_link_are_limited_by_address() {
    let system = System::shared_with(&REQUESTS).await;
    let commands = system.commands();
    let body = json!({"token": "nothing", "new_password": PASSWORD});
    for _ in 0..2 {
        commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(400);
    }
    let refused = commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(429);
    assert!(refused.header("ratelimit-policy").unwrap().starts_with("\"password-sets\";q=2;"));
}

/// A user's own writes, logins, refreshes and repeated passwords have limits of their own, over all processes, and
/// nobody else has less because of them.
#[tokio::test]
async fn what_a_user_does_rightly_is_limited_and_nobody_else_notices() {
    let system = System::shared_with(&[
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_WRITES_PER_DAY_MAX", "5"),
        ("ROSTER_THROTTLE_REFRESHES_PER_DAY_MAX", "5"),
        ("ROSTER_THROTTLE_LOGINS_PER_DAY_MAX", "5"),
        ("ROSTER_THROTTLE_PASSWORD_CHECKS_PER_DAY_MAX", "2"),
    ])
    .await;
    let other = system.another("command-api");
    let (here, there) = (system.commands(), Client::new(&other.value("url")));
    for email in [ADA, "eve@example.com"] {
        here.register(email).await.expect(201);
    }
    let mut inside = here.log_in(ADA, PASSWORD).await;
    let clients = [&here, &there];
    let limit = |answer: &Answer| answer.header("ratelimit-policy").unwrap().to_owned();

    for n in 0..6 {
        let me = clients[n % 2].with_token(&inside.access);
        let answer = me.patch("/api/v1/auth/me", &json!({"full_name": format!("Ada {n}")})).await;
        assert_eq!(answer.status, if n < 5 { 200 } else { 429 }, "{answer:?}");
        if n == 5 {
            assert_eq!(limit(&answer), "\"writes\";q=5;w=86400");
            assert!(answer.header("retry-after").is_some() && answer.header("ratelimit").is_some());
        }
    }
    for n in 0..6 {
        let answer = clients[n % 2].refresh(&inside.refresh).await;
        assert_eq!(answer.status, if n < 5 { 200 } else { 429 }, "{answer:?}");
        if n < 5 {
            let token = |name: &str| answer.body[name].as_str().unwrap().to_owned();
            (inside.access, inside.refresh) = (token("access_token"), token("refresh_token"));
        } else {
            assert_eq!(limit(&answer), "\"refreshes\";q=5;w=86400");
        }
    }
    let mut password = PASSWORD.to_owned();
    for n in 0..3 {
        let next = format!("another password for tests {n}");
        let body = json!({"current_password": password, "new_password": next});
        // The session that changes the password lives on, and its access token is over.
        let me = here.with_token(&inside.access);
        let answer = me.post("/api/v1/auth/change-password", &body).await;
        assert_eq!(answer.status, if n < 2 { 204 } else { 429 }, "{answer:?}");
        if n < 2 {
            password = next;
            inside = here.log_in(ADA, &password).await;
        } else {
            assert_eq!(limit(&answer), "\"password-checks\";q=2;w=86400");
        }
    }
    // One login at the start, two after the changes.
    for n in 3..6 {
        let answer = login(clients[n % 2], ADA, &password).await;
        assert_eq!(answer.status, if n < 5 { 200 } else { 429 }, "{answer:?}");
        if n == 5 {
            assert_eq!(limit(&answer), "\"logins\";q=5;w=86400");
        }
    }
    // Only whoever knows the password hears of that limit.
    login(&here, ADA, "a wrong password").await.expect(401);

    // Leaving is never limited, and eve has not noticed anything.
    here.with_token(&inside.access).send("POST", "/api/v1/auth/logout", None).await.expect(204);
    let eve = here.log_in("eve@example.com", PASSWORD).await;
    let me = here.with_token(&eve.access);
    me.patch("/api/v1/auth/me", &json!({"full_name": "Eve"})).await.expect(200);
    here.refresh(&eve.refresh).await.expect(200);
}

/// Guesses of somebody with a stolen session close the way for that session alone, and end with it.
#[tokio::test]
async fn guesses_with_a_session_do_not_outlive_it() {
    let system = limited().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let (stolen, own) =
        (commands.log_in(ADA, PASSWORD).await, commands.log_in(ADA, PASSWORD).await);
    let change = async |access: &str, current: &str| {
        let body =
            json!({"current_password": current, "new_password": "another password for tests"});
        commands.with_token(access).post("/api/v1/auth/change-password", &body).await
    };
    wait_for("the way to be closed", || async {
        let answer = change(&stolen.access, "a wrong password").await;
        answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() > 900)
    })
    .await;
    change(&stolen.access, PASSWORD).await.expect(429);
    let body = json!({"current_password": PASSWORD, "new_password": "a second password here"});
    let owner = commands.with_token(&own.access);
    owner.post("/api/v1/auth/change-password", &body).await.expect(204);

    commands.post("/api/v1/auth/password-reset-request", &json!({"email": ADA})).await.expect(202);
    let is_reset =
        |mail: &e2e::Mail| mail.link.as_ref().is_some_and(|link| link.purpose == "reset-password");
    wait_for("the reset mail", || async { system.mails_to(ADA).iter().any(is_reset) }).await;
    let reset = system.mails_to(ADA).into_iter().find(is_reset).unwrap();
    let body = json!({"token": reset.token(), "new_password": "a third password here"});
    commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
    let after = commands.log_in(ADA, "a third password here").await;
    change(&after.access, "a third password here").await.expect(204);
}
