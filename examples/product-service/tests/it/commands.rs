//! Commands: rules, owners, idempotency, and reading one's own writes.

use serde_json::{Value, json};

use crate::support::{Shop, create, product, publish};

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_product_is_read_back_at_once() {
    let shop = Shop::open().await;
    let ada = shop.shopper("changes-ada").await;
    let body = json!({
        "name": " Chair ", "description": "Four legs", "price": {"amount": 4900, "currency": "EUR"},
    });
    let created = ada.client.post("/api/v1/products", &body).await.expect(201);
    let path = created.header("location").unwrap().to_owned();
    assert_eq!(created.header("etag"), Some("W/\"1\""));
    assert!(created.header("roster-pending").is_none(), "{created:?}");
    let read = ada.client.get(&path).await.expect(200);
    assert_eq!(read.body, created.body);
    assert_eq!(
        (&read.body["name"], &read.body["owner"], &read.body["status"], &read.body["revision"]),
        (&json!("Chair"), &json!(ada.id), &json!("draft"), &json!(1))
    );

    ada.client.patch(&path, &json!({"description": null, "name": "Armchair"})).await.expect(200);
    let price = json!({"amount": 5900, "currency": "EUR"});
    let set = Some(("application/json", price.to_string().into_bytes()));
    ada.client.send("PUT", &format!("{path}/price"), set).await.expect(200);
    let published = ada.client.post(&format!("{path}/publish"), &Value::Null).await.expect(200);
    assert_eq!(published.header("etag"), Some("W/\"4\""));
    let again = ada.client.post(&format!("{path}/publish"), &Value::Null).await.expect(200);
    assert_eq!(again.body, published.body, "publishing is idempotent");
    let read = ada.client.get(&path).await.expect(200);
    assert_eq!(
        (&read.body["name"], &read.body["description"], &read.body["price"]["amount"]),
        (&json!("Armchair"), &Value::Null, &json!(5900))
    );
    let known = ada.client.with_header("if-none-match", "W/\"4\"").get(&path).await;
    assert_eq!(known.status, 304);

    ada.client.post(&format!("{path}/unpublish"), &Value::Null).await.expect(200);
    ada.client.delete(&path).await.expect(204);
    ada.client.get(&path).await.expect(404);
    let events = shop.feed_events(6).await;
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "products.v1.created",
            "products.v1.changed",
            "products.v1.price_changed",
            "products.v1.published",
            "products.v1.unpublished",
            "products.v1.deleted"
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_ownership_are_enforced() {
    let shop = Shop::open().await;
    let (ada, bob) = (shop.shopper("rules-ada").await, shop.shopper("rules-bob").await);
    let free = create(&ada.client, "Free", 0).await;
    let refused = ada.client.post(&format!("{free}/publish"), &Value::Null).await.expect(409);
    assert_eq!(refused.code(), "not-possible");

    let draft = create(&ada.client, "Draft", 5).await;
    let published = publish(&ada.client, "Published", 5).await;
    bob.client.get(&draft).await.expect(404);
    bob.client.get(&published).await.expect(200);
    bob.client.delete(&draft).await.expect(404);
    assert_eq!(bob.client.delete(&published).await.expect(403).code(), "forbidden");
    shop.client().get(&published).await.expect(401);

    let administrator = shop.administrator().await;
    administrator.get(&draft).await.expect(200);
    administrator.patch(&draft, &json!({"name": "Reviewed"})).await.expect(200);
    let stale = ada.client.with_header("if-match", "W/\"1\"");
    let refused = stale.patch(&draft, &json!({"name": "Late"})).await.expect(412);
    assert_eq!(refused.code(), "stale-revision");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_all_faults_of_a_body_together() {
    let shop = Shop::open().await;
    let ada = shop.shopper("bodies-ada").await;
    for (body, pointers) in [
        (json!({}), vec!["/name", "/price"]),
        (json!({"name": "", "price": 5}), vec!["/name", "/price"]),
        (json!({"name": "x", "price": {"amount": -1, "currency": "EUR"}}), vec!["/price/amount"]),
        (json!({"name": "x", "price": {"amount": 1, "currency": "eur"}}), vec!["/price/currency"]),
        (json!({"name": "x", "price": {"amount": 1, "currency": "EUR", "a": 1}}), vec!["/price/a"]),
        (
            json!({"name": "a".repeat(201), "price": {"amount": 1, "currency": "EUR"}, "b": 1}),
            vec!["/b", "/name"],
        ),
    ] {
        let refused = ada.client.post("/api/v1/products", &body).await.expect(422);
        let errors = refused.body["errors"].as_array().unwrap();
        let mut named: Vec<&str> =
            errors.iter().map(|it| it["pointer"].as_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!(named, pointers, "{body}");
    }
    let path = create(&ada.client, "Dear", 1).await;
    let dear = json!({"amount": 100_000_001, "currency": "euro"}).to_string().into_bytes();
    let body = Some(("application/json", dear));
    let refused = ada.client.send("PUT", &format!("{path}/price"), body).await.expect(422);
    let mut codes: Vec<(&str, &str)> = refused.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["pointer"].as_str().unwrap(), it["code"].as_str().unwrap()))
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [("/amount", "too-large"), ("/currency", "currency")]);
    for path in ["/api/v1/products/x", "/api/v1/products/0190A1B2-C3D4-7E5F-8A9B-0C1D2E3F4A5B"] {
        ada.client.get(path).await.expect(404);
        ada.client.delete(path).await.expect(404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_gets_the_first_answer_even_after_a_crash() {
    let mut shop = Shop::open().await;
    let ada = shop.shopper("repeated-ada").await;
    let keyed = ada.client.with_header("idempotency-key", "one");
    let first = keyed.post("/api/v1/products", &product("Once", 7)).await.expect(201);
    let path = first.header("location").unwrap().to_owned();
    ada.client.patch(&path, &json!({"name": "Since changed"})).await.expect(200);
    shop.kill();
    shop.start().await;
    let keyed = shop.client().with_token(&ada.token).with_header("idempotency-key", "one");
    let again = keyed.post("/api/v1/products", &product("Once", 7)).await.expect(201);
    assert_eq!(again.header("etag"), Some("W/\"1\""));
    assert_eq!(again.body, first.body);
    let other = keyed.post("/api/v1/products", &product("Another", 7)).await.expect(422);
    assert_eq!(other.code(), "idempotency-key-reused");
    assert_eq!(shop.feed_events(2).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_that_had_nothing_to_do_undoes_no_later_change() {
    let shop = Shop::open().await;
    let ada = shop.shopper("unchanged-ada").await;
    let path = create(&ada.client, "Chair", 5).await;
    let keyed = ada.client.with_header("idempotency-key", "name");
    let body = json!({"name": "Chair"});
    let first = keyed.patch(&path, &body).await.expect(200);
    ada.client.patch(&path, &json!({"name": "Armchair"})).await.expect(200);
    let again = keyed.patch(&path, &body).await.expect(200);
    assert_eq!(again.body, first.body);
    let other = keyed.patch(&path, &json!({"name": "Stool"})).await.expect(422);
    assert_eq!(other.code(), "idempotency-key-reused");
    assert_eq!(ada.client.get(&path).await.expect(200).body["name"], "Armchair");
}
