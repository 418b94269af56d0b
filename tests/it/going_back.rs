//! A log that went back behind the views is found out, also when it has grown past them since.

use std::fs;
use std::path::Path;

use e2e::{Client, PASSWORD, Pair, System, wait_for};

use crate::backing_up::succeeded;

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Puts the files of the log back to what they were.
fn put_back(system: &System, files: &Path) {
    let store = system.servers_dir().join("nats").join("jetstream");
    system.nats().stop().unwrap();
    fs::remove_dir_all(&store).unwrap();
    copy_folder(files, &store);
    system.nats().restart().unwrap();
}

async fn registered(system: &System, names: std::ops::Range<usize>, who: &str) -> u64 {
    let commands = system.commands();
    let mut position = 0;
    for n in names {
        let answer = commands.register(&format!("{who}{n}@back.example")).await.expect(201);
        position = answer.position();
    }
    position
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_log_that_were_put_back_are_found_out() {
    let mut system = System::own().await;
    registered(&system, 0..2, "before").await;
    let store = system.servers_dir().join("nats").join("jetstream");
    assert!(store.is_dir(), "{store:?}");
    let kept = system.file("kept");
    system.nats().stop().unwrap();
    copy_folder(&store, &kept);
    system.nats().restart().unwrap();
    system.ready().await;

    let end = registered(&system, 0..3, "lost").await;
    succeeded(&system.roster(&["verify"]));
    system.kill_projector();
    put_back(&system, &kept);
    system.start_projector();
    is_refused(&system, "they have position", 0).await;
    let private = Client::new(&system.projector.as_ref().unwrap().value("private"));
    let answer = private.get("/readyz").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    let said = String::from_utf8_lossy(&answer.bytes).into_owned();
    assert!(said.contains("drop the database"), "the way out: {said}");

    // It grows past them, and is another one still.
    let refusals = refusals(&system, "is not the one that they were built from");
    system.restart_command_api();
    let grown = registered(&system, 0..6, "after").await;
    assert!(grown > end, "{grown} and {end}");
    is_refused(&system, "is not the one that they were built from", refusals).await;

    // The way out.
    system.rebuild_views().await;
    succeeded(&system.roster(&["verify"]));
}

fn refusals(system: &System, why: &str) -> usize {
    system.log_of("projector").lines().filter(|line| line.contains(why)).count()
}

async fn is_refused(system: &System, why: &str, before: usize) {
    wait_for("the views to be refused", || async { refusals(system, why) > before }).await;
}

async fn me(base: &Client, access: &str) -> u16 {
    base.with_token(access).get("/api/v1/auth/me").await.status
}

/// Everybody was logged out behind the copy that is put back: the log does not know of it any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_tokens_of_a_lost_history_are_good_nowhere() {
    let (ada, bob) = ("ada@back.example", "bob@back.example");
    let system = System::own().await;
    let commands = system.commands();
    for email in [ada, bob] {
        commands.register(email).await.expect(201);
    }
    let ada_before = commands.log_in(ada, PASSWORD).await;
    let bob_before = commands.log_in(bob, PASSWORD).await;
    let kept = system.file("kept");
    system.nats().stop().unwrap();
    copy_folder(&system.servers_dir().join("nats").join("jetstream"), &kept);
    system.nats().restart().unwrap();
    system.ready().await;

    let commands = system.commands();
    assert_eq!(me(&system.queries(), &bob_before.access).await, 200);
    let as_ada = commands.with_token(&ada_before.access);
    as_ada.send("POST", "/api/v1/auth/logout-all", None).await.expect(204);
    let ada_after = commands.log_in(ada, PASSWORD).await;
    registered(&system, 0..2, "lost").await;
    put_back(&system, &kept);
    wait_for("the command side to find out", || async {
        system.log_of("command-api").contains("the log of users went back")
    })
    .await;

    // Those that were running, and one that has only just started.
    let later = system.another("query-api");
    let later = Client::new(&later.value("url"));
    let commands = system.commands();
    for access in [&bob_before.access, &ada_before.access, &ada_after.access] {
        wait_for("the services to hear of it", || async {
            me(&system.queries(), access).await == 401
        })
        .await;
        assert_eq!(me(&later, access).await, 401);
        let commands = commands.with_token(access);
        commands.send("POST", "/api/v1/auth/logout-all", None).await.expect(401);
    }
    for pair in [&bob_before, &ada_before, &ada_after] {
        assert_eq!(
            commands.refresh(&pair.refresh).await.expect(401).code(),
            "invalid-refresh-token"
        );
    }

    // Whoever logs in again is in, here and there, also when the log has grown past where it was.
    let again = commands.log_in(bob, PASSWORD).await;
    registered(&system, 0..6, "after").await;
    assert_eq!(me(&system.queries(), &again.access).await, 200);
    assert_eq!(me(&later, &again.access).await, 200);
    let next = Pair::of(&commands.refresh(&again.refresh).await.expect(200).body);
    assert_eq!(me(&later, &next.access).await, 200);
    for pair in [&bob_before, &ada_before, &ada_after] {
        commands.refresh(&pair.refresh).await.expect(401);
        assert_eq!(me(&later, &pair.access).await, 401);
    }
}
