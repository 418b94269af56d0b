//! Messages on every kind of subject of the log that no service wrote: nobody is parked, and everything goes on.

use async_nats::HeaderMap;
use e2e::{Client, PASSWORD, System, rename, wait_for};

use crate::damage::Damage;

/// What the server answers a request with, which a reply subject brought into the log once.
const ANSWER: &[u8] = br#"{"type":"io.nats.jetstream.api.v1.consumer_create_response"}"#;
/// More than the projector parks before it stands still.
const USERS_INVENTED: usize = 12;

async fn intrude(damage: &Damage, subject: &str) {
    damage.write(subject, HeaderMap::new(), ANSWER.to_vec()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_messages_on_every_subject_of_the_log_are_passed_over() {
    let system = System::shared().await;
    let (admin, queries) = system.as_administrator().await;
    let commands = system.commands();
    let damage = Damage::of(&system).await;
    let registered = commands.register("ada@example.com").await.expect(201);
    let id = registered.body["id"].as_str().unwrap().to_owned();
    let pair = commands.log_in("ada@example.com", PASSWORD).await;
    let user = id.parse().unwrap();
    let claim = damage.claim_of(user).await.subject;
    let session =
        damage.messages("SESSIONS", &format!("ev.session.{id}.*")).await.remove(0).subject;
    let (_, session_id) = session.rsplit_once('.').unwrap();

    for _ in 0..USERS_INVENTED {
        intrude(&damage, &format!("ev.user.{}", uuid::Uuid::now_v7())).await;
    }
    let of_the_user = ["ev.user", "sec.user", "rv.user", "lk.password", "lk.verify", "lk.email"];
    for root in of_the_user {
        intrude(&damage, &format!("{root}.{id}")).await;
    }
    for subject in [
        claim.as_str(),
        session.as_str(),
        "uq.role.admin",
        "ik.0123456789abcdef",
        &format!("rv.session.{session_id}"),
        &format!("mail.order.{}", uuid::Uuid::now_v7()),
    ] {
        intrude(&damage, subject).await;
    }

    // Commands that read what is beneath, and whoever waits for the views.
    let next = commands.register("grace@example.com").await.expect(201);
    assert_eq!(next.header("roster-pending"), None, "the views stand still");
    commands.register("ada@example.com").await.expect(409);
    commands.refresh(&pair.refresh).await.expect(200);
    commands.log_in("ada@example.com", PASSWORD).await;
    let path = format!("/api/v1/users/{id}");
    admin.patch(&path, &rename("Ada")).await.expect(200);
    let roles = serde_json::json!({ "roles": ["admin", "user"] });
    admin.patch(&path, &roles).await.expect(200);
    admin.patch(&path, &serde_json::json!({ "status": "disabled" })).await.expect(200);
    wait_for("the views to have the change", || async {
        queries.get(&path).await.body["full_name"] == "Ada"
    })
    .await;
    admin.delete(&path).await.expect(204);
    wait_for("the deletion to be published", || async {
        let feed = system.feed().await;
        feed.iter().any(|(subject, _)| *subject == format!("users.v1.deleted.{id}"))
    })
    .await;

    // Nobody is parked, everybody is ready, and the alarm is raised.
    let parked = system.roster(&["parked", "list", "--json"]);
    let parked: serde_json::Value = serde_json::from_slice(&parked.stdout).unwrap();
    assert_eq!(parked["items"], serde_json::json!([]));
    for (name, process) in system.services() {
        let private = Client::new(&process.value("private"));
        wait_for(name, || async { private.get("/readyz").await.status == 200 }).await;
    }
    let projector = Client::new(&system.projector.as_ref().unwrap().value("private"));
    let scrape = projector.scrape().await;
    let labels = [("service", "projector"), ("stream", "USERS")];
    let seen = scrape.value("roster_log_foreign_messages_total", &labels).unwrap();
    assert!(seen >= 14.0, "{seen}");
}
