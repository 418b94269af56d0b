//! A log that went back behind the views is found out, also when it has grown past them since.

use std::fs;
use std::path::Path;

use e2e::{Client, System, wait_for};

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
    let refusals = refusals(&system, "is not what they were built from");
    system.restart_command_api();
    let grown = registered(&system, 0..6, "after").await;
    assert!(grown > end, "{grown} and {end}");
    is_refused(&system, "is not what they were built from", refusals).await;

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
