//! Changing and deleting users, and who may.

use e2e::{Client, PASSWORD, System, rename, wait_for};
use futures::future::join_all;
use serde_json::{Value, json};

#[tokio::test]
async fn a_patch_merges_and_if_match_compares() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let user = system.commands().register("ada@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();

    let patch = json!({"metadata": {"a": {"b": 1, "c": 2}}});
    let one = admin.patch(&path, &patch).await.expect(200);
    assert_eq!(one.header("etag"), Some("W/\"2\""));
    let patch = json!({"full_name": null, "metadata": {"a": {"b": null}}});
    let two = admin.with_header("if-match", "W/\"2\"").patch(&path, &patch).await.expect(200);
    assert_eq!(two.body["metadata"], json!({"a": {"c": 2}}));
    assert_eq!(two.body["full_name"], Value::Null);

    let stale = admin.with_header("if-match", "\"2\"").patch(&path, &rename("x")).await.expect(412);
    assert_eq!(stale.code(), "stale-revision");
    admin.with_header("if-match", "W/\"2\"").delete(&path).await.expect(412);
    let same = admin.patch(&path, &json!({})).await.expect(200);
    assert_eq!(same.position(), two.position(), "nothing happened");

    let known = queries.with_header("if-none-match", "W/\"3\"").get(&path).await.expect(304);
    assert_eq!(known.header("etag"), Some("W/\"3\""));
    queries.with_header("if-none-match", "W/\"2\"").get(&path).await.expect(200);
}

#[tokio::test]
async fn racing_changes_lose_no_update() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let user = system.commands().register("ada@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();

    let free = join_all((0..50).map(|n| {
        let (admin, path) = (admin.clone(), path.clone());
        async move { admin.patch(&path, &json!({"metadata": {format!("k{n}"): n}})).await }
    }))
    .await;
    assert!(free.iter().all(|a| a.status == 200), "{free:?}");
    let after = queries.get(&path).await.expect(200);
    assert_eq!(after.body["revision"], 51);
    assert_eq!(after.body["metadata"].as_object().unwrap().len(), 50);

    let guarded = admin.with_header("if-match", "W/\"51\"");
    let racing = join_all((0..50).map(|n| {
        let (guarded, path) = (guarded.clone(), path.clone());
        async move { guarded.patch(&path, &rename(&format!("Name {n}"))).await.status }
    }))
    .await;
    assert_eq!(racing.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(racing.iter().filter(|status| **status == 412).count(), 49);
}

#[tokio::test]
async fn a_deleted_user_is_gone_and_the_address_free() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let commands = system.commands();
    let user = commands.register("ada@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();
    let token = commands.login("ada@example.com", PASSWORD).await;

    admin.delete(&path).await.expect(204);
    queries.get(&path).await.expect(404);
    system.queries().with_token(&token).get("/api/v1/auth/me").await.expect(401);
    let login = json!({"email": "ada@example.com", "password": PASSWORD});
    commands.post("/api/v1/auth/login", &login).await.expect(401);
    admin.patch(&path, &rename("x")).await.expect(404);
    admin.delete("/api/v1/users/0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b").await.expect(404);

    let again = commands.register("ADA@example.com").await.expect(201);
    assert_ne!(again.body["id"], user.body["id"], "an id is never used again");
    system.views_equal_the_log(&queries).await;
}

#[tokio::test]
async fn rights_follow_the_log_and_not_the_token() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let commands = system.commands();
    let ada = commands.register("ada@example.com").await.expect(201);
    let eve = commands.register("eve@example.com").await.expect(201);
    let (ada, eve) = (ada.header("location").unwrap(), eve.header("location").unwrap());

    // Plain users see themselves and nobody else.
    let as_ada = commands.login("ada@example.com", PASSWORD).await;
    let (ada_commands, ada_queries) =
        (commands.with_token(&as_ada), system.queries().with_token(&as_ada));
    ada_queries.get(ada).await.expect(200);
    ada_queries.get(eve).await.expect(404);
    ada_queries.get("/api/v1/users").await.expect(403);
    ada_commands.patch(ada, &json!({"roles": ["admin"]})).await.expect(403);
    ada_commands.delete(eve).await.expect(403);
    for answer in [
        system.queries().get(ada).await,
        system.queries().with_token("x.y.z").get("/api/v1/auth/me").await,
        commands.delete(eve).await,
    ] {
        assert_eq!(answer.expect(401).code(), "unauthorized");
    }

    // A second administrator may, until it no longer is one: the token dies with the role.
    admin.patch(ada, &json!({"roles": ["admin", "user"]})).await.expect(200);
    let as_ada = commands.login("ada@example.com", PASSWORD).await;
    let (ada_commands, ada_queries) =
        (commands.with_token(&as_ada), system.queries().with_token(&as_ada));
    ada_commands.patch(eve, &rename("Eve")).await.expect(200);
    ada_queries.get("/api/v1/users").await.expect(200);
    admin.patch(ada, &json!({"roles": ["user"]})).await.expect(200);
    wait_for("the token is dead everywhere", || async {
        ada_commands.patch(eve, &rename("Mallory")).await.status == 401
            && ada_queries.get("/api/v1/users").await.status == 401
    })
    .await;
    let as_ada = commands.login("ada@example.com", PASSWORD).await;
    let (ada_commands, ada_queries) =
        (commands.with_token(&as_ada), system.queries().with_token(&as_ada));
    ada_commands.patch(eve, &rename("Mallory")).await.expect(403);
    ada_queries.get("/api/v1/users").await.expect(403);

    // A disabled user is out, by every way in.
    admin.patch(ada, &json!({"status": "disabled"})).await.expect(200);
    ada_queries.get("/api/v1/auth/me").await.expect(401);
    let login = json!({"email": "ada@example.com", "password": PASSWORD});
    assert_eq!(
        commands.post("/api/v1/auth/login", &login).await.expect(401).code(),
        "invalid-credentials"
    );
    admin.patch(ada, &json!({"status": "active"})).await.expect(200);
    ada_queries.get("/api/v1/auth/me").await.expect(401);
    let as_ada = commands.login("ada@example.com", PASSWORD).await;
    system.queries().with_token(&as_ada).get("/api/v1/auth/me").await.expect(200);

    // The last administrator stays, whatever is tried.
    let me = queries.get("/api/v1/auth/me").await.expect(200);
    let me = format!("/api/v1/users/{}", me.body["id"].as_str().unwrap());
    for answer in [
        admin.delete(&me).await,
        admin.patch(&me, &json!({"roles": ["user"]})).await,
        admin.patch(&me, &json!({"status": "disabled"})).await,
    ] {
        assert_eq!(answer.expect(409).code(), "last-admin");
    }
}

/// Two administrators who remove each other at once: one stays.
#[tokio::test]
async fn the_last_two_administrators_cannot_remove_each_other() {
    let system = System::shared().await;
    let (mut admin, queries) = system.as_administrator().await;
    let me = queries.get("/api/v1/auth/me").await.expect(200);
    let me = format!("/api/v1/users/{}", me.body["id"].as_str().unwrap());
    for round in 0..10 {
        let email = format!("admin{round}@example.com");
        let other = system.commands().register(&email).await.expect(201);
        let other = other.header("location").unwrap().to_owned();
        admin.patch(&other, &json!({"roles": ["admin"]})).await.expect(200);
        let token = system.commands().login(&email, PASSWORD).await;
        let second = system.commands().with_token(&token);
        let demote = json!({"roles": ["user"]});
        let (one, two) = tokio::join!(second.patch(&me, &demote), admin.patch(&other, &demote));
        let done = [&one, &two].iter().filter(|a| a.status == 200).count();
        assert_eq!(done, 1, "{one:?} {two:?}");
        if one.status == 200 {
            second.patch(&me, &json!({"roles": ["admin", "user"]})).await.expect(200);
            // The first one's token died with its role, and does not come back with it.
            admin = system.as_administrator().await.0;
            admin.patch(&other, &demote).await.expect(200);
        }
    }
}

#[tokio::test]
async fn a_put_replaces_everything_that_can_be_written() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let body = json!({"email": "ada@example.com", "full_name": "Ada", "metadata": {"a": {"b": 1}}});
    let user = admin.post("/api/v1/users", &body).await.expect(201);
    let path = user.header("location").unwrap().to_owned();
    let put = async |client: &Client, body: Value| {
        let body = ("application/json", body.to_string().into_bytes());
        client.send("PUT", &path, Some(body)).await
    };
    let whole = json!({"full_name": null, "roles": ["editor", "user"], "status": "disabled",
                       "metadata": {"c": null}});
    let replaced = put(&admin, whole.clone()).await.expect(200);
    for (member, value) in whole.as_object().unwrap() {
        assert_eq!(&replaced.body[member], value, "{member}");
    }
    assert_eq!(queries.get(&path).await.expect(200).body["metadata"], whole["metadata"]);
    let again = put(&admin, whole.clone()).await.expect(200);
    assert_eq!(again.position(), replaced.position(), "nothing happened");

    for member in ["full_name", "roles", "status", "metadata"] {
        let mut part = whole.clone();
        part.as_object_mut().unwrap().remove(member);
        let refused = put(&admin, part).await.expect(422);
        let error = &refused.body["errors"][0];
        assert_eq!(error["pointer"], format!("/{member}"));
        assert_eq!(error["code"], "required");
    }
    let mut more = whole.clone();
    more["email"] = "eve@example.com".into();
    put(&admin, more).await.expect(422);
    let revision = replaced.header("etag").unwrap();
    put(&admin.with_header("if-match", "W/\"1\""), whole.clone()).await.expect(412);
    put(&admin.with_header("if-match", revision), whole).await.expect(200);
}

#[tokio::test]
async fn users_are_disabled_and_enabled() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let user = system.commands().register("ada@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();
    let before = system.commands().login("ada@example.com", PASSWORD).await;
    let post = async |call: &str| admin.send("POST", &format!("{path}/{call}"), None).await;
    let disabled = post("disable").await.expect(200);
    assert_eq!(
        (&disabled.body["status"], disabled.header("etag")),
        (&json!("disabled"), Some("W/\"2\""))
    );
    assert_eq!(post("disable").await.expect(200).position(), disabled.position());
    let login = json!({"email": "ada@example.com", "password": PASSWORD});
    system.commands().post("/api/v1/auth/login", &login).await.expect(401);
    let stale = admin.with_header("if-match", "W/\"1\"");
    stale.send("POST", &format!("{path}/enable"), None).await.expect(412);
    assert_eq!(post("enable").await.expect(200).body["status"], "active");
    system.commands().post("/api/v1/auth/login", &login).await.expect(200);
    let me = system.queries().with_token(&before);
    me.get("/api/v1/auth/me").await.expect(401);
    let nobody = "/api/v1/users/0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b/disable";
    admin.send("POST", nobody, None).await.expect(404);
}

#[tokio::test]
async fn a_role_of_the_configuration_allows_what_it_says() {
    let roles = "helpdesk = users:write; auditor = users:read";
    let system = System::shared_with(&[("ROSTER_ACCESS_ROLES", roles)]).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let with_role = async |email: &str, role: &str| {
        let body = json!({"email": email, "password": PASSWORD, "roles": [role]});
        let made = admin.post("/api/v1/users", &body).await.expect(201);
        let token = commands.login(email, PASSWORD).await;
        (made.header("location").unwrap().to_owned(), commands.with_token(&token), token)
    };
    let (_, helpdesk, token) = with_role("helpdesk@example.com", "helpdesk").await;
    let (auditor_path, auditor, auditor_token) = with_role("auditor@example.com", "auditor").await;
    let (plain, _, _) = with_role("ada@example.com", "user").await;
    let (root, _, _) = with_role("root@example.com", "admin").await;

    for token in [&token, &auditor_token] {
        let reads = system.queries().with_token(token);
        reads.get("/api/v1/users").await.expect(200);
        reads.get(&root).await.expect(200);
    }
    helpdesk.patch(&plain, &rename("Ada")).await.expect(200);
    helpdesk.send("POST", &format!("{plain}/disable"), None).await.expect(200);
    helpdesk.send("POST", &format!("{plain}/logout-all"), None).await.expect(200);
    helpdesk.send("POST", &format!("{plain}/password-reset"), None).await.expect(202);
    let made = json!({"email": "bob@example.com"});
    let bob = helpdesk.post("/api/v1/users", &made).await.expect(201);
    helpdesk.delete(bob.header("location").unwrap()).await.expect(204);

    // Nothing that has a privilege, or gives one.
    for target in [&root, &auditor_path] {
        helpdesk.patch(target, &rename("Mallory")).await.expect(403);
        helpdesk.delete(target).await.expect(403);
        for call in ["disable", "logout-all", "password-reset"] {
            helpdesk.send("POST", &format!("{target}/{call}"), None).await.expect(403);
        }
    }
    helpdesk.patch(&plain, &json!({"roles": ["admin"]})).await.expect(403);
    let made = json!({"email": "eve@example.com", "roles": ["helpdesk"]});
    helpdesk.post("/api/v1/users", &made).await.expect(403);
    let line = Some(("application/x-ndjson", b"{\"email\":\"x@example.com\"}".to_vec()));
    helpdesk.send("POST", "/api/v1/users/import", line).await.expect(403);
    assert!(
        auditor.patch(&plain, &rename("x")).await.expect(403).body["detail"]
            .as_str()
            .unwrap()
            .contains("users:write")
    );

    // Taken away, it is gone at once, also from a token that says otherwise.
    let helpdesk_path = system.queries().with_token(&token).get("/api/v1/auth/me").await;
    let id = helpdesk_path.body["id"].as_str().unwrap();
    admin.patch(&format!("/api/v1/users/{id}"), &json!({"roles": ["user"]})).await.expect(200);
    helpdesk.patch(&plain, &rename("Mallory")).await.expect(401);
}
