//! What the service does when a user is deleted in Roster.

use e2e::wait_for;
use serde_json::Value;

use crate::support::{Shop, create, publish};

#[tokio::test(flavor = "multi_thread")]
async fn the_products_of_a_deleted_user_are_unpublished_once_and_in_order() {
    let mut shop = Shop::open_with(&[("PRODUCT_PRODUCTS_SECOND_LOOK_S", "1")]).await;
    let (ada, bob) = (shop.shopper("gone-ada").await, shop.shopper("gone-bob").await);
    let first = publish(&ada.client, "First", 5).await;
    let second = publish(&ada.client, "Second", 5).await;
    create(&ada.client, "Draft", 5).await;
    let others = publish(&bob.client, "Of bob", 5).await;

    // The deletion is published while the service is down.
    shop.kill();
    let (administrator, _) = shop.system.as_administrator().await;
    administrator.delete(&format!("/api/v1/users/{}", ada.id)).await.expect(204);
    shop.start().await;
    let bob_token = bob.token;
    let bob = shop.client().with_token(&bob_token);
    wait_for("the products to be unpublished", || async {
        bob.get(&first).await.status == 404 && bob.get(&second).await.status == 404
    })
    .await;
    bob.get(&others).await.expect(200);

    // The second look and a restart change nothing.
    shop.kill();
    shop.start().await;
    let bob = shop.client().with_token(&bob_token);
    create(&bob, "Later", 1).await;
    let events = shop.feed_events(10).await;
    let unpublished: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "products.v1.unpublished").collect();
    let ids: Vec<&str> = unpublished.iter().map(|it| it["subject"].as_str().unwrap()).collect();
    let id = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    assert_eq!(ids, [id(&first), id(&second)]);
    for event in unpublished {
        assert_eq!(event["data"]["reason"], "owner_deleted");
        assert_eq!(event["actor"], "system");
        assert!(event["causationid"].is_string(), "{event}");
    }
}
