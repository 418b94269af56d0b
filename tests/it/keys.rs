//! Rotating the key of access tokens while everything runs.

use std::collections::BTreeSet;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{ADMIN_EMAIL, ADMIN_PASSWORD, System, binary, wait_for};
use serde_json::Value;

/// The id of the key that signed a token.
fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_owned()
}

async fn published(system: &System) -> [BTreeSet<String>; 2] {
    let mut sets = Vec::new();
    for client in [system.commands(), system.queries()] {
        let set = client.get("/.well-known/jwks.json").await.expect(200);
        assert_eq!(set.header("cache-control"), Some("public, max-age=300"));
        let keys = set.body["keys"].as_array().unwrap().iter();
        sets.push(keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect());
    }
    sets.try_into().unwrap()
}

#[tokio::test]
async fn a_rotation_refuses_no_token() {
    let system = System::shared().await;
    let login = async || system.commands().login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let before = login().await;
    let [first, same] = published(&system).await;
    assert_eq!((first.len(), &first), (1, &same));

    let rotate = ["keys", "rotate", "--lead-s", "5", "--dir"];
    let rotated = Command::new(binary()).args(rotate).arg(system.secrets_dir()).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));

    // Every token of the old key, of the new one, and of the moment between passes everywhere.
    wait_for("the new key to sign", || async {
        let token = login().await;
        for token in [&before, &token] {
            system.queries().with_token(token).get("/api/v1/auth/me").await.expect(200);
            let patch = serde_json::json!({});
            system.commands().with_token(token).patch("/api/v1/auth/me", &patch).await.expect(200);
        }
        kid(&token) != kid(&before)
    })
    .await;
    let [commands, queries] = published(&system).await;
    assert_eq!((commands.len(), &commands), (2, &queries), "the old key is published still");
    assert!(commands.contains(&kid(&before)));
}

#[tokio::test]
async fn a_revoked_key_is_good_for_nothing() {
    let system = System::shared().await;
    let login = async || system.commands().login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let before = login().await;
    let revoke = ["keys", "revoke", &kid(&before), "--dir"];
    let revoked = Command::new(binary()).args(revoke).arg(system.secrets_dir()).output().unwrap();
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));

    wait_for("the token to be refused everywhere", || async {
        let patch = serde_json::json!({});
        let commands = system.commands().with_token(&before).patch("/api/v1/auth/me", &patch).await;
        let queries = system.queries().with_token(&before).get("/api/v1/auth/me").await;
        commands.status == 401 && queries.status == 401
    })
    .await;
    // Another key signs, the same for both, and what it signs is taken.
    let after = login().await;
    assert_ne!(kid(&after), kid(&before));
    system.queries().with_token(&after).get("/api/v1/auth/me").await.expect(200);
    let [commands, queries] = published(&system).await;
    assert_eq!((&commands, &queries), (&BTreeSet::from([kid(&after)]), &commands));
    let file = format!("signing-{}.pem", kid(&before));
    for folder in ["operator", "command-api"] {
        assert!(!system.secrets_dir().join(folder).join(&file).exists(), "{folder}");
    }
}

#[tokio::test]
async fn a_broken_file_of_keys_changes_nothing_while_it_lasts() {
    let system = System::shared().await;
    let login = async || system.commands().login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let before = login().await;
    for service in ["command-api", "query-api"] {
        let file = system.secrets_dir().join(service).join("keys.json");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
        wait_for("the fault to be told", || async {
            system.log_of(service).contains("cannot read the signing keys again")
        })
        .await;
    }
    let after = login().await;
    assert_eq!(kid(&after), kid(&before));
    for token in [&before, &after] {
        system.queries().with_token(token).get("/api/v1/auth/me").await.expect(200);
    }
}
