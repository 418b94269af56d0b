//! Streams that somebody fills: what ends access goes in all the same.

use async_nats::HeaderMap;
use e2e::{ADMIN_EMAIL, ADMIN_PASSWORD, Answer, Client, PASSWORD, System, wait_for};
use serde_json::json;

use crate::damage::Damage;

const ADA: &str = "ada@example.com";
const EVE: &str = "eve@example.com";
const LEA: &str = "lea@example.com";
/// The smallest stream that can be set.
const SMALL: &str = "1048576";

/// Changes the caller's profile, by as much as it takes.
async fn write(me: &Client, n: usize) -> Answer {
    let metadata = json!({"n": n, "text": "x".repeat(3_900)});
    let me = me.with_header("prefer", "respond-async");
    me.patch("/api/v1/auth/me", &json!({"metadata": metadata})).await
}

/// A plain user writes until that is refused.
async fn fill(me: &Client) -> Answer {
    for n in 0..2_000 {
        let answer = write(me, n).await;
        if answer.status != 200 {
            return answer;
        }
    }
    panic!("the stream takes in everything");
}

/// That a request is refused since there is no room, and when to come back.
fn assert_full(answer: &Answer) {
    assert_eq!((answer.status, answer.code()), (503, "log-full"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("60"), "{answer:?}");
}

/// Fills a stream up to nine tenths as the operator, with messages that nobody reads.
async fn fill_stream(system: &System, subject: &str) {
    let client = system.operator().await;
    let context = async_nats::jetstream::new(client);
    for n in 0..9 {
        let subject = format!("{subject}.{}", uuid::Uuid::from_u128(n + 1));
        let payload = vec![b'x'; 104_000].into();
        let stored = context.publish_with_headers(subject, HeaderMap::new(), payload).await;
        stored.unwrap().await.unwrap();
    }
}

/// Asks until it is refused since there is no room: a service knows the size of a moment ago.
async fn until_full<F: Future<Output = Answer>>(ask: impl Fn() -> F) {
    wait_for("the stream to be full", || async { ask().await.code() == "log-full" }).await;
    assert_full(&ask().await);
}

#[tokio::test]
async fn a_log_that_a_user_has_filled_still_takes_what_ends_access() {
    let system = System::shared_with(&[("ROSTER_LOG_BYTES_MAX", SMALL)]).await;
    let commands = system.commands();
    let (admin, queries) = system.as_administrator().await;
    let mut ids = Vec::new();
    for email in [ADA, EVE, LEA] {
        let made = commands.register(email).await.expect(201);
        ids.push(made.body["id"].as_str().unwrap().to_owned());
    }
    let path = |n: usize| format!("/api/v1/users/{}", ids[n]);
    admin.patch(&path(2), &json!({"roles": ["user", "editor"]})).await.expect(200);
    let (ada, eve) = (commands.log_in(ADA, PASSWORD).await, commands.log_in(EVE, PASSWORD).await);

    assert_full(&fill(&commands.with_token(&ada.access)).await);
    // What can wait is refused for everybody, a registration before it costs anything.
    assert_full(&commands.register("late@example.com").await);
    assert_full(&admin.patch(&path(1), &json!({"full_name": "Eve"})).await);
    let import = b"{\"email\":\"bulk@example.com\"}\n".to_vec();
    let import = Some(("application/x-ndjson", import));
    let lines = admin.send("POST", "/api/v1/users/import", import).await.expect(200).lines();
    assert_eq!(lines[0]["error"]["code"], "log-full", "{lines:?}");

    // What ends access is not: a password, sessions, a role, a user, and whoever filled it.
    let next = "another password for tests";
    let body = json!({"current_password": PASSWORD, "new_password": next});
    let me = commands.with_token(&eve.access);
    me.post("/api/v1/auth/change-password", &body).await.expect(204);
    let eve = commands.log_in(EVE, next).await;
    // The key of a request takes none of the room for the request.
    let damage = Damage::of(&system).await;
    let records = damage.messages("USERS", "ik.>").await.len();
    let keyed = commands.with_token(&eve.access).with_header("idempotency-key", "while full");
    keyed.send("POST", "/api/v1/auth/logout", None).await.expect(204);
    assert_eq!(damage.messages("USERS", "ik.>").await.len(), records);
    let eve = commands.log_in(EVE, next).await;
    let me = commands.with_token(&eve.access);
    me.send("POST", "/api/v1/auth/logout-all", None).await.expect(204);
    commands.post("/api/v1/auth/password-reset-request", &json!({"email": EVE})).await.expect(202);
    let is_reset =
        |mail: &e2e::Mail| mail.link.as_ref().is_some_and(|link| link.purpose == "reset-password");
    wait_for("the reset mail", || async { system.mails_to(EVE).iter().any(is_reset) }).await;
    let reset = system.mails_to(EVE).into_iter().find(is_reset).unwrap();
    let body = json!({"token": reset.token(), "new_password": "a third password here"});
    commands.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
    admin.patch(&path(2), &json!({"roles": ["user"]})).await.expect(200);
    admin.delete(&path(2)).await.expect(204);
    let me = commands.with_token(&ada.access);
    me.send("POST", "/api/v1/auth/logout", None).await.expect(204);
    let again = commands.log_in(ADA, PASSWORD).await;
    admin.send("POST", &format!("{}/disable", path(0)), None).await.expect(200);
    write(&commands.with_token(&again.access), 0).await.expect(401);
    wait_for("the views", || async {
        queries.get(&path(0)).await.expect(200).body["status"] == "disabled"
    })
    .await;
}

#[tokio::test]
async fn without_room_for_sessions_they_still_end_and_administrators_get_in() {
    let system = System::shared_with(&[("ROSTER_LOG_SESSIONS_BYTES_MAX", SMALL)]).await;
    let commands = system.commands();
    let ada = commands.register(ADA).await.expect(201);
    let (one, other) = (commands.log_in(ADA, PASSWORD).await, commands.log_in(ADA, PASSWORD).await);
    fill_stream(&system, "er.session").await;
    let credentials = json!({"email": ADA, "password": PASSWORD});
    until_full(|| commands.post("/api/v1/auth/login", &credentials)).await;
    assert_full(&commands.refresh(&one.refresh).await);
    let me = commands.with_token(&one.access);
    me.send("POST", "/api/v1/auth/logout", None).await.expect(204);
    let body = json!({"refresh_token": other.refresh});
    commands.post("/api/v1/auth/logout", &body).await.expect(204);
    // Whoever has to see to it gets in.
    let token = commands.login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let path = format!("/api/v1/users/{}/disable", ada.body["id"].as_str().unwrap());
    commands.with_token(&token).send("POST", &path, None).await.expect(200);
}

#[tokio::test]
async fn without_room_for_mails_a_reset_is_still_sent() {
    let system = System::shared_with(&[("ROSTER_LOG_MAILS_BYTES_MAX", SMALL)]).await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let me = commands.with_token(&commands.login(ADA, PASSWORD).await);
    fill_stream(&system, "mail.parked").await;
    until_full(|| me.send("POST", "/api/v1/auth/verify-email-request", None)).await;
    commands.post("/api/v1/auth/password-reset-request", &json!({"email": ADA})).await.expect(202);
    let is_reset =
        |mail: &e2e::Mail| mail.link.as_ref().is_some_and(|link| link.purpose == "reset-password");
    wait_for("the reset mail", || async { system.mails_to(ADA).iter().any(is_reset) }).await;
}

/// The feed has a bound of its own and is written later: a deletion has to be published all the same.
#[tokio::test]
async fn a_feed_that_a_user_has_filled_still_takes_a_deletion() {
    let system = System::shared_with(&[
        ("ROSTER_FEED_BYTES_MAX", "4194304"),
        ("ROSTER_LOG_RESERVE_PERCENT", "50"),
    ])
    .await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    let me = commands.with_token(&commands.login(ADA, PASSWORD).await);
    assert_full(&fill(&me).await);
    let body = json!({"current_password": PASSWORD}).to_string().into_bytes();
    let body = Some(("application/json", body));
    me.send("DELETE", "/api/v1/auth/me", body).await.expect(204);
    let context = async_nats::jetstream::new(system.operator().await);
    let feed = context.get_stream_no_info("USER_EVENTS").await.unwrap();
    wait_for("the deletion in the feed", || async {
        let last = feed.get_last_raw_message_by_subject("users.v1.deleted.*").await;
        last.is_ok()
    })
    .await;
}
