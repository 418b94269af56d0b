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

/// A service in the account of the streams has the server store its answer wherever it likes.
async fn have_answers_stored(system: &System, subjects: &[&str]) {
    let creds = system.file("query-api.creds");
    let service = async_nats::ConnectOptions::with_credentials_file(creds).await.unwrap();
    let service = service.custom_inbox_prefix("_INBOX_query-api");
    let service = service.connect(system.nats_url()).await.unwrap();
    for subject in subjects {
        let reply = (*subject).to_owned();
        service
            .publish_with_reply("$JS.API.STREAM.INFO.SECURITY", reply, "{}".into())
            .await
            .unwrap();
    }
    service.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_a_service_has_stored_stops_no_reader() {
    let system = System::shared().await;
    let commands = system.commands();
    let registered = commands.register("ada@example.com").await.expect(201);
    let ada = registered.body["id"].as_str().unwrap().to_owned();
    let damage = Damage::of(&system).await;
    let in_feed = async |subject: String| {
        wait_for("the feed to say so", || async {
            !damage.messages("USER_EVENTS", &subject).await.is_empty()
        })
        .await;
    };
    in_feed(format!("users.v1.registered.{ada}")).await;
    commands.log_in("ada@example.com", PASSWORD).await;
    wait_for("the login to be recorded", || async {
        !damage.messages("SECURITY", &format!("security.user.{ada}.*")).await.is_empty()
    })
    .await;
    let deleted = format!("users.v1.deleted.{ada}");
    let provision = "op.provision";
    have_answers_stored(&system, &[&deleted, &deleted, provision, "op.x", "security.anonymous.x"])
        .await;
    wait_for("the answers to be stored", || async {
        damage.messages("USER_EVENTS", &deleted).await.len() == 2
            && damage.messages("OPERATIONS", "op.x").await.len() == 1
            && damage.messages("SECURITY", "security.anonymous.x").await.len() == 1
    })
    .await;

    // The writer of the feed goes on, and counts what it passes over.
    let next = commands.register("grace@example.com").await.expect(201);
    in_feed(format!("users.v1.registered.{}", next.body["id"].as_str().unwrap())).await;
    let projector = Client::new(&system.projector.as_ref().unwrap().value("private"));
    wait_for("the projector to be ready", || async {
        projector.get("/readyz").await.status == 200
    })
    .await;
    let labels = [("service", "projector"), ("stream", "USER_EVENTS")];
    assert_eq!(
        projector.scrape().await.value("roster_log_foreign_messages_total", &labels),
        Some(2.0)
    );

    // Every command of the operator that reads one of the streams shows what Roster wrote, and says what it left out.
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for (command, left_out) in [
        (&["audit", "list"][..], "2 messages of OPERATIONS that Roster did not write: passed over"),
        (&["security", "list"], "1 message of SECURITY that Roster did not write: passed over"),
        (&["events", "tail", "--stream", "feed", "--no-follow"], "2 messages of USER_EVENTS"),
        (&["replay"], "2 messages of USER_EVENTS"),
    ] {
        let output = system.roster(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", said(&output));
        assert!(said(&output).contains(left_out), "{command:?}: {}", said(&output));
        assert!(!output.stdout.is_empty(), "{command:?}");
    }
    let replayed = system.roster(&["replay"]).stdout;
    assert!(String::from_utf8(replayed).unwrap().contains(&ada), "nobody has deleted her");
    let added = system.roster(&["subscribers", "add", "billing", "--from", "snapshot"]);
    assert_eq!(added.status.code(), Some(0), "{}", said(&added));
    assert_eq!(system.snapshots_waiting().await, 3, "the administrator and two users");
    // Behind the foreign message on its own subject in the audit.
    let provisioned = system.roster(&["provision"]);
    assert_eq!(provisioned.status.code(), Some(0), "{}", said(&provisioned));

    // The operator is told, and takes them out.
    let doctor = || String::from_utf8(system.roster(&["doctor"]).stdout).unwrap();
    let found = doctor();
    for stream in ["USER_EVENTS", "OPERATIONS", "SECURITY"] {
        assert!(
            found.contains(&format!("messages of {stream} were not written by Roster")),
            "{found}"
        );
    }
    assert!(found.contains("roster prune messages"), "{found}");
    let dry = system.roster(&["prune", "messages", "--dry-run"]);
    let dry = String::from_utf8(dry.stdout).unwrap();
    assert!(dry.contains("USER_EVENTS: would remove 2 messages"), "{dry}");
    // The last message of a stream stays where it is, so Roster has to write another one.
    commands.log_in("ada@example.com", PASSWORD).await;
    wait_for("another login to be recorded", || async {
        damage.messages("SECURITY", &format!("security.user.{ada}.*")).await.len() == 2
    })
    .await;
    let pruned = system.roster(&["prune", "messages"]);
    assert_eq!(pruned.status.code(), Some(0), "{}", said(&pruned));
    assert!(damage.messages("USER_EVENTS", &deleted).await.is_empty());
    let found = doctor();
    assert!(!found.contains("USER_EVENTS were not written"), "{found}");
    assert!(!found.contains("SECURITY were not written"), "{found}");
    // What was lost in none of this.
    commands.register("alan@example.com").await.expect(201);
}
