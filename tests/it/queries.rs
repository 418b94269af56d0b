//! The list, page by page.

use std::collections::HashSet;

use e2e::{System, list_all};
use serde_json::json;

#[tokio::test]
async fn a_list_is_walked_without_repetition_or_gap() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let mut paths = Vec::new();
    for n in 0..25 {
        let user = system.commands().register(&format!("user{n}@example.com")).await.expect(201);
        paths.push(user.header("location").unwrap().to_owned());
    }
    for path in &paths[..5] {
        admin
            .patch(path, &json!({"status": "disabled", "roles": ["user", "clerk"]}))
            .await
            .expect(200);
    }
    admin.delete(&paths[24]).await.expect(204);

    let emails = |users: &[serde_json::Value]| -> Vec<String> {
        users.iter().map(|u| u["email"].as_str().unwrap().to_owned()).collect()
    };
    let newest = emails(&list_all(&queries, "page_size=4").await);
    assert_eq!(newest.len(), 25, "24 users and the administrator");
    assert_eq!(newest.first().unwrap(), "user23@example.com");
    assert_eq!(newest.iter().collect::<HashSet<_>>().len(), 25);
    let mut oldest = emails(&list_all(&queries, "page_size=7&sort=created_at").await);
    oldest.reverse();
    assert_eq!(oldest, newest);

    for (parameters, count) in [
        ("status=disabled&page_size=2", 5),
        ("status=active&page_size=200", 20),
        ("role=clerk", 5),
        ("role=admin", 1),
        ("role=nobody-has-it", 0),
        ("email=USER7@example.com", 1),
        ("email_verified=true", 1),
        ("created_before=2020-01-01T00:00:00Z", 0),
        ("created_after=2020-01-01T00:00:00Z&page_size=10", 25),
    ] {
        assert_eq!(list_all(&queries, parameters).await.len(), count, "{parameters}");
    }

    // A user who comes while the list is walked changes no page behind the cursor.
    let first = queries.get("/api/v1/users?page_size=10").await.expect(200);
    system.commands().register("newcomer@example.com").await.expect(201);
    let link = first.header("link").unwrap().to_owned();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let second = queries.get(next).await.expect(200);
    let seen: Vec<String> = [&first, &second]
        .iter()
        .flat_map(|page| emails(page.body["items"].as_array().unwrap()))
        .collect();
    assert_eq!(seen, newest[..20]);

    let cursor = first.body["next_cursor"].as_str().unwrap();
    for path in [
        format!("/api/v1/users?cursor={cursor}&page_size=10&status=active"),
        format!("/api/v1/users?cursor={cursor}&page_size=10&sort=created_at"),
        format!("/api/v1/users?cursor=A{cursor}&page_size=10"),
        "/api/v1/users?skip=1".to_owned(),
        "/api/v1/users?page_size=1&page_size=2".to_owned(),
        "/api/v1/users?page_size=1000".to_owned(),
        "/api/v1/users?sort=id".to_owned(),
        "/api/v1/users?q=".to_owned(),
        "/api/v1/users?include_total=maybe".to_owned(),
        "/api/v1/users?min_position=x".to_owned(),
        "/api/v1/auth/me?fields=all".to_owned(),
    ] {
        assert_eq!(queries.get(&path).await.expect(400).code(), "invalid-parameter", "{path}");
    }
    // The size of a page is no part of what a cursor is bound to.
    let smaller = queries.get(&format!("/api/v1/users?cursor={cursor}&page_size=3")).await;
    let smaller = smaller.expect(200);
    assert_eq!(emails(smaller.body["items"].as_array().unwrap()), newest[10..13]);
    // The same path with a slash behind it.
    queries.get("/api/v1/users/?page_size=1").await.expect(200);
}
