//! The operator makes administrators on a system that runs.

use std::io::Write;
use std::process::Stdio;

use e2e::{ADMIN_EMAIL, PASSWORD, System};
use serde_json::{Value, json};

/// What `roster admin create` answers, with its exit code.
fn create(system: &System, arguments: &[&str], stdin: &str) -> (Option<i32>, Value) {
    let mut command = vec!["admin", "create", "--json"];
    command.extend(arguments);
    let mut process = system
        .roster_command(&command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

async fn is_administrator(system: &System, email: &str, password: &str) -> bool {
    let token = system.commands().login(email, password).await;
    system.queries().with_token(&token).get("/api/v1/users").await.status == 200
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn administrators_are_made_with_a_password_by_mail_or_of_a_user() {
    let system = System::shared().await;
    let chosen = "grace chose this one herself";

    let (code, made) = create(&system, &["grace@example.com", "--password-stdin"], chosen);
    assert_eq!((code, &made["outcome"]), (Some(0), &json!("created")));
    assert!(is_administrator(&system, "grace@example.com", chosen).await);
    let (code, again) = create(&system, &["Grace@Example.com"], "");
    assert_eq!((code, &again["outcome"]), (Some(0), &json!("already")));
    assert_eq!(again["user_id"], made["user_id"]);

    // Without a password there is none until the mailed link is used.
    let ada = "ada@example.com";
    let (code, made) = create(&system, &[ada, "--name", "Ada Lovelace"], "");
    assert_eq!((code, &made["outcome"]), (Some(0), &json!("created")));
    let mail = system.wait_for_mails_to(ada, 1).await.remove(0);
    let body = json!({ "token": mail.token(), "new_password": chosen });
    system.commands().post("/api/v1/auth/password-reset-confirm", &body).await.expect(204);
    assert!(is_administrator(&system, ada, chosen).await);
    let token = system.commands().login(ada, chosen).await;
    let me = system.queries().with_token(&token).get("/api/v1/auth/me").await.expect(200).body;
    assert_eq!(
        (&me["full_name"], &me["roles"]),
        (&json!("Ada Lovelace"), &json!(["admin", "user"]))
    );

    // A user keeps password and roles, and is asked for by name.
    let user = system.commands().register("bob@example.com").await.expect(201);
    let (admin, _) = system.as_administrator().await;
    let path = user.header("location").unwrap();
    admin.patch(path, &json!({ "roles": ["auditor", "user"] })).await.expect(200);
    let (code, taken) = create(&system, &["bob@example.com"], "");
    assert_eq!((code, &taken["outcome"]), (Some(1), &json!("taken")));
    assert!(!is_administrator(&system, "bob@example.com", PASSWORD).await);
    let (code, promoted) = create(&system, &["bob@example.com", "--promote"], "");
    assert_eq!((code, &promoted["outcome"]), (Some(0), &json!("promoted")));
    assert!(is_administrator(&system, "bob@example.com", PASSWORD).await);
    let (_, again) = create(&system, &["bob@example.com", "--promote"], "");
    assert_eq!((&again["outcome"], &again["user_id"]), (&json!("already"), &user.body["id"]));
    let bob = admin.patch(path, &json!({ "full_name": "Bob" })).await.expect(200).body;
    assert_eq!(bob["roles"], json!(["admin", "auditor", "user"]));
    // The one that the environment asked for is there as well.
    let (_, first) = create(&system, &[ADMIN_EMAIL], "");
    assert_eq!(first["outcome"], "already");

    for (wrong, stdin, code) in [
        (&["nobody@example.com", "--promote"][..], "", 1),
        (&["no address"], "", 2),
        (&["weak@example.com", "--password-stdin"], "password", 2),
        (&["empty@example.com", "--password-stdin"], "\n", 2),
        (&["both@example.com", "--promote", "--password-stdin"], chosen, 2),
        (&["name@example.com", "--name", "\u{200b}"], "", 2),
        (&["argument@example.com", "--password", chosen], "", 2),
    ] {
        assert_eq!(create(&system, wrong, stdin).0, Some(code), "{wrong:?}");
    }
    let disabled = system.commands().register("off@example.com").await.expect(201);
    let path = disabled.header("location").unwrap();
    admin.patch(path, &json!({ "status": "disabled" })).await.expect(200);
    let (code, refused) = create(&system, &["off@example.com", "--promote"], "");
    assert_eq!((code, &refused["outcome"]), (Some(1), &json!("disabled")));

    // By id and outcome, without address and password.
    let audited = system.roster(&["audit", "list", "--command", "admin-create", "--json"]);
    let text = String::from_utf8(audited.stdout).unwrap();
    let items: Value = serde_json::from_str(&text).unwrap();
    let items = items["items"].as_array().unwrap();
    assert!(
        items.iter().all(|item| item["data"]["outcome"] != "failed"),
        "wrong use begins nothing"
    );
    let results = items
        .iter()
        .filter_map(|item| item.pointer("/data/result/outcome").and_then(Value::as_str));
    assert!(results.clone().any(|outcome| outcome == "promoted"));
    assert_eq!(results.filter(|outcome| *outcome == "created").count(), 2);
    assert!(text.contains(made["user_id"].as_str().unwrap()));
    assert!(!text.contains("example.com") && !text.contains(chosen));
}

#[tokio::test]
async fn an_administrator_who_cannot_get_in_does_not_count() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let ada = "ada@example.com";
    let body = json!({"email": ada, "roles": ["admin", "user"]});
    let made = admin.post("/api/v1/users", &body).await.expect(201);
    let own = json!({"current_password": e2e::ADMIN_PASSWORD}).to_string().into_bytes();
    let leave = async || {
        let body = Some(("application/json", own.clone()));
        admin.send("DELETE", "/api/v1/auth/me", body).await
    };
    // Ada has no password yet: nobody could get in any more.
    assert_eq!(leave().await.expect(409).code(), "last-admin");
    // Who cannot get in may go.
    admin.delete(made.header("location").unwrap()).await.expect(204);
    admin.post("/api/v1/users", &body).await.expect(201);
    let newest = || system.mails_to(ada).into_iter().filter(|mail| mail.link.is_some()).nth(1);
    e2e::wait_for("the second invitation", || async { newest().is_some() }).await;
    let set = json!({"token": newest().unwrap().token(), "new_password": "grace chose this one"});
    system.commands().post("/api/v1/auth/password-reset-confirm", &set).await.expect(204);
    leave().await.expect(204);
    assert!(is_administrator(&system, ada, "grace chose this one").await);
}
