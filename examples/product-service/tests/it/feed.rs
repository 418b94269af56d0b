//! The feed: every event once, in order, as the contract says.

use serde_json::Value;

use crate::support::{Shop, create, publish};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_published_once_in_order_despite_crashes() {
    let mut shop = Shop::open().await;
    let ada = shop.shopper("published-ada").await;
    let mut paths = Vec::new();
    for n in 0..10 {
        let client = shop.client().with_token(&ada.token);
        paths.push(publish(&client, &format!("Chair {n}"), 5).await);
        if n % 3 == 2 {
            shop.kill();
            shop.start().await;
        }
    }
    let client = shop.client().with_token(&ada.token);
    create(&client, "last", 1).await;
    let events = shop.feed_events(21).await;
    let positions: Vec<u64> =
        events.iter().map(|event| event["position"].as_str().unwrap().parse().unwrap()).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    for path in paths {
        let id = path.rsplit('/').next().unwrap();
        let own: Vec<&Value> = events.iter().filter(|event| event["subject"] == id).collect();
        let revisions: Vec<u64> = own.iter().map(|it| it["revision"].as_u64().unwrap()).collect();
        assert_eq!(revisions, [1, 2]);
        assert_eq!(own[0]["correlationid"].as_str().map(str::is_empty), Some(false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn published_events_match_the_contract() {
    let shop = Shop::open().await;
    let ada = shop.shopper("contract-ada").await;
    let path = publish(&ada.client, "Chair", 5).await;
    ada.client.post(&format!("{path}/unpublish"), &Value::Null).await.expect(200);
    ada.client.delete(&path).await.expect(204);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("asyncapi/schemas");
    for event in shop.feed_events(4).await {
        let kind = event["type"].as_str().unwrap();
        let schema = std::fs::read(folder.join(format!("{kind}.json"))).unwrap();
        let schema: Value = serde_json::from_slice(&schema).unwrap();
        let faults: Vec<String> = jsonschema::validator_for(&schema)
            .unwrap()
            .iter_errors(&event)
            .map(|fault| fault.to_string())
            .collect();
        assert_eq!(faults, Vec::<String>::new(), "{event}");
    }
}
