//! Lists: who sees what, in which order, page by page.

use serde_json::json;

use crate::support::{Shop, create, names, publish};

#[tokio::test(flavor = "multi_thread")]
async fn lists_page_through_what_a_caller_may_see() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.shopper("lists-ada").await, shop.shopper("lists-bob").await);
    for (name, amount) in [("delta", 4), ("alpha", 9), ("Charlie", 2), ("bravo", 9)] {
        publish(&ada.client, name, amount).await;
    }
    create(&ada.client, "draft of ada", 1).await;
    create(&bob.client, "draft of bob", 1).await;

    let seen = bob.client.get("/api/v1/products").await.expect(200);
    assert_eq!(names(&seen), ["bravo", "Charlie", "alpha", "delta"]);
    let own = bob.client.get(&format!("/api/v1/products?owner={}", bob.id)).await.expect(200);
    assert_eq!(names(&own), ["draft of bob"]);
    let others = bob.client.get(&format!("/api/v1/products?owner={}", ada.id)).await.expect(200);
    assert_eq!(names(&others).len(), 4, "the drafts of others are not listed");
    bob.client.get("/api/v1/products?status=draft").await.expect(403);
    let administrator = shop.administrator().await;
    let drafts = administrator.get("/api/v1/products?status=draft").await.expect(200);
    assert_eq!(names(&drafts), ["draft of bob", "draft of ada"]);

    for (sort, order) in [
        ("name", ["alpha", "bravo", "Charlie", "delta"]),
        ("-price", ["bravo", "alpha", "delta", "Charlie"]),
        ("created_at", ["delta", "alpha", "Charlie", "bravo"]),
    ] {
        let mut path = format!("/api/v1/products?sort={sort}&page_size=3&include_total=true");
        let mut found: Vec<String> = Vec::new();
        for _ in 0..2 {
            let page = bob.client.get(&path).await.expect(200);
            assert_eq!(page.body["total"], json!(4));
            found.extend(names(&page).into_iter().map(str::to_owned));
            let Some(cursor) = page.body["next_cursor"].as_str() else { break };
            path = format!(
                "/api/v1/products?sort={sort}&page_size=3&include_total=true&cursor={cursor}"
            );
        }
        assert_eq!(found, order, "{sort}");
    }
    for wrong in ["sort=owner", "status=x", "owner=x", "nope=1", "cursor=x", "page_size=0"] {
        let refused = bob.client.get(&format!("/api/v1/products?{wrong}")).await.expect(400);
        assert_eq!(refused.code(), "invalid-parameter", "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilds_the_views_from_the_log() {
    let mut shop = Shop::open().await;
    let ada = shop.shopper("rebuild-ada").await;
    let path = publish(&ada.client, "Chair", 5).await;
    let deleted = publish(&ada.client, "Gone", 5).await;
    ada.client.delete(&deleted).await.expect(204);
    let before = ada.client.get("/api/v1/products").await.expect(200);
    shop.kill();
    shop.drop_views().await;
    shop.start().await;
    let client = shop.client().with_token(&ada.token);
    assert_eq!(client.get("/api/v1/products").await.expect(200).body, before.body);
    client.get(&path).await.expect(200);
    client.get(&deleted).await.expect(404);
    assert_eq!(shop.feed_events(5).await.len(), 5, "nothing is published again");
}
