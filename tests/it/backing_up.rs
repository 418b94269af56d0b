//! A backup under writes, and what ended behind it: restored elsewhere, nobody comes back and nothing opens again.

use std::path::{Path, PathBuf};
use std::process::Output;

use async_nats::jetstream;
use e2e::{Client, PASSWORD, Pair, Site, System, rename, wait_for};
use serde_json::{Value, json};

use crate::canary::{messages, places};
use crate::workload::Workload;

const SECOND_LOOK: (&str, &str) = ("ROSTER_ERASURE_SECOND_LOOK_S", "1");
const NEW_PASSWORD: &str = "another password, behind the backup";

pub fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "{why:?} is not in {said}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A user with a session, and what is known of both.
struct Somebody {
    email: String,
    id: String,
    pair: Pair,
}

async fn somebody(commands: &Client, name: &str) -> Somebody {
    let email = format!("{name}@backup.example");
    let id = commands.register(&email).await.expect(201).body["id"].as_str().unwrap().to_owned();
    let pair = commands.log_in(&email, PASSWORD).await;
    Somebody { email, id, pair }
}

impl Somebody {
    async fn login(&self, commands: &Client, password: &str) -> u16 {
        let body = json!({"email": self.email, "password": password});
        commands.post("/api/v1/auth/login", &body).await.status
    }
}

/// What is in a stream, without what is erased, up to a position.
async fn stored(system: &System, stream: &str, end: u64) -> Vec<(u64, String, Vec<u8>)> {
    let context = jetstream::new(system.operator().await);
    let stream = context.get_stream(stream).await.unwrap();
    let mut found = Vec::new();
    for position in 1..=end {
        let Ok(message) = stream.get_raw_message(position).await else { continue };
        let mut headers: Vec<String> =
            message.headers.iter().map(|header| format!("{header:?}")).collect();
        headers.sort();
        let place = format!("{} {:?} {headers:?}", message.subject, message.time);
        found.push((position, place, message.payload.to_vec()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_behind_a_backup_stays_ended() {
    let system = System::own_with(&[SECOND_LOOK]).await;
    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let [ada, bob, carol, dan, eve, frank, gail] = [
        somebody(&commands, "ada-canary-9Qx").await,
        somebody(&commands, "bob").await,
        somebody(&commands, "carol").await,
        somebody(&commands, "dan").await,
        somebody(&commands, "eve").await,
        somebody(&commands, "frank").await,
        somebody(&commands, "gail").await,
    ];
    let of = |user: &Somebody| format!("/api/v1/users/{}", user.id);
    let roles = json!({"roles": ["user", "auditor"]});
    admin.patch(&of(&frank), &roles).await.expect(200);
    system.subscriber("somebody", &[]).await;
    let reset = json!({"email": eve.email});
    commands.post("/api/v1/auth/password-reset-request", &reset).await.expect(202);
    let mails = system.wait_for_mails_to(&eve.email, 2).await;
    let link = mails.iter().filter_map(|mail| mail.link.as_ref());
    let link = { link }.find(|link| link.purpose == "reset-password").unwrap();

    // Everything goes on meanwhile.
    let workload = Workload::start(&system).await;
    workload.more(20).await;
    let folder = system.file("backup");
    let said = tokio::task::block_in_place(|| {
        succeeded(&system.roster(&["backup", text(&folder), "--json"]))
    });
    let before: Value = serde_json::from_str(&said).unwrap();
    workload.more(10).await;
    let acknowledged = workload.finish().await;
    assert!(acknowledged.users.len() > 30);

    // What a restore must not undo.
    admin.delete(&of(&ada)).await.expect(204);
    commands.log_out_with(&bob.pair.refresh).await.expect(204);
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let as_carol = commands.with_token(&carol.pair.access);
    as_carol.post("/api/v1/auth/change-password", &change).await.expect(204);
    admin.patch(&of(&dan), &json!({"status": "disabled"})).await.expect(200);
    admin.patch(&of(&frank), &json!({"roles": ["user"]})).await.expect(200);
    let lost = somebody(&commands, "too-late").await;
    wait_for("nothing to be left of the deleted", || async {
        system.roster(&["erase", "--verify", &ada.id]).status.success()
    })
    .await;
    let first = succeeded(&system.roster(&["backup", text(&folder), "--ends", "--json"]));
    let first: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&first["deleted"], &first["sessions"]), (&json!(1), &json!(1)), "{first}");
    // Told a second time it goes on from there.
    admin.delete(&of(&gail)).await.expect(204);
    let second = succeeded(&system.roster(&["backup", text(&folder), "--ends", "--json"]));
    let second: Value = serde_json::from_str(&second).unwrap();
    assert_eq!((&second["deleted"], &second["sessions"]), (&json!(2), &json!(1)), "{second}");
    succeeded(&system.roster(&["backup", text(&folder), "--check"]));
    // Nothing tells of it any more.
    let password = json!({"token": link.token, "new_password": "by a link, and only once"});
    commands.post("/api/v1/auth/password-reset-confirm", &password).await.expect(204);

    let site = Site::of(&folder, &[SECOND_LOOK]);
    let done = succeeded(&site.roster(&["restore", text(&folder), "--json"]));
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(done["deleted_again"], json!(2), "{done}");
    assert_eq!(done["ends_known_until"], second["until"], "{done}");
    assert!(done["sessions_ended"].as_u64() >= Some(7), "{done}");
    assert!(done["links_voided"].as_u64() >= Some(1), "{done}");
    let restored = site.start().await;
    positions_are_those_of_before(&system, &restored, &before, [&ada, &gail]).await;
    for (system, command) in [(&system, "backup"), (&restored, "restore")] {
        let said = succeeded(&system.roster(&["audit", "list", "--command", command, "--json"]));
        let of_backup = |stage: &str| said.matches(stage).count();
        assert_eq!((of_backup("\"begun\""), of_backup("\"done\"")), (1, 1), "{command}: {said}");
        assert!(said.contains(before["id"].as_str().unwrap()), "{command}: {said}");
    }

    let (commands, queries) = (restored.commands(), restored.queries());
    for gone in [&ada, &gail, &dan, &lost] {
        assert_eq!(gone.login(&commands, PASSWORD).await, 401, "{}", gone.email);
    }
    assert_eq!(carol.login(&commands, PASSWORD).await, 401, "the password of before");
    assert_eq!(carol.login(&commands, NEW_PASSWORD).await, 200);
    assert_eq!(eve.login(&commands, PASSWORD).await, 200, "what nothing tells of is as before");
    let again = commands.post("/api/v1/auth/password-reset-confirm", &password).await;
    assert_eq!(again.status, 400, "{again:?}");
    for user in [&ada, &bob, &carol, &dan, &eve, &frank, &gail, &lost] {
        commands.refresh(&user.pair.refresh).await.expect(401);
        let (command, query) =
            (commands.with_token(&user.pair.access), queries.with_token(&user.pair.access));
        command.patch("/api/v1/auth/me", &rename("Nobody")).await.expect(401);
        query.get("/api/v1/auth/me").await.expect(401);
    }
    let (_, queries) = restored.as_administrator().await;
    let frank = queries.get(&of(&frank)).await.expect(200).body;
    assert_eq!(frank["roles"], json!(["user"]));
    queries.get(&of(&ada)).await.expect(404);
    wait_for("nothing to be left of the deleted", || async {
        restored.roster(&["erase", "--verify", &ada.id]).status.success()
    })
    .await;
    let found = messages(&restored).await;
    assert!(places("ada-canary-9Qx", &found).is_empty());
    assert!(!places(&eve.email, &found).is_empty(), "looking finds what is there");
    succeeded(&restored.roster(&["verify"]));
    let listed = succeeded(&restored.roster(&["subscribers", "list"]));
    assert!(listed.contains("somebody"), "{listed}");

    // A system that is in use is left alone.
    refused(&restored.roster(&["restore", text(&folder)]), "not empty");
    // And the folder is no backup of this one.
    refused(&restored.roster(&["backup", text(&folder), "--ends"]), "not of this log");
    succeeded(&restored.roster(&["verify"]));
    views_of_before_are_refused(&system, &restored).await;
}

/// Whatever was in the log at the time of the backup stands where it stood, with its time. The eraser has gone over
/// both in its own time: what it takes may be in one of them still.
async fn positions_are_those_of_before(
    system: &System,
    restored: &System,
    backup: &Value,
    gone: [&Somebody; 2],
) {
    for stream in backup["streams"].as_array().unwrap() {
        let (name, end) = (stream["name"].as_str().unwrap(), stream["last"].as_u64().unwrap());
        let (before, after) = (stored(system, name, end).await, stored(restored, name, end).await);
        for message in &before {
            let (position, place, payload) = message;
            if let Some(same) = after.iter().find(|same| same.0 == *position) {
                assert!(message == same, "{position} of {name}");
                continue;
            }
            let told = format!("{place} {}", String::from_utf8_lossy(payload));
            let is_erased = place.starts_with("sec.user.")
                || gone.iter().any(|somebody| told.contains(&somebody.id));
            assert!(is_erased, "{position} of {name} is missing: {place}");
        }
        assert!(after.len() > 5, "{} in {name}", after.len());
    }
}

async fn views_of_before_are_refused(system: &System, restored: &System) {
    let (url, database) = system.views_at();
    let settings = [("ROSTER_MONGODB_URL", url), ("ROSTER_MONGODB_DATABASE", database)];
    let _projector = restored.spawn_with("projector", &settings, "refused");
    wait_for("the views of before to be refused", || async {
        let said = restored.log_of("refused");
        said.contains("do not belong to this log")
            && said.contains("restored since")
            && said.contains(&format!("drop the database {database}"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_live_on_when_that_is_asked_for() {
    let system = System::shared().await;
    let commands = system.commands();
    let [bob, eve, mallory] = [
        somebody(&commands, "bob").await,
        somebody(&commands, "eve").await,
        somebody(&commands, "mallory").await,
    ];
    let folder = system.file("backup");
    succeeded(&system.roster(&["backup", text(&folder)]));
    commands.log_out_with(&bob.pair.refresh).await.expect(204);
    commands.refresh(&mallory.pair.refresh).await.expect(200);
    let late = commands.log_in(&eve.email, PASSWORD).await;
    succeeded(&system.roster(&["backup", text(&folder), "--ends"]));

    let site = Site::of(&folder, &[]);
    let said = succeeded(&site.roster(&["restore", text(&folder), "--keep-sessions"]));
    assert!(said.contains("sessions live on"), "{said}");
    let restored = site.start().await;
    let commands = restored.commands();
    commands.refresh(&bob.pair.refresh).await.expect(401);
    commands.refresh(&late.refresh).await.expect(401);
    let next = Pair::of(&commands.refresh(&eve.pair.refresh).await.expect(200).body);
    // What the answer says, and the documents: the token that was replaced behind the backup is good again.
    commands.refresh(&mallory.pair.refresh).await.expect(200);
    for old in [&bob, &eve, &mallory] {
        let old = commands.with_token(&old.pair.access);
        old.patch("/api/v1/auth/me", &rename("Nobody")).await.expect(401);
    }
    let eve = restored.queries().with_token(&next.access);
    eve.get("/api/v1/auth/me").await.expect(200);
    succeeded(&restored.roster(&["verify"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_are_copied_and_restored_to() {
    let system = System::cluster().await;
    let (admin, _) = system.as_administrator().await;
    let workload = Workload::start(&system).await;
    workload.more(10).await;
    let folder = system.file("backup");
    tokio::task::block_in_place(|| succeeded(&system.roster(&["backup", text(&folder)])));
    let ada = &workload.finish().await.users[0];
    admin.delete(&format!("/api/v1/users/{}", ada.1)).await.expect(204);
    succeeded(&system.roster(&["backup", text(&folder), "--ends"]));

    let site = Site::cluster_of(&folder);
    wait_for("the nodes to have leaders, and the restore", || async {
        let output = site.roster(&["restore", text(&folder)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("does not answer"), "{said}");
        output.status.success()
    })
    .await;
    let restored = site.start().await;
    let (_, queries) = restored.as_administrator().await;
    queries.get(&format!("/api/v1/users/{}", ada.1)).await.expect(404);
    succeeded(&restored.roster(&["provision", "--check"]));
    succeeded(&restored.roster(&["verify"]));
}

/// The folder of a backup of a small system, and the system.
pub async fn small_backup() -> (System, PathBuf) {
    let system = System::shared().await;
    system.commands().register("ada@backup.example").await.expect(201);
    let folder = system.file("backup");
    succeeded(&system.roster(&["backup", text(&folder)]));
    (system, folder)
}
