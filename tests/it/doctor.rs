//! `roster doctor`: a healthy system passes, and each fault is named with what to do about it.

use std::os::unix::fs::PermissionsExt;

use async_nats::jetstream;
use e2e::System;
use serde_json::Value;

/// Exit code and points of `roster doctor --json`.
fn doctor(system: &System) -> (Option<i32>, Vec<Value>) {
    let output = system.roster(&["doctor", "--json"]);
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let points = answer["points"].as_array().unwrap().clone();
    assert_eq!(answer["healthy"], output.status.code() == Some(0), "{answer}");
    (output.status.code(), points)
}

/// The one fault that there is: its area, finding and advice.
fn only_fault(system: &System) -> (String, String, String) {
    let (code, points) = doctor(system);
    let bad: Vec<_> = points
        .iter()
        .filter(|point| !matches!(point["level"].as_str().unwrap(), "ok" | "warning"))
        .collect();
    assert_eq!((code, bad.len()), (Some(1), 1), "{bad:?}");
    let text = |name: &str| bad[0][name].as_str().unwrap().to_owned();
    (text("area"), text("finding"), text("advice"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_system_passes_and_each_fault_is_named_with_its_advice() {
    let system = System::own().await;
    let (code, points) = doctor(&system);
    assert_eq!(code, Some(0), "{points:?}");
    for area in ["nats", "mongodb", "clocks", "room", "secrets", "tls", "indexes", "streams"] {
        let found = points.iter().any(|p| p["area"] == area);
        assert!(found, "nothing about {area}: {points:?}");
    }
    // Both servers have a clock.
    assert_eq!(points.iter().filter(|p| p["area"] == "clocks").count(), 2, "{points:?}");
    for point in points.iter().filter(|p| p["level"] == "warning") {
        assert!(!point["advice"].as_str().unwrap().is_empty(), "{point}");
    }

    // An index that somebody dropped.
    let views = system.views().await;
    let users = views.collection::<mongodb::bson::Document>("users_1");
    users.drop_index("by_email").await.unwrap();
    let (area, finding, advice) = only_fault(&system);
    assert_eq!((area.as_str(), finding.as_str()), ("indexes", "users_1 has no index by_email"));
    assert!(advice.contains("restart the projector"), "{advice}");
    let mut system = system;
    system.kill_projector();
    system.start_projector();
    system.ready().await;
    assert_eq!(doctor(&system).0, Some(0), "the advice helps");

    // A secret that others may read.
    let secret = system.secrets_dir().join("operator/application.key");
    let set = |mode| {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(0o644);
    let (area, finding, advice) = only_fault(&system);
    assert_eq!(area, "secrets");
    assert!(finding.contains("application.key has mode 0644"), "{finding}");
    assert_eq!(advice, format!("chmod 600 {}", secret.display()));
    set(0o600);
    assert_eq!(doctor(&system).0, Some(0));

    // A stream that somebody changed.
    let log = jetstream::new(system.operator().await);
    let mut config = log.get_stream("SESSIONS").await.unwrap().info().await.unwrap().config.clone();
    config.max_messages_per_subject = 3;
    log.update_stream(&config).await.unwrap();
    let (area, finding, advice) = only_fault(&system);
    assert_eq!((area.as_str(), advice.as_str()), ("streams", "run `roster provision`"));
    assert!(finding.starts_with("SESSIONS: max_msgs_per_subject is 3"), "{finding}");
    assert!(system.roster(&["provision"]).status.success());
    assert_eq!(doctor(&system).0, Some(0));

    // A server that is away hides nothing of the other.
    system.mongod().kill().unwrap();
    let (code, points) = doctor(&system);
    assert_eq!(code, Some(1));
    let of = |area: &str| points.iter().find(|p| p["area"] == area).unwrap()["level"].clone();
    assert_eq!((of("mongodb"), of("streams")), ("unknown".into(), "ok".into()), "{points:?}");
    let away = points.iter().find(|p| p["area"] == "mongodb").unwrap();
    let finding = away["finding"].as_str().unwrap();
    assert!(!finding.contains("labels") && !finding.contains("Topology"), "{finding}");
}
