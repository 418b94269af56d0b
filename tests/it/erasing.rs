//! A deleted user is gone: from the log, the feed, the views, and from the files that the log lies in.

use std::path::Path;

use async_nats::jetstream;
use e2e::{Client, Pair, System, read_stream, wait_for};
use serde_json::{Value, json};

use crate::canary::{files, messages, places};

const FIRST: &str = "canary-first-password-4Wm";
const SECOND: &str = "canary-second-password-8Rk";

/// What a user leaves behind, each unlike everything else.
struct Canaries {
    email: String,
    name: String,
    renamed: String,
    metadata: String,
    agent: String,
}

impl Canaries {
    fn of(who: &str) -> Self {
        Self {
            email: format!("{who}-canary@erasing.example"),
            name: format!("{who} Canary Name"),
            renamed: format!("{who} Canary Renamed"),
            metadata: format!("{who}-canary-metadata"),
            agent: format!("{who}-canary-agent/7.3"),
        }
    }

    fn all(&self) -> [&str; 5] {
        [&self.email, &self.name, &self.renamed, &self.metadata, &self.agent]
    }
}

/// A life that leaves something in every stream; the user's id.
async fn live(system: &System, of: &Canaries) -> String {
    let commands = system.commands().with_header("user-agent", &of.agent);
    let metadata = json!({"note": of.metadata});
    let body = json!({
        "email": of.email, "password": FIRST, "full_name": of.name, "metadata": metadata,
    });
    let registered = commands.post("/api/v1/auth/register", &body).await.expect(201);
    let path = registered.header("location").unwrap().to_owned();
    let pair = commands.log_in(&of.email, FIRST).await;
    let pair = Pair::of(&commands.refresh(&pair.refresh).await.expect(200).body);
    let as_user = commands.with_token(&pair.access);
    as_user.patch("/api/v1/auth/me", &json!({"full_name": of.renamed})).await.expect(200);
    let change = json!({"current_password": FIRST, "new_password": SECOND});
    as_user.post("/api/v1/auth/change-password", &change).await.expect(204);
    commands.log_in(&of.email, SECOND).await;
    path.rsplit('/').next().unwrap().to_owned()
}

/// What `roster erase --verify` says: its exit code and its answer.
fn verify(system: &System, user: &str) -> (Option<i32>, Value) {
    let output = system.roster(&["erase", "--verify", "--json", user]);
    let answer = serde_json::from_slice(&output.stdout);
    let answer = answer.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), answer)
}

pub async fn wait_until_erased(system: &System, user: &str) {
    wait_for("nothing to be left", || async { verify(system, user).0 == Some(0) }).await;
}

/// Every file of the server of the log.
fn log_files(system: &System) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    files(&system.servers_dir().join("nats"), &mut found);
    found
}

/// Streams in which a text stands as it is, in the files and in the messages.
fn streams_with(text: &str, haystack: &[(String, Vec<u8>)]) -> Vec<String> {
    let mut streams: Vec<String> = places(text, haystack)
        .into_iter()
        .map(|place| {
            let parts = Path::new(place).components().map(|part| part.as_os_str());
            let parts: Vec<String> =
                parts.map(|part| part.to_string_lossy().into_owned()).collect();
            let after = parts.iter().position(|part| part == "streams").map(|at| at + 1);
            after.and_then(|at| parts.get(at).cloned()).unwrap_or_else(|| place.to_owned())
        })
        .collect();
    streams.sort();
    streams.dedup();
    streams
}

#[tokio::test]
async fn a_deleted_user_is_gone_from_the_streams_the_views_and_the_files_of_the_log() {
    let mut system = System::own_with(&[("ROSTER_ERASURE_SECOND_LOOK_S", "2")]).await;
    let (gone, stays) = (Canaries::of("Qzxj"), Canaries::of("Wvkb"));
    let user = live(&system, &gone).await;
    let other = live(&system, &stays).await;
    let (admin, queries) = system.as_administrator().await;
    let path = format!("/api/v1/users/{user}");
    assert_eq!(verify(&system, &user), (Some(1), not_deleted(&user, "the user is not deleted")));

    // Looking finds what is there.
    system.subscriber("somebody", &["--from", "snapshot"]).await;
    // Records are stored beside requests, a moment later.
    wait_for("the security records", || async {
        streams_with(&gone.agent, &log_files(&system)).contains(&"SECURITY".to_owned())
    })
    .await;
    let before = log_files(&system);
    let everywhere = ["USERS", "USER_EVENTS", "USER_SNAPSHOTS"];
    for canary in [&gone.email, &gone.renamed, &gone.metadata] {
        assert_eq!(streams_with(canary, &before), everywhere, "{canary}");
    }
    assert_eq!(streams_with(&gone.name, &before), ["USERS", "USER_EVENTS"], "the name from before");
    let from_where = streams_with(&gone.agent, &before);
    assert_eq!(
        from_where,
        ["SECURITY", "SESSIONS", "USER_EVENTS"],
        "where the user logged in from"
    );

    // Until the projector is there the feed does not tell of the deletion, and may tell of what was before.
    system.kill_projector();
    admin.delete(&path).await.expect(204);
    wait_for("the log to be erased", || async {
        !verify(&system, &user).1["left"].to_string().contains("USERS")
    })
    .await;
    let (code, answer) = verify(&system, &user);
    assert_eq!(
        (code, &answer["deleted"], &answer["erased"]),
        (Some(1), &json!(true), &json!(false))
    );
    let waits_for =
        ["the feed does not tell of the deletion yet", "the views do not know of the deletion yet"];
    assert_eq!(answer["waits_for"], json!(waits_for));
    let left = answer["left"].as_array().unwrap();
    let in_feed = left.iter().filter(|left| left["stream"] == "USER_EVENTS").count();
    assert!(in_feed > 3, "{left:?}");

    // A reactor that dies meanwhile is gone on for by the next one.
    system.restart_reactor();
    system.start_projector();
    wait_until_erased(&system, &user).await;

    let mut after = log_files(&system);
    after.extend(messages(&system).await);
    for canary in gone.all() {
        assert_eq!(streams_with(canary, &after), Vec::<String>::new(), "{canary} is left");
    }
    for canary in stays.all() {
        assert!(!streams_with(canary, &after).is_empty(), "{canary} of somebody else is gone");
    }
    for service in ["command-api", "query-api", "projector", "reactor"] {
        let log = [(service.to_owned(), system.log_of(service).into_bytes())];
        for canary in gone.all() {
            assert!(places(canary, &log).is_empty(), "{canary} in the log of {service}");
        }
    }
    queries.get(&path).await.expect(404);
    queries.get(&format!("/api/v1/users/{other}")).await.expect(200);
    the_log_goes_on(&mut system, &user, &other).await;
}

/// The server of the log is killed, the views are built anew: nobody comes back, and nothing is in the way.
async fn the_log_goes_on(system: &mut System, user: &str, other: &str) {
    system.nats().kill().unwrap();
    system.nats().restart().unwrap();
    system.ready().await;
    system.rebuild_views().await;
    let (admin, queries) = system.as_administrator().await;
    let (path, other) = (format!("/api/v1/users/{user}"), format!("/api/v1/users/{other}"));
    let renamed = admin.patch(&other, &e2e::rename("Somebody Else")).await.expect(200).position();
    queries.get(&format!("{other}?min_position={renamed}")).await.expect(200);
    queries.get(&path).await.expect(404);
    let history = queries.get(&format!("{path}/history")).await.expect(200).body;
    let [deletion] = &history["items"].as_array().unwrap()[..] else { panic!("{history}") };
    assert_eq!((&deletion["type"], &deletion["changed"]), (&json!("user.deleted.v1"), &json!({})));
    assert_eq!(verify(system, user).0, Some(0));
    system.views_equal_the_log(&queries).await;
}

fn not_deleted(user: &str, why: &str) -> Value {
    json!({"user": user, "deleted": false, "erased": false, "why": why})
}

#[tokio::test]
async fn a_password_that_was_replaced_is_erased() {
    let system = System::shared().await;
    let commands = system.commands();
    let user = commands.register("ada@example.com").await.expect(201);
    let user = user.body["id"].as_str().unwrap().to_owned();
    let mut password = e2e::PASSWORD.to_owned();
    for n in 0..3 {
        let next = format!("{} {n}", e2e::PASSWORD);
        let pair = commands.log_in("ada@example.com", &password).await;
        let change = json!({"current_password": password, "new_password": next});
        let as_ada = commands.with_token(&pair.access);
        as_ada.post("/api/v1/auth/change-password", &change).await.expect(204);
        password = next;
    }
    wait_for("the passwords to be erased", || async {
        credentials(&system, &user).await.len() == 1
    })
    .await;
    commands.log_in("ada@example.com", &password).await;
}

/// The positions of what is left on the subject of a credential.
async fn credentials(system: &System, user: &str) -> Vec<u64> {
    let context = jetstream::new(system.operator().await);
    let messages = read_stream(&context, "USERS", &format!("sec.user.{user}")).await;
    messages.iter().map(|message| message.sequence).collect()
}

#[tokio::test]
async fn whoever_comes_back_is_somebody_else_and_a_late_subscriber_learns_nothing() {
    let system = System::shared_with(&[("ROSTER_ERASURE_SECOND_LOOK_S", "1")]).await;
    let (admin, queries) = system.as_administrator().await;
    let canaries = Canaries::of("Qzxj");
    let user = live(&system, &canaries).await;
    admin.delete(&format!("/api/v1/users/{user}")).await.expect(204);
    wait_until_erased(&system, &user).await;

    let again = system.commands().register(&canaries.email).await.expect(201);
    let id = again.body["id"].as_str().unwrap().to_owned();
    assert_ne!(id, user);
    let history = queries.get(&format!("/api/v1/users/{id}/history")).await.expect(200).body;
    assert_eq!(history["items"].as_array().unwrap().len(), 1, "{history}");
    assert_eq!(verify(&system, &user).0, Some(0), "the new one is nobody's trace");

    // From the first message on, with the rights of the operator.
    let context = jetstream::new(system.operator().await);
    let feed = read_stream(&context, "USER_EVENTS", ">").await;
    let of_the_user = feed.iter().filter(|message| message.subject.contains(&user));
    let told: Vec<&str> = of_the_user.map(|message| message.subject.as_str()).collect();
    assert_eq!(told, [format!("users.v1.deleted.{user}")]);
}

#[tokio::test]
async fn what_is_not_deleted_is_not_called_erased() {
    let system = System::shared().await;
    let nobody = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
    assert_eq!(
        verify(&system, nobody),
        (Some(1), not_deleted(nobody, "nobody has or had this id"))
    );
    let output = system.roster(&["erase", "--verify", nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody has or had this id"));
    for wrong in [&["erase", nobody][..], &["erase", "--verify"], &["erase", "--verify", "Ada"]] {
        assert_eq!(system.roster(wrong).status.code(), Some(2), "{wrong:?}");
    }
    let help = system.roster(&["erase", "--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Example: roster erase --verify"));
}

/// While an erasure waits, the metrics say for how long.
#[tokio::test]
async fn an_erasure_that_waits_is_seen() {
    let mut system = System::shared_with(&[("ROSTER_ERASURE_SECOND_LOOK_S", "1")]).await;
    let (admin, _) = system.as_administrator().await;
    let user = live(&system, &Canaries::of("Qzxj")).await;
    system.subscriber("somebody", &["--from", "snapshot"]).await;
    let reactor = Client::new(&system.reactor.as_ref().unwrap().value("private"));
    let oldest = async || {
        reactor.scrape().await.value("roster_erasure_oldest_seconds", &[("service", "reactor")])
    };
    wait_for("nothing to be erased", || async { oldest().await == Some(0.0) }).await;
    system.kill_projector();
    admin.delete(&format!("/api/v1/users/{user}")).await.expect(204);
    wait_for("the erasure to age", || async { oldest().await > Some(2.0) }).await;
    system.start_projector();
    wait_for("the erasure to end", || async { oldest().await == Some(0.0) }).await;
    let seen = reactor.scrape().await;
    assert_eq!(seen.value("roster_erasures_total", &[("kind", "user")]), Some(1.0));
    // The password that was changed, and the one that went with the user unless that was faster.
    assert!(seen.value("roster_erasures_total", &[("kind", "credential")]) >= Some(1.0));
    for (stream, at_least) in
        [("USERS", 4.0), ("SESSIONS", 3.0), ("USER_EVENTS", 2.0), ("USER_SNAPSHOTS", 1.0)]
    {
        let erased = seen.value("roster_erased_messages_total", &[("stream", stream)]).unwrap();
        assert!(erased >= at_least, "{erased} of {stream}");
    }
}
