//! Which tokens the service accepts.

use std::time::Instant;

use e2e::wait_for;
use serde_json::Value;

use crate::support::{Shop, publish};

#[tokio::test(flavor = "multi_thread")]
async fn rejects_a_logged_out_user() {
    let shop = Shop::open().await;
    let ada = shop.shopper("logout-ada").await;
    let path = publish(&ada.client, "Chair", 5).await;
    let commands = shop.system.commands().with_token(&ada.token);
    commands.send("POST", "/api/v1/auth/logout", None).await.expect(204);
    let began = Instant::now();
    wait_for("the token to be rejected", || async { ada.client.get(&path).await.status == 401 })
        .await;
    println!(
        "rejected {:.1} ms after the logout was answered",
        began.elapsed().as_secs_f64() * 1e3
    );
    let refused = ada.client.post(&format!("{path}/unpublish"), &Value::Null).await.expect(401);
    assert_eq!(refused.code(), "unauthorized");
}
