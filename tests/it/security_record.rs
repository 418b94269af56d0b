//! The security record: who tried to get in, from where, and what came of it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use async_nats::jetstream;
use e2e::{ADMIN_EMAIL, ADMIN_PASSWORD, Client, PASSWORD, System, wait_for};
use serde_json::{Value, json};

use crate::canary::places;

const ADA: &str = "ada@example.com";
const AGENT: &str = "record-canary-agent/1.0";
const OTHER_PASSWORD: &str = "another password for tests";

/// The records that `roster security list` shows.
fn listed(system: &System, arguments: &[&str]) -> Vec<Value> {
    let mut command = vec!["security", "list", "--json"];
    command.extend(arguments);
    let output = system.roster(&command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["items"].as_array().unwrap().clone()
}

/// Waits for a record that is like this one in every member named here.
async fn recorded(system: &System, wanted: Value) -> Value {
    let is_it = |record: &Value| {
        wanted.as_object().unwrap().iter().all(|(name, value)| record[name] == *value)
    };
    let found = std::cell::RefCell::new(None);
    wait_for(&format!("the record {wanted}"), || async {
        *found.borrow_mut() = listed(system, &[]).into_iter().find(&is_it);
        found.borrow().is_some()
    })
    .await;
    found.into_inner().unwrap()
}

async fn login(client: &Client, email: &str, password: &str) -> e2e::Answer {
    client.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

fn id_of(registered: &e2e::Answer) -> String {
    registered.header("location").unwrap().rsplit('/').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_recorded_with_who_where_and_why() {
    let system = System::shared().await;
    let plain = system.commands().with_header("user-agent", AGENT);
    let client = plain.with_header("x-request-id", "the-request");
    let ada = id_of(&client.register(ADA).await.expect(201));

    login(&client, ADA, PASSWORD).await.expect(200);
    let right = recorded(&system, json!({"kind": "login", "outcome": "succeeded"})).await;
    assert_eq!((&right["user_id"], &right["actor"]), (&json!(ada), &json!(ada)));
    assert_eq!((&right["ip"], &right["user_agent"]), (&json!("127.0.0.1"), &json!(AGENT)));
    assert_eq!(right["request_id"], "the-request");
    assert!(right["session_id"].is_string() && right.get("address_key").is_none(), "{right}");

    // The three answers are one; the records tell them apart.
    let (admin, _) = system.as_administrator().await;
    let wrong = login(&client, ADA, "a wrong password").await.expect(401);
    let unknown = login(&client, "nobody@example.com", PASSWORD).await.expect(401);
    admin.post(&format!("/api/v1/users/{ada}/disable"), &json!({})).await.expect(200);
    let disabled = login(&client, ADA, PASSWORD).await.expect(401);
    assert_eq!(wrong.told().2, unknown.told().2);
    assert_eq!(wrong.told().2, disabled.told().2);
    for why in ["wrong-password", "user-disabled"] {
        let wanted = json!({"kind": "login", "outcome": "refused", "reason": why});
        let record = recorded(&system, wanted).await;
        assert_eq!((&record["user_id"], &record["actor"]), (&json!(ada), &json!("anonymous")));
    }
    let wanted = json!({"kind": "login", "reason": "unknown-address"});
    let record = recorded(&system, wanted).await;
    assert!(record.get("user_id").is_none(), "{record}");
    assert_eq!(record["address_key"].as_str().unwrap().len(), 64, "{record}");
    assert_eq!((&record["ip"], &record["user_agent"]), (&json!("127.0.0.1"), &json!(AGENT)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_of_what_opens_an_account_is_recorded() {
    let system = System::shared_with(&[("ROSTER_SESSIONS_REUSE_WINDOW_S", "0")]).await;
    let client = system.commands();
    let ada = id_of(&client.register(ADA).await.expect(201));
    let token = |purpose: &str, address: &str| {
        let of = |mail: &e2e::Mail| {
            mail.link.as_ref().filter(|link| link.purpose == purpose).map(|link| link.token.clone())
        };
        system.mails_to(address).iter().find_map(of)
    };
    wait_for("the first mail", || async { token("verify-email", ADA).is_some() }).await;
    let confirm = json!({"token": token("verify-email", ADA), "password": PASSWORD});
    client.post("/api/v1/auth/verify-email-confirm", &confirm).await.expect(204);
    let pair = client.log_in(ADA, PASSWORD).await;
    let bearer = client.with_token(&pair.access);

    let wrong = json!({"current_password": "wrong", "new_password": OTHER_PASSWORD});
    let answer = bearer.post("/api/v1/auth/change-password", &wrong).await;
    assert_eq!(answer.code(), "wrong-password", "{answer:?}");
    recorded(&system, json!({"kind": "password-check", "outcome": "refused", "user_id": ada}))
        .await;
    let change = json!({"current_password": PASSWORD, "new_password": OTHER_PASSWORD});
    bearer.post("/api/v1/auth/change-password", &change).await.expect(204);
    let changed = recorded(&system, json!({"kind": "password-changed", "user_id": ada})).await;
    assert_eq!(changed["actor"], ada);
    assert!(changed["session_id"].is_string() && changed["ip"].is_string(), "{changed}");

    let request = json!({"email": ADA});
    client.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    let asked = recorded(&system, json!({"kind": "password-reset-requested"})).await;
    assert!(asked["address_key"].is_string() && asked.get("user_id").is_none(), "{asked}");
    wait_for("the reset mail", || async { token("reset-password", ADA).is_some() }).await;
    let body = json!({"token": token("reset-password", ADA), "new_password": PASSWORD});
    client.post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
    recorded(&system, json!({"kind": "password-reset", "user_id": ada})).await;

    // A token that was replaced comes back.
    let pair = client.log_in(ADA, PASSWORD).await;
    let next = client.refresh(&pair.refresh).await.expect(200);
    client.refresh(next.body["refresh_token"].as_str().unwrap()).await.expect(200);
    client.refresh(&pair.refresh).await.expect(401);
    let theft = recorded(&system, json!({"kind": "refresh-token-theft", "user_id": ada})).await;
    assert!(theft["session_id"].is_string() && theft["ip"].is_string(), "{theft}");

    // Another address.
    let bearer = client.with_token(&client.log_in(ADA, PASSWORD).await.access);
    let change = json!({"new_email": "ada@new.example", "current_password": PASSWORD});
    bearer.post("/api/v1/auth/change-email", &change).await.expect(202);
    wait_for("the mail to the new address", || async {
        token("confirm-email", "ada@new.example").is_some()
    })
    .await;
    let confirm = json!({"token": token("confirm-email", "ada@new.example")});
    client.post("/api/v1/auth/change-email-confirm", &confirm).await.expect(204);
    recorded(&system, json!({"kind": "email-changed", "user_id": ada})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrative_calls_are_recorded_with_session_and_address() {
    let system = System::shared().await;
    let ada = id_of(&system.commands().register(ADA).await.expect(201));
    let (admin, admin_reads) = system.as_administrator().await;
    let session = recorded(&system, json!({"kind": "login", "outcome": "succeeded"})).await;
    let (root, session) = (&session["actor"], &session["session_id"]);

    let path = format!("/api/v1/users/{ada}");
    let position =
        admin.patch(&path, &json!({"roles": ["user", "auditor"]})).await.expect(200).position();
    let roles = recorded(&system, json!({"kind": "roles-changed", "user_id": ada})).await;
    assert_eq!((&roles["actor"], &roles["session_id"]), (root, session));
    let call = json!({
        "kind": "administrative-call", "operation": "PATCH /api/v1/users/{user_id}",
        "outcome": "succeeded", "user_id": ada, "actor": root, "session_id": session,
    });
    assert_eq!(recorded(&system, call).await["ip"], "127.0.0.1");
    let read = format!("{path}?min_position={position}");
    admin_reads.get(&read).await.expect(200);
    let call = json!({"operation": "GET /api/v1/users/{user_id}", "user_id": ada, "actor": root});
    recorded(&system, call).await;

    // Somebody else may not, and that is recorded on both sides.
    let token = system.commands().login(ADA, PASSWORD).await;
    let (commands, queries) =
        (system.commands().with_token(&token), system.queries().with_token(&token));
    commands.post("/api/v1/users", &json!({"email": "x@example.com"})).await.expect(403);
    queries.get(&format!("/api/v1/users?min_position={position}")).await.expect(403);
    for operation in ["POST /api/v1/users", "GET /api/v1/users"] {
        let denied = json!({"operation": operation, "outcome": "refused", "actor": ada});
        assert_eq!(recorded(&system, denied).await["reason"], "forbidden");
    }

    for (call, kind) in [("disable", "user-disabled"), ("enable", "user-enabled")] {
        admin.post(&format!("{path}/{call}"), &json!({})).await.expect(200);
        recorded(&system, json!({"kind": kind, "user_id": ada, "actor": root})).await;
    }
    // What a user does with the own account is no call of an administrator.
    let own = listed(&system, &["--user", &ada, "--kind", "administrative-call"]);
    assert!(own.iter().all(|r| r["operation"].as_str().unwrap().contains("/users")), "{own:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_refuses_is_recorded() {
    let limits = [
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_FREE", "1"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_MAX", "2"),
    ];
    let system = System::shared_with(&limits).await;
    let client = system.commands();
    client.register(ADA).await.expect(201);
    wait_for("the account to be closed", || async {
        login(&client, ADA, "a wrong password").await.status == 429
    })
    .await;
    let wanted = json!({"kind": "attempt-limited", "outcome": "refused", "reason": "account"});
    let record = recorded(&system, wanted).await;
    assert!(record["address_key"].is_string() && record["ip"] == "127.0.0.1", "{record}");
}

/// What an anonymous client can have written is bounded, and what was left out is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_logins_leaves_few_records_with_all_of_its_number() {
    let settings = [("ROSTER_SECURITY_ANONYMOUS_PER_MINUTE_MAX", "5")];
    let mut system = System::shared_with(&settings).await;
    let client = system.commands();
    let logins = (0..40).map(|n| {
        let client = client.clone();
        async move { login(&client, &format!("n{n}@flood.example"), PASSWORD).await.expect(401) }
    });
    futures::future::join_all(logins).await;
    // A service that ends stores what it has counted.
    let next = system.another("command-api");
    let ended = std::mem::replace(&mut system.command_api, next);
    ended.end("-TERM");
    let records = listed(&system, &["--kind", "login"]);
    let refused: Vec<_> = records.iter().filter(|r| r["reason"] == "unknown-address").collect();
    let number: u64 = refused.iter().map(|r| r["count"].as_u64().unwrap_or(1)).sum();
    assert_eq!(number, 40, "{refused:?}");
    // Five in each of the minutes that it took, which are two at most, and one for the rest of each.
    assert!(refused.len() <= 12, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_does_not_need_the_security_record() {
    let system = System::shared().await;
    let client = system.commands();
    client.register(ADA).await.expect(201);
    let log = jetstream::new(system.operator().await);
    log.delete_stream("SECURITY").await.unwrap();
    login(&client, ADA, PASSWORD).await.expect(200);
    login(&client, ADA, "a wrong password").await.expect(401);
    let check = system.roster(&["provision", "--check"]);
    assert_eq!(
        (check.status.code(), check.stdout),
        (Some(1), b"SECURITY: does not exist\n".to_vec())
    );
    assert!(system.roster(&["provision"]).status.success());
    // What waited is stored once there is a stream again.
    recorded(&system, json!({"kind": "login", "outcome": "succeeded"})).await;
    recorded(&system, json!({"kind": "login", "reason": "wrong-password"})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_deleted_user_is_left_in_the_security_record() {
    let second_look = [("ROSTER_ERASURE_SECOND_LOOK_S", "1")];
    let system = System::own_with(&second_look).await;
    let client = system.commands().with_header("user-agent", AGENT);
    let ada = id_of(&client.register(ADA).await.expect(201));
    login(&client, ADA, "a wrong password").await.expect(401);
    let bearer = client.with_token(&client.login(ADA, PASSWORD).await);
    recorded(&system, json!({"kind": "login", "outcome": "succeeded", "user_id": ada})).await;
    recorded(&system, json!({"kind": "login", "outcome": "refused", "user_id": ada})).await;
    let own = json!({"current_password": PASSWORD});
    let path = "/api/v1/auth/me";
    let body = Some(("application/json", own.to_string().into_bytes()));
    bearer.send("DELETE", path, body).await.expect(204);
    wait_for("nothing to be left", || async {
        system.roster(&["erase", "--verify", &ada]).status.code() == Some(0)
    })
    .await;
    assert_eq!(listed(&system, &["--user", &ada]), Vec::<Value>::new());
    let messages = crate::canary::messages(&system).await;
    let found: Vec<_> = places(AGENT, &messages);
    assert!(found.iter().all(|place| !place.starts_with("SECURITY")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_is_filtered_and_followed() {
    let system = System::shared().await;
    let client = system.commands();
    let ada = id_of(&client.register(ADA).await.expect(201));
    login(&client, ADA, "a wrong password").await.expect(401);
    client.login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let first = recorded(&system, json!({"kind": "login", "outcome": "succeeded"})).await;
    let of_ada = listed(&system, &["--user", &ada]);
    assert_eq!(of_ada.len(), 1, "{of_ada:?}");
    let since = listed(&system, &["--since", first["time"].as_str().unwrap()]);
    assert!(!since.is_empty() && since.iter().all(|r| r["user_id"] != json!(ada)), "{since:?}");
    assert_eq!(system.roster(&["security", "list", "--kind", "nothing"]).status.code(), Some(2));

    let mut following = system
        .roster_command(&["security", "list", "--follow", "--json", "--user", &ada])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["reason"], "wrong-password");
    login(&client, ADA, PASSWORD).await.expect(200);
    assert_eq!(next()["outcome"], "succeeded");
    following.kill().unwrap();
    following.wait().unwrap();
}
