//! An event that cannot be read: nothing is skipped, other products continue, and readiness reports it.

use async_nats::{HeaderMap, jetstream};
use e2e::wait_for;

use crate::support::{Shop, names, publish};

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_event_is_parked_and_stops_the_feed_until_it_is_removed() {
    let shop = Shop::open().await;
    let ada = shop.shopper("poison-ada").await;
    publish(&ada.client, "Before", 5).await;
    let context = jetstream::new(shop.system.operator().await);
    let subject = "ev.product.0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    // A writer of the log sets the type. A message without it is foreign, and passed over.
    let mut headers = HeaderMap::new();
    headers.insert("Roster-Event-Type", "product.renamed.v1");
    let stored = context.publish_with_headers(subject, headers, "no event".into());
    let stored = stored.await.unwrap().await.unwrap();
    wait_for("readiness to report it", || async {
        let ready = shop.private().get("/readyz").await;
        let failed = &ready.body["failed"];
        ready.status == 503 && failed["products"].is_string() && failed["feed"].is_string()
    })
    .await;
    publish(&ada.client, "After", 5).await;
    let seen = ada.client.get("/api/v1/products").await.expect(200);
    assert_eq!(names(&seen), ["After", "Before"]);
    assert_eq!(shop.feed_length().await, 2, "nothing after it is published");

    let log = context.get_stream("PRODUCTS").await.unwrap();
    log.delete_message(stored.sequence).await.unwrap();
    wait_for("the service to recover", || async {
        shop.private().get("/readyz").await.status == 200
    })
    .await;
    assert_eq!(shop.feed_events(4).await.len(), 4);
}
