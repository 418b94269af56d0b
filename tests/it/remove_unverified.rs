//! The operator removes accounts that nobody has proven and nobody uses.

use std::process::Stdio;

use e2e::{Answer, PASSWORD, System, wait_for};
use events::UserId;
use serde_json::{Value, json};

use crate::damage::Damage;

const LONG_AGO: &str = "2026-01-01T00:00:00.000Z";
const REMOVE: [&str; 5] = ["users", "remove-unverified", "--json", "--older-than-days", "30"];

fn email(name: &str) -> String {
    format!("{name}@unverified.example")
}

/// A system whose views come later: the log is written again before they are made of it.
async fn without_views() -> System {
    let settings = [("ROSTER_VIEWS_COMMAND_WAIT_MS", "0"), ("ROSTER_ERASURE_SECOND_LOOK_S", "1")];
    let mut system = System::shared_with(&settings).await;
    system.kill_projector();
    system
}

/// Writes the last message on a subject again, changed, in its place.
async fn rewrite(damage: &Damage, subject: &str, change: impl FnOnce(&mut Value)) {
    let last = damage.messages("USERS", subject).await.pop().unwrap();
    let mut payload = last.json();
    change(&mut payload);
    damage.remove("USERS", last.sequence).await;
    let payload = serde_json::to_vec(&payload).unwrap();
    damage.write(subject, last.headers_of_a_copy(), payload).await;
}

/// Somebody who registered long ago, as the log has it, with the link that was mailed for it just now.
async fn registered_long_ago(system: &System, damage: &Damage, name: &str) -> (UserId, String) {
    let answer = system.commands().register(&email(name)).await.expect(201);
    let user: UserId = answer.body["id"].as_str().unwrap().parse().unwrap();
    let token = system.wait_for_mails_to(&email(name), 1).await.remove(0).token().to_owned();
    make_old(damage, user).await;
    (user, token)
}

async fn make_old(damage: &Damage, user: UserId) {
    rewrite(damage, &format!("ev.user.{user}"), |event| {
        event["time"] = LONG_AGO.into();
        event["data"]["user"]["created_at"] = LONG_AGO.into();
        event["data"]["user"]["updated_at"] = LONG_AGO.into();
    })
    .await;
}

/// The same with a link that nobody can follow any more, as far as its record says when it was asked for.
async fn forgotten(system: &System, damage: &Damage, name: &str) -> (UserId, String) {
    let (user, token) = registered_long_ago(system, damage, name).await;
    rewrite(damage, &format!("lk.verify.{user}"), |record| record["ordered_at"] = LONG_AGO.into())
        .await;
    (user, token)
}

fn removed(system: &System, arguments: &[&str]) -> Vec<UserId> {
    let output = system.roster(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(answer["removed"].clone()).unwrap()
}

async fn is_deleted(damage: &Damage, user: UserId) -> bool {
    let last = damage.events_of(user).await.pop().unwrap();
    last.json()["type"] == "user.deleted.v1"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_nobody_proved_or_used_is_removed() {
    let mut system = without_views().await;
    let damage = Damage::of(&system).await;
    let (old, _) = forgotten(&system, &damage, "old").await;
    let answer = system.commands().register(&email("young")).await.expect(201);
    let young: UserId = answer.body["id"].as_str().unwrap().parse().unwrap();
    let (asked, _) = registered_long_ago(&system, &damage, "asked").await;
    let (used, _) = forgotten(&system, &damage, "used").await;
    system.commands().login(&email("used"), PASSWORD).await;
    let (admin, _) = system.as_administrator().await;
    let body = json!({ "email": email("made"), "password": PASSWORD });
    let made = admin.post("/api/v1/users", &body).await.expect(201);
    let made: UserId = made.body["id"].as_str().unwrap().parse().unwrap();
    make_old(&damage, made).await;
    let (disabled, _) = forgotten(&system, &damage, "disabled").await;
    let path = format!("/api/v1/users/{disabled}");
    admin.patch(&path, &json!({ "status": "disabled" })).await.expect(200);
    rewrite(&damage, &format!("ev.user.{disabled}"), |event| {
        event["time"] = LONG_AGO.into();
        event["data"]["user"]["updated_at"] = LONG_AGO.into();
    })
    .await;

    // Neither the setting of today nor a dry run changes anything.
    let end = damage.messages("USERS", ">").await.len();
    assert_eq!(removed(&system, &["users", "remove-unverified", "--json"]), []);
    let mut dry = REMOVE.to_vec();
    dry.push("--dry-run");
    assert_eq!(removed(&system, &dry), [old]);
    let too_long = system.roster(&["users", "remove-unverified", "--older-than-days", "31"]);
    assert_eq!(too_long.status.code(), Some(2), "logins of before are not known");
    assert_eq!(damage.messages("USERS", ">").await.len(), end);

    assert_eq!(removed(&system, &REMOVE), [old]);
    let last = damage.events_of(old).await.pop().unwrap().json();
    assert_eq!((&last["type"], &last["actor"]), (&json!("user.deleted.v1"), &json!("system")));
    let reason = last["correlationid"].as_str().unwrap();
    assert!(reason.starts_with("remove-unverified-"), "{reason}");
    for kept in [young, asked, used, made, disabled] {
        assert!(!is_deleted(&damage, kept).await, "{kept}");
    }
    let audit = system.roster(&["audit", "list", "--json", "--command", "users-remove-unverified"]);
    let audit: Value = serde_json::from_slice(&audit.stdout).unwrap();
    let [begun, done] = audit["items"].as_array().unwrap().as_slice() else { panic!("{audit}") };
    assert_eq!(begun["data"]["arguments"]["request_id"], reason);
    assert_eq!(done["data"]["result"]["removed"], 1);

    // Again it finds nobody; the address is free; everything agrees and the account is erased.
    assert_eq!(removed(&system, &REMOVE), []);
    system.commands().register(&email("old")).await.expect(201);
    system.start_projector();
    system.ready().await;
    wait_for("the account to be erased", || async {
        system.roster(&["erase", "--verify", &old.to_string()]).status.success()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_setting_says_after_how_many_days_an_account_is_removed() {
    let system = without_views().await;
    let damage = Damage::of(&system).await;
    let (old, _) = forgotten(&system, &damage, "old").await;
    let command = ["users", "remove-unverified", "--json"];
    let set = [("ROSTER_REGISTRATION_UNVERIFIED_KEPT_DAYS", "20")];
    let output = system.roster_with(&command, &set);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["removed"], json!([old]));
}

/// Two operators at once and the owners of the addresses: an acknowledged verification stays, whoever is first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_verification_is_never_undone_by_a_removal() {
    let mut system = without_views().await;
    let damage = Damage::of(&system).await;
    let mut accounts = Vec::new();
    for n in 0..12 {
        accounts.push(forgotten(&system, &damage, &format!("race{n}")).await);
    }
    let mut removing = REMOVE.to_vec();
    removing.extend(["--rate", "5"]);
    let start = || system.roster_command(&removing).stdout(Stdio::null()).spawn().unwrap();
    let mut operators = [start(), start()];
    let first = accounts[0].0;
    let began = || is_deleted(&damage, first);
    wait_for("the operators to begin", began).await;
    let mut verified: Vec<(UserId, Answer)> = Vec::new();
    // From the end: the operators come from the beginning, and they meet.
    for (user, token) in accounts.iter().rev() {
        let body = json!({ "token": token, "password": PASSWORD });
        let answer = system.commands().post("/api/v1/auth/verify-email-confirm", &body).await;
        verified.push((*user, answer));
    }
    for operator in &mut operators {
        assert!(operator.wait().unwrap().success());
    }
    for (user, answer) in &verified {
        let state = damage.events_of(*user).await.pop().unwrap().json();
        match answer.status {
            204 => assert_eq!(state["data"]["user"]["email_verified"], true, "{user}: {state}"),
            status => {
                assert!((400..500).contains(&status), "{user}: {answer:?}");
                assert_eq!(state["type"], "user.deleted.v1", "{user}");
            }
        }
    }
    let count = verified.iter().filter(|(_, answer)| answer.status == 204).count();
    println!("{count} of {} were verified before they were removed", verified.len());
    assert_eq!(removed(&system, &REMOVE), [], "whoever is left is verified");
    system.start_projector();
    system.ready().await;
    let agrees = system.roster(&["verify"]);
    assert!(agrees.status.success(), "{}", String::from_utf8_lossy(&agrees.stdout));
}
