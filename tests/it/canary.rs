//! No password, token or link stands anywhere but where it belongs.

use std::path::Path;

use async_nats::jetstream;
use e2e::{Client, OtlpReceiver, Pair, System, wait_for};
use futures::StreamExt;
use serde_json::json;

const FIRST: &str = "canary-first-password-7Qx";
const SECOND: &str = "canary-second-password-9Zw";
/// Something that belongs into the log and the views, to show that looking finds what is there.
const CONTROL: &str = "Canary Control Name 3Kv";

/// Every file below a folder, whole.
pub fn files(folder: &Path, into: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if let Ok(mut bytes) = std::fs::read(&path) {
            // Room that is set aside and not written yet.
            let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(written);
            into.push((path.display().to_string(), bytes));
        }
    }
}

/// Every message of every stream, headers and payload, as they are read and not as they lie packed.
pub async fn messages(system: &System) -> Vec<(String, Vec<u8>)> {
    let context = jetstream::new(system.operator().await);
    let mut found = Vec::new();
    let names: Vec<String> = context.stream_names().map(Result::unwrap).collect().await;
    assert_eq!(names.len(), 10, "{names:?}");
    for name in names {
        let mut stream = context.get_stream(&name).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        for sequence in state.first_sequence..=state.last_sequence {
            let Ok(message) = stream.get_raw_message(sequence).await else { continue };
            let place = format!("{name} {sequence} {}", message.subject);
            found.push((place.clone(), message.payload.to_vec()));
            found.push((place, format!("{:?}", message.headers).into_bytes()));
        }
    }
    found
}

/// Where a text stands.
pub fn places<'a>(text: &str, haystack: &'a [(String, Vec<u8>)]) -> Vec<&'a str> {
    let needle = text.as_bytes();
    haystack
        .iter()
        .filter(|(_, bytes)| bytes.windows(needle.len()).any(|window| window == needle))
        .map(|(place, _)| place.as_str())
        .collect()
}

#[tokio::test]
async fn no_secret_is_left_anywhere() {
    let receiver = OtlpReceiver::start().await;
    let settings =
        [("ROSTER_TELEMETRY_LOG", "trace"), ("ROSTER_TELEMETRY_OTLP_ENDPOINT", &receiver.url())];
    let system = System::own_with(&settings).await;
    let commands = system.commands();
    let mut secrets = vec![FIRST.to_owned(), SECOND.to_owned()];
    let keep = |secrets: &mut Vec<String>, pair: &Pair| {
        secrets.extend([pair.access.clone(), pair.refresh.clone()]);
    };

    // A life with everything that knows a secret.
    let body = json!({"email": "ada@example.com", "password": FIRST, "full_name": CONTROL});
    let first = commands.post("/api/v1/auth/register?with_token=true", &body).await.expect(201);
    keep(&mut secrets, &Pair::of(&first.body["token"]));
    let pair = commands.log_in("ada@example.com", FIRST).await;
    keep(&mut secrets, &pair);
    let pair = Pair::of(&commands.refresh(&pair.refresh).await.expect(200).body);
    keep(&mut secrets, &pair);
    let verify = system.wait_for_mails_to("ada@example.com", 1).await.remove(0);
    secrets.push(verify.token().to_owned());
    let confirm = json!({"token": verify.token(), "password": FIRST});
    commands.post("/api/v1/auth/verify-email-confirm", &confirm).await.expect(204);
    let pair = commands.log_in("ada@example.com", FIRST).await;
    keep(&mut secrets, &pair);
    let change = json!({"new_email": "ada@new.example", "current_password": FIRST});
    commands.with_token(&pair.access).post("/api/v1/auth/change-email", &change).await.expect(202);
    let request = json!({"email": "ada@example.com"});
    commands.post("/api/v1/auth/password-reset-request", &request).await.expect(202);
    let mails = system.wait_for_mails_to("ada@example.com", 3).await;
    let links = || mails.iter().filter_map(|mail| mail.link.as_ref());
    secrets.extend(links().map(|link| link.token.clone()));
    let token = &links().find(|link| link.purpose == "reset-password").unwrap().token;
    let reset = json!({"token": token, "new_password": SECOND});
    commands.post("/api/v1/auth/password-reset-confirm", &reset).await.expect(204);
    let wrong = json!({"email": "ada@example.com", "password": FIRST});
    commands.post("/api/v1/auth/login", &wrong).await.expect(401);
    let pair = commands.log_in("ada@example.com", SECOND).await;
    keep(&mut secrets, &pair);
    commands.log_out_with(&pair.refresh).await.expect(204);
    secrets.sort_unstable();
    secrets.dedup();
    assert!(secrets.len() > 12, "{}", secrets.len());

    let mut haystack = messages(&system).await;
    for service in ["command-api", "query-api", "projector", "reactor"] {
        haystack.push((format!("log of {service}"), system.log_of(service).into_bytes()));
    }
    for (name, scrape) in system.scrapes().await {
        haystack.push((format!("/metrics of {name}"), scrape.0.into_bytes()));
    }
    for (_, process) in system.services() {
        let private = Client::new(&process.value("private"));
        for path in ["/livez", "/readyz"] {
            let answer = private.get(path).await;
            haystack.push((path.to_owned(), format!("{answer:?}").into_bytes()));
        }
    }
    let logout = "POST /api/v1/auth/logout";
    wait_for("the span of the last request", || async {
        receiver.all().iter().any(|received| received.span.name == logout)
    })
    .await;
    for received in receiver.all() {
        haystack.push(("a span".to_owned(), format!("{received:?}").into_bytes()));
    }
    files(&system.servers_dir(), &mut haystack);

    let control = places(CONTROL, &haystack);
    assert!(control.iter().any(|place| place.starts_with("USERS ")), "the log: {control:?}");
    assert!(control.iter().any(|place| place.contains("mongod")), "the views: {control:?}");
    let logs = places("connected to NATS", &haystack);
    assert!(logs.len() >= 4, "the logs are there: {logs:?}");
    let metrics = places("roster_build_info", &haystack);
    assert_eq!(metrics.len(), 4, "the metrics are there: {metrics:?}");
    assert!(!places(logout, &haystack).is_empty(), "the spans are there");
    for secret in &secrets {
        let found = places(secret, &haystack);
        let kind: String = secret.chars().take(6).collect();
        assert!(found.is_empty(), "a secret ({kind}…) stands in {found:?}");
    }
}
