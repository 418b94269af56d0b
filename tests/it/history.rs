//! What happened to a user, as administrators see it.

use e2e::{Client, Logged, PASSWORD, System, rename};
use events::Fact;
use serde_json::{Value, json};

/// A history, walked to its end.
async fn whole(queries: &Client, user: &str, page_size: usize) -> Vec<Value> {
    let (mut entries, mut path) = (Vec::new(), format!("{user}/history?page_size={page_size}"));
    loop {
        let page = queries.get(&path).await.expect(200);
        let items = page.body["items"].as_array().unwrap();
        assert!(items.len() <= page_size);
        entries.extend(items.iter().cloned());
        if page.body["next_cursor"].is_null() {
            assert_eq!(page.header("link"), None);
            return entries;
        }
        let link = page.header("link").unwrap();
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
}

/// The same out of the log.
fn logged(log: &[Logged], user: &str) -> Vec<Value> {
    let of_user = |logged: &&Logged| user.ends_with(&logged.event.user_id().to_string());
    let entry = |logged: &Logged| {
        json!({
            "position": logged.position, "revision": logged.event.revision(),
            "type": logged.event.fact.wire_type(), "time": logged.event.time,
            "actor": logged.event.actor, "changed": logged.event.fact.changed().unwrap(),
        })
    };
    log.iter().filter(of_user).map(entry).collect()
}

#[tokio::test]
async fn a_history_is_what_the_log_has_and_after_a_deletion_nothing_but_that() {
    let mut system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let me = queries.get("/api/v1/auth/me").await.expect(200).body["id"].clone();
    let user = system.commands().register("ada@example.com").await.expect(201);
    let other = system.commands().register("eve@example.com").await.expect(201);
    let path = user.header("location").unwrap().to_owned();
    let other = other.header("location").unwrap().to_owned();
    admin.patch(&path, &json!({"full_name": null, "metadata": {"$a.b": [1]}})).await.expect(200);
    admin.patch(&path, &json!({"roles": ["clerk"], "status": "disabled"})).await.expect(200);
    admin.patch(&path, &json!({"status": "active"})).await.expect(200);

    let log = system.events().await;
    for page_size in [1, 2, 5, 200] {
        assert_eq!(whole(&queries, &path, page_size).await, logged(&log, &path), "{page_size}");
    }
    let entries = whole(&queries, &path, 50).await;
    assert_eq!(entries[0]["type"], "user.registered.v1");
    assert_eq!(entries[0]["actor"], "anonymous");
    assert_eq!(entries[0]["changed"]["email"], "ada@example.com");
    assert_eq!(entries[1]["changed"], json!({"full_name": null, "metadata": {"$a.b": [1]}}));
    assert_eq!(entries.last().unwrap()["actor"], me);
    assert_eq!(whole(&queries, &other, 50).await.len(), 1);

    // Who may: as the list.
    let token = system.commands().login("ada@example.com", PASSWORD).await;
    let as_ada = system.queries().with_token(&token);
    as_ada.get(&format!("{path}/history")).await.expect(403);
    system.queries().get(&format!("{path}/history")).await.expect(401);
    admin.patch(&other, &json!({"roles": ["operator"]})).await.expect(200);
    let token = system.commands().login("eve@example.com", PASSWORD).await;
    let operator = system.queries().with_token(&token);
    assert_eq!(whole(&operator, &path, 50).await, entries);

    let first = queries.get(&format!("{path}/history?page_size=1")).await.expect(200);
    let cursor = first.body["next_cursor"].as_str().unwrap().to_owned();
    for bad in [
        format!("{other}/history?cursor={cursor}"),
        format!("{path}/history?cursor=x"),
        format!("{path}/history?page_size=0"),
        format!("{path}/history?sort=time"),
        format!("{path}/history?min_position=1&min_position=1"),
        format!("/api/v1/users?cursor={cursor}"),
    ] {
        assert_eq!(queries.get(&bad).await.expect(400).code(), "invalid-parameter", "{bad}");
    }
    for nobody in ["0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", "somebody"] {
        queries.get(&format!("/api/v1/users/{nobody}/history")).await.expect(404);
    }

    // Nothing personal is left, and a projector that starts anew brings nothing back.
    let gone = admin.delete(&path).await.expect(204);
    let deletion = |entries: &[Value]| {
        assert_eq!(entries.len(), 1, "{entries:?}");
        assert_eq!(entries[0]["type"], "user.deleted.v1");
        assert_eq!((&entries[0]["actor"], &entries[0]["changed"]), (&me, &json!({})));
        assert_eq!(entries[0]["position"], gone.position());
    };
    deletion(&whole(&queries, &path, 50).await);
    system.kill_projector();
    system.start_projector();
    let after = admin.patch(&other, &rename("Eve")).await.expect(200).position();
    let latest = format!("{other}/history?min_position={after}");
    let latest = queries.get(&latest).await.expect(200);
    assert!(latest.position() >= after);
    assert_eq!(latest.body["items"].as_array().unwrap().last().unwrap()["position"], after);
    deletion(&whole(&queries, &path, 50).await);
    let next = queries.get(&format!("{path}/history?cursor={cursor}")).await.expect(200);
    deletion(next.body["items"].as_array().unwrap());
}
