//! The operator looks at events and at one user: what is there, and nothing secret of it.

use e2e::{PASSWORD, System, rename, wait_for};
use events::UserId;
use mongodb::bson::doc;
use serde_json::{Value, json};

use crate::damage::{Damage, USERS, key};
use crate::looking::look;

/// The lines of a look as JSON.
fn lines(system: &System, arguments: &[&str]) -> Vec<Value> {
    let output = system.roster(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["event"]["type"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_followed_shown_and_counted_without_secrets() {
    let mut system = System::shared().await;
    // What is looked at must stay.
    system.kill_reactor();
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let ada = commands.register("ada@example.com").await.expect(201);
    let id = ada.body["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/users/{id}");
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    commands.refresh(&pair.refresh).await.expect(200);
    let renamed = admin.patch(&path, &rename("Ada")).await.expect(200).position();
    commands.register("eve@example.com").await.expect(201);

    let tail = |more: &[&str]| {
        let mut command = vec!["events", "tail", "--no-follow", "--json"];
        command.extend(more);
        lines(&system, &command)
    };
    assert_eq!(tail(&[]).len(), 4);
    let of_ada = tail(&["--user", &id]);
    assert_eq!(kinds(&of_ada), ["user.registered.v1", "user.profile_changed.v1"]);
    assert_eq!(of_ada[1]["position"], renamed);
    assert!(of_ada[0]["event"]["correlationid"].is_string());
    assert_eq!(kinds(&tail(&["--type", "user.profile_changed"])), ["user.profile_changed.v1"]);
    let from = renamed.to_string();
    assert_eq!(tail(&["--from", &from]).len(), 2);
    let of_sessions = tail(&["--stream", "sessions", "--user", &id]);
    assert_eq!(kinds(&of_sessions), ["session.started.v1", "session.refreshed.v1"]);
    assert!(of_sessions[0]["session_id"].is_string());
    wait_for("the feed", || async { tail(&["--stream", "feed", "--user", &id]).len() == 3 }).await;

    // It goes on with what happens, and says nothing of a person.
    let mut following = system.roster_in_the_background(&["events", "tail", "--from", "1"], "tail");
    let said = || std::fs::read_to_string(system.file("tail")).unwrap();
    wait_for("the tail to be there", || async { said().lines().count() == 4 }).await;
    admin.delete(&path).await.expect(204);
    wait_for("the deletion", || async { said().contains("user.deleted.v1") }).await;
    assert!(said().contains(&format!("user={id}")) && !said().contains("example.com"));
    following.kill().unwrap();
    following.wait().unwrap();

    // One event, whole.
    let (code, shown) = look(&system, &["events", "show", &from]);
    assert_eq!(
        (code, &shown["message"]["data"]["changed"]),
        (Some(0), &json!({"full_name": "Ada"}))
    );
    assert_eq!(shown["subject"], format!("ev.user.{id}"));
    let damage = Damage::of(&system).await;
    let mut refused = 0;
    for message in damage.messages("USERS", "sec.user.*").await {
        let output = system.roster(&["events", "show", &message.sequence.to_string()]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        refused += 1;
    }
    assert!(refused > 2);
    for message in damage.messages("SESSIONS", "ev.session.*.*").await {
        let seed = message.json()["data"]["session"]["seed"].as_str().unwrap().to_owned();
        let sequence = message.sequence.to_string();
        let output = system.roster(&["events", "show", &sequence, "--stream", "sessions"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains("\"hidden\"") && !said.contains(&seed));
    }
    let gone = system.roster(&["events", "show", "99999"]);
    assert_eq!(gone.status.code(), Some(1));

    // Counted.
    let (_, stats) = look(&system, &["events", "stats", "--json", "--by", "hour"]);
    assert_eq!(stats["totals"]["user.registered.v1"], 3, "{stats}");
    assert_eq!(stats["totals"]["session.refreshed.v1"], 1);
    let counted: u64 = stats["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "user.registered.v1")
        .map(|item| item["count"].as_u64().unwrap())
        .sum();
    assert_eq!(counted, 3);
    assert_eq!(stats["items"][0]["when"].as_str().unwrap().len(), "2026-01-31T12".len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_is_shown_side_by_side_with_what_disagrees() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let ada = commands.register("Ada@Example.com").await.expect(201);
    let id = ada.body["id"].as_str().unwrap().to_owned();
    commands.register("eve@example.com").await.expect(201);
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    commands.log_in("ada@example.com", PASSWORD).await;
    commands.log_out_with(&pair.refresh).await.expect(204);
    let path = format!("/api/v1/users/{id}");
    let position = admin.patch(&path, &rename("Ada")).await.expect(200).position();

    let (code, shown) = look(&system, &["user", "show", "ADA@example.com", "--json"]);
    assert_eq!((code, &shown["differences"]), (Some(0), &json!([])), "{shown}");
    assert_eq!(shown["user_id"], id.as_str());
    assert_eq!(shown["log"]["events"].as_array().unwrap().len(), 2);
    assert_eq!(shown["log"]["events"][1]["position"], position);
    assert_eq!(shown["log"]["state"]["full_name"], "Ada");
    assert_eq!(shown["claim"]["held_by"], id.as_str());
    assert_eq!(shown["views"]["user"]["position"], position);
    assert_eq!(shown["views"]["history"], 2);
    assert_eq!(shown["sessions"].as_array().unwrap().len(), 2);
    assert_eq!(shown["feed"]["messages"], 5, "{shown}");
    let (_, same) = look(&system, &["users", "show", &id, "--json"]);
    assert_eq!(same, shown);

    let user: UserId = id.parse().unwrap();
    let damage = Damage::of(&system).await;
    damage.change(USERS, doc! {"_id": key(user)}, doc! {"full_name": "Mallory"}).await;
    let told = damage.messages("USER_EVENTS", &format!("users.v1.registered.{id}")).await;
    damage.remove("USER_EVENTS", told[0].sequence).await;
    damage.remove("USERS", damage.claim_of(user).await.sequence).await;
    let (code, shown) = look(&system, &["user", "show", &id, "--json"]);
    assert_eq!(code, Some(1));
    let mut places: Vec<&str> = shown["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["where"].as_str().unwrap())
        .collect();
    places.sort_unstable();
    assert_eq!(places, ["claim", "feed", "user-view"], "{shown}");
    // Others are not looked at.
    let (code, eve) = look(&system, &["user", "show", "eve@example.com", "--json"]);
    assert_eq!((code, &eve["differences"]), (Some(0), &json!([])));

    admin.delete(&path).await.expect(204);
    for nobody in ["nobody@example.com", "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"] {
        let output = system.roster(&["user", "show", nobody]);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{nobody}");
    }
    for wrong in [
        &["user", "show", "not an address"][..],
        &["events", "tail", "--no-follow", "--type", "user.registerd"],
        &["events", "tail", "--no-follow", "--type", "sessions.v1.started"],
        &["events", "tail", "--no-follow", "--from", "now"],
        &["replay", "--type", "user.registered"],
        &["admin", "create", "nobody"],
    ] {
        let output = system.roster(wrong);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{wrong:?}");
    }
    for (stream, named) in [("users", "users.v1.deleted"), ("feed", "user.deleted")] {
        let command = ["events", "tail", "--no-follow", "--stream", stream, "--type", named];
        assert_eq!(system.roster(&command).stdout.iter().filter(|b| **b == b'\n').count(), 1);
    }
}
