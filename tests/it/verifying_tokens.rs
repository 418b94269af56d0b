//! The examples of services that verify access tokens, as docs/verifying-tokens.md has them: what they refuse, how
//! soon they know what ended, and what they do when keys or NATS are away.

use std::process::Command;
use std::time::Duration;

use e2e::{
    ADMIN_EMAIL, ADMIN_PASSWORD, Client, KeysOverTls, PASSWORD, STATE_WAIT_MAX, System, Verifier,
    Verifying, binary, forge, jwks, parts, wait_for,
};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What the claim or header `name` of a token may not be; `null` stands for its absence.
fn changed(mut part: Value, name: &str, value: &Value) -> Value {
    let members = part.as_object_mut().unwrap();
    members.remove(name);
    if !value.is_null() {
        members.insert(name.to_owned(), value.clone());
    }
    part
}

/// Tokens that must not pass, each with what is wrong with it.
fn bad(header: &Value, claims: &Value) -> Vec<(String, (Value, Value))> {
    let iat = claims["iat"].as_u64().unwrap();
    let soon = iat + 300;
    let mut bad = Vec::new();
    for name in ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch", "roles"] {
        bad.push((
            format!("without {name}"),
            (header.clone(), changed(claims.clone(), name, &Value::Null)),
        ));
    }
    for (name, value) in [
        ("iss", json!("http://127.0.0.1:8081")),
        ("aud", json!("another")),
        ("aud", json!(["roster", "another"])),
        ("sub", json!("*")),
        ("sid", json!("*")),
        ("exp", json!(iat - 1)),
        ("exp", json!(soon.to_string())),
        ("exp", json!(iat + 3_601)),
        ("iat", json!(iat + 240)),
        ("iat", json!(iat.to_string())),
        ("nbf", json!(soon)),
        ("epoch", json!("0")),
        ("lineage", json!("0123456789abcdef")),
        ("roles", json!("admin")),
    ] {
        let claims = changed(claims.clone(), name, &value);
        bad.push((format!("{name} {value}"), (header.clone(), claims)));
    }
    for (name, value) in [
        ("typ", json!("JWT")),
        ("typ", Value::Null),
        ("alg", json!("HS256")),
        ("alg", json!("none")),
        ("kid", json!("another")),
        ("kid", Value::Null),
        ("crit", json!(["exp"])),
    ] {
        let header = changed(header.clone(), name, &value);
        bad.push((format!("{name} {value}"), (header, claims.clone())));
    }
    bad
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_token_passes_and_no_other() {
    let system = System::shared().await;
    let ada = system.commands().register("ada@example.com").await.expect(201).body["id"].clone();
    let token = system.commands().login("ada@example.com", PASSWORD).await;
    let other = system.commands().login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let both = Verifier::both(&system, &jwks(&system.command_api)).await;

    let (header, claims) = parts(&token);
    let (names, bad): (Vec<_>, Vec<_>) = bad(&header, &claims).into_iter().unzip();
    // One of before tokens named the history of the log.
    let older = (header.clone(), changed(claims.clone(), "lineage", &Value::Null));
    assert!(claims["lineage"].is_string() && older.1 != claims, "{claims}");
    let forged = forge(&system, &[vec![(header, claims), older], bad].concat()).await;
    let ([same, older], forged) = forged.split_first_chunk().unwrap();
    let foreign = other.rsplit_once('.').unwrap().1;
    let foreign = format!("{}.{foreign}", token.rsplit_once('.').unwrap().0);
    for verifying in &both {
        let which = verifying.example;
        let answer = verifying.client.with_token(&token).get("/whoami").await.expect(200);
        assert_eq!(answer.body, json!({"sub": ada, "roles": ["user"]}), "{which:?}");
        assert_eq!(verifying.status(same).await, 200, "{which:?}: what is forged is forged well");
        assert_eq!(verifying.status(older).await, 200, "{which:?}: it names no history");
        for (name, forged) in names.iter().zip(forged) {
            assert_eq!(verifying.status(forged).await, 401, "{which:?}: {name}");
        }
        assert_eq!(verifying.status(&foreign).await, 401, "{which:?}: signature of another token");
        for garbage in ["", ".", "..", "a.b.c", "é", &"a".repeat(5_000)] {
            assert_eq!(verifying.status(garbage).await, 401, "{which:?}: {garbage}");
        }
        let nobody = verifying.client.get("/whoami").await.expect(401);
        assert_eq!(nobody.header("www-authenticate"), Some("Bearer"), "{which:?}");
        let twice = verifying.client.with_header("authorization", &format!("Bearer {token}"));
        twice.with_token(&token).get("/whoami").await.expect(401);
        assert_eq!(verifying.status(&token).await, 200, "{which:?} goes on");
    }
}

/// Waits until a token is refused everywhere, and says how long that took from `since` on.
#[expect(clippy::print_stdout, reason = "how long it took is for whoever reads")]
async fn refused(both: &[Verifying; 2], token: &str, since: Instant, after: &str) {
    let refused = both.iter().map(|verifying| async move {
        loop {
            match verifying.status(token).await {
                401 => break since.elapsed(),
                status => assert_eq!(status, 200, "{:?}", verifying.example),
            }
            assert!(since.elapsed() < STATE_WAIT_MAX, "{:?} after {after}", verifying.example);
        }
    });
    let took = futures::future::join_all(refused).await;
    println!("refused after {after}: in Rust {:?}, in Python {:?}", took[0], took[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_is_refused_and_what_came_after_is_not() {
    let system = System::shared().await;
    let commands = system.commands();
    let (admin, _) = system.as_administrator().await;
    let ada = commands.register("ada@example.com").await.expect(201).body["id"].clone();
    let ada = format!("/api/v1/users/{}", ada.as_str().unwrap());
    let login = async || commands.login("ada@example.com", PASSWORD).await;
    let both = Verifier::both(&system, &jwks(&system.query_api)).await;
    let passes = async |token: &str| {
        for verifying in &both {
            assert_eq!(verifying.status(token).await, 200, "{:?}", verifying.example);
        }
    };
    let (first, second) = (login().await, login().await);
    passes(&first).await;
    passes(&second).await;

    commands.with_token(&first).send("POST", "/api/v1/auth/logout", None).await.expect(204);
    refused(&both, &first, Instant::now(), "a logout").await;
    passes(&second).await;

    // Another role: the token from before is dead, the next one has it.
    let python = &both[1].client;
    let editor = async |token: &str| python.with_token(token).get("/roles/editor").await.status;
    assert_eq!(editor(&second).await, 403);
    admin.patch(&ada, &json!({"roles": ["editor", "user"]})).await.expect(200);
    refused(&both, &second, Instant::now(), "another role").await;
    let third = login().await;
    passes(&third).await;
    assert_eq!(editor(&third).await, 200);

    admin.send("POST", &format!("{ada}/disable"), None).await.expect(200);
    refused(&both, &third, Instant::now(), "a disable").await;
    admin.send("POST", &format!("{ada}/enable"), None).await.expect(200);
    let fourth = login().await;
    passes(&fourth).await;

    // Who starts now knows all of it before anybody is let in.
    for late in Verifier::ALL {
        let late = late.start(late.command(&system, &jwks(&system.query_api))).await;
        for token in [&first, &second, &third] {
            assert_ne!(late.status(token).await, 200, "{:?}", late.example);
        }
        late.ready().await;
        for token in [&first, &second, &third] {
            assert_eq!(late.status(token).await, 401, "{:?}", late.example);
        }
        assert_eq!(late.status(&fourth).await, 200, "{:?}", late.example);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_and_a_key_server_that_is_away_refuse_no_token() {
    let mut system = System::shared().await;
    let commands = system.commands();
    let login = async || commands.login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let both = Verifier::both(&system, &jwks(&system.query_api)).await;
    let before = login().await;
    let rotate = ["keys", "rotate", "--lead-s", "5", "--dir"];
    let rotated = Command::new(binary()).args(rotate).arg(system.secrets_dir()).output().unwrap();
    assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    let kid = |token: &str| parts(token).0["kid"].clone();
    let passes = async |token: &str| {
        for verifying in &both {
            assert_eq!(verifying.status(token).await, 200, "{:?}", verifying.example);
        }
    };
    // The set of before is fresh for minutes yet: the new key is asked for when it is met.
    wait_for("the new key to sign", || async {
        let token = login().await;
        passes(&token).await;
        kid(&token) != kid(&before)
    })
    .await;
    let after = login().await;
    passes(&before).await;

    // The process that has the keys goes, and another one comes elsewhere.
    let elsewhere = system.another("query-api");
    std::mem::replace(&mut system.query_api, elsewhere).kill();
    let (header, claims) = parts(&after);
    let strange = (changed(header, "kid", &json!("another")), claims);
    let strange = forge(&system, &[strange]).await.remove(0);
    for token in [&before, &after, &login().await] {
        passes(token).await;
    }
    for verifying in &both {
        assert_eq!(verifying.status(&strange).await, 401, "{:?}", verifying.example);
        verifying.client.get("/readyz").await.expect(200);
    }
    commands.with_token(&before).send("POST", "/api/v1/auth/logout", None).await.expect(204);
    refused(&both, &before, Instant::now(), "a logout, without the server of the keys").await;
    passes(&after).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_nats_nobody_is_let_in_and_later_nobody_has_a_role() {
    let system = System::own().await;
    let commands = system.commands();
    let token = commands.login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let jwks = jwks(&system.command_api);

    // Nobody is there, so it is not known who was logged out.
    let unreachable = "nats://127.0.0.1:1";
    let mut command = Verifier::Rust.command(&system, &jwks);
    let output = command.env("NATS_URL", unreachable).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("Error: Connect"), "{said}");
    let mut command = Verifier::Python.command(&system, &jwks);
    command.env("NATS_URL", unreachable);
    let alone = Verifier::Python.start(command).await;
    assert_eq!(alone.status(&token).await, 503);
    assert_eq!(
        alone.client.get("/readyz").await.expect(503).body["failed"].as_array().unwrap().len(),
        2
    );

    let both = Verifier::both(&system, &jwks).await;
    let python = both[1].client.with_token(&token);
    python.get("/roles/admin").await.expect(200);
    system.nats().kill().unwrap();
    wait_for("the silence to be noticed", || async {
        let mut noticed = true;
        for verifying in &both {
            noticed &= verifying.client.get("/readyz").await.status == 503;
        }
        noticed
    })
    .await;
    wait_for("roles not to be believed", || async {
        python.get("/roles/admin").await.status == 503
    })
    .await;
    for verifying in &both {
        assert_eq!(verifying.status(&token).await, 200, "{:?}", verifying.example);
    }
    system.nats().restart().unwrap();
    for verifying in &both {
        verifying.ready().await;
    }
    python.get("/roles/admin").await.expect(200);
    system.ready().await;
    logout(&commands, &token).await;
    refused(&both, &token, Instant::now(), "a logout, when NATS is back").await;
}

/// The command side may have a connection yet that died with the server.
async fn logout(commands: &Client, token: &str) {
    let commands = commands.with_token(token);
    wait_for("a logout", || async {
        commands.send("POST", "/api/v1/auth/logout", None).await.status == 204
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_come_over_tls_from_a_server_that_is_known() {
    let system = System::shared().await;
    let token = system.commands().login(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    let keys = KeysOverTls::of(&system, &system.file("tls")).await;
    for example in Verifier::ALL {
        let mut known = example.command(&system, &keys.url);
        known.arg("--ca").arg(&keys.authority);
        let verifying = example.start(known).await;
        verifying.ready().await;
        assert_eq!(verifying.status(&token).await, 200, "{example:?}");

        let began = Instant::now();
        let output = example.command(&system, &keys.url).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{example:?}: {said}");
        assert!(said.contains(&keys.url), "{example:?}: {said}");
        assert!(began.elapsed() < Duration::from_secs(60), "{example:?} gives up");
        let plain = keys.url.replace("https://localhost", "http://roster.example.com");
        let output = example.command(&system, &plain).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("without TLS") || said.contains("Plain"),
            "{example:?}: {said}"
        );
    }
}
