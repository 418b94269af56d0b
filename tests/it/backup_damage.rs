//! Backups that are damaged or half are told from whole ones, and a restore that is killed is begun again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use async_nats::jetstream;
use e2e::{PASSWORD, Site, System, wait_for};
use serde_json::json;

use crate::backing_up::{refused, small_backup, succeeded, text};
use crate::importing::import;

/// Users that take a restore long enough to be killed in the middle.
const MANY: usize = 2_000;

/// Does something to a file.
type Damage = fn(&Path);

/// A copy of a folder in another one.
fn copied(from: &Path, to: &Path) -> PathBuf {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copied(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
    to.to_owned()
}

fn all_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all_files(&path, into) } else { into.push(path) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_any_file_is_found_before_anything_is_restored() {
    let (system, folder) = small_backup().await;
    succeeded(&system.roster(&["backup", text(&folder), "--ends"]));
    let mut files = Vec::new();
    all_files(&folder, &mut files);
    assert!(files.len() > 8, "{files:?}");
    let look = |dir: &Path| -> [Output; 2] {
        ["--check", "--keys"].map(|how| match how {
            "--check" => system.roster(&["backup", text(dir), "--check"]),
            // Without a system: the keys alone would be restored.
            _ => system.roster(&["restore", text(dir), "--keys", text(&dir.join("never"))]),
        })
    };
    for (number, file) in files.iter().enumerate() {
        let name = file.strip_prefix(&folder).unwrap();
        let of_ends = name == Path::new("ends.jsonl");
        let damages: [(&str, Damage); 3] = [
            ("a bit", |file| {
                let mut bytes = fs::read(file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(file, bytes).unwrap();
            }),
            ("its end", |file| {
                let bytes = fs::read(file).unwrap();
                fs::write(file, &bytes[..bytes.len() - 1]).unwrap();
            }),
            ("all of it", |file| fs::remove_file(file).unwrap()),
        ];
        for (what, damage) in damages {
            // That nothing was collected yet is no damage.
            if of_ends && what == "all of it" {
                continue;
            }
            let copy = copied(&folder, &system.file(&format!("damaged-{number}-{what}")));
            damage(&copy.join(name));
            let [checked, restored] = look(&copy);
            assert_eq!(checked.status.code(), Some(1), "{what} of {name:?}");
            let said = String::from_utf8_lossy(&checked.stderr);
            assert!(said.contains(text(&copy)), "{said}");
            assert!(of_ends || restored.status.code() == Some(1), "{what} of {name:?}");
            assert!(of_ends || !copy.join("never").exists());
        }
    }
    // It was there for nothing: the folder itself is whole.
    succeeded(&system.roster(&["backup", text(&folder), "--check"]));
    let site = Site::of(&folder, &[]);
    let copy = copied(&folder, &system.file("damaged"));
    fs::write(copy.join("USERS.snapshot"), "short").unwrap();
    refused(&site.roster(&["restore", text(&copy)]), "is damaged");
    let streams = jetstream::new(site.operator().await);
    assert!(streams.get_stream("USERS").await.is_err(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_was_killed_is_none_and_a_folder_in_use_is_left_alone() {
    let (system, folder) = small_backup().await;
    refused(&system.roster(&["backup", text(&folder)]), "is not empty");
    let next = system.file("next");
    let partial = system.file("next.partial");
    for _ in 0..3 {
        let mut child = system.roster_in_the_background(&["backup", text(&next)], "said");
        wait_for("the backup to begin", || {
            let ended = child.try_wait().unwrap().is_some();
            std::future::ready(partial.exists() || next.exists() || ended)
        })
        .await;
        child.kill().unwrap();
        child.wait().unwrap();
        if next.exists() {
            // It was faster: then it is whole.
            succeeded(&system.roster(&["backup", text(&next), "--check"]));
            fs::remove_dir_all(&next).unwrap();
        } else {
            refused(&system.roster(&["backup", text(&partial), "--check"]), "was not ended");
            refused(&system.roster(&["restore", text(&partial)]), "was not ended");
        }
    }
    succeeded(&system.roster(&["backup", text(&next)]));
    succeeded(&system.roster(&["backup", text(&next), "--check"]));
    assert!(!partial.exists());
    // Nobody else may read what is in it.
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&next), 0o700);
    let mut files = Vec::new();
    all_files(&next, &mut files);
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_killed_keeps_everybody_out_and_begins_again() {
    let system = System::shared().await;
    let (admin, _) = system.as_administrator().await;
    let line = |n| json!({"email": format!("user{n}@backup.example"), "full_name": "Imported"});
    let lines: Vec<String> = (0..MANY).map(|n| line(n).to_string()).collect();
    import(&admin, &lines.join("\n")).await.expect(200);
    let ada = system.commands().register("ada@backup.example").await.expect(201);
    let folder = system.file("backup");
    succeeded(&system.roster(&["backup", text(&folder)]));

    let site = Site::of(&folder, &[]);
    let streams = jetstream::new(site.operator().await);
    // In the first stream, at its end, and in the next one.
    for there in ["USERS", "SESSIONS"] {
        let mut restore = site.spawn_roster(&["restore", text(&folder)]);
        wait_for("the restore to be under way", || {
            let ended = restore.try_wait().unwrap().is_some();
            let streams = &streams;
            async move { ended || streams.get_stream(there).await.is_ok() }
        })
        .await;
        restore.kill().unwrap();
        assert!(!restore.wait().unwrap().success(), "it was killed");
        refused(&site.roster(&["provision"]), "run `roster restore` again");
        for service in ["command-api", "projector", "reactor"] {
            let (mut process, log) = site.spawn(service);
            wait_for("the service to refuse", || {
                let ended = process.ended();
                async move { ended.is_some_and(|status| !status.success()) }
            })
            .await;
            let said = fs::read_to_string(&log).unwrap();
            assert!(said.contains("run `roster restore` again"), "{service}: {said}");
        }
    }
    succeeded(&site.roster(&["restore", text(&folder)]));
    let restored = site.start().await;
    restored.commands().log_in("ada@backup.example", PASSWORD).await;
    let (_, queries) = restored.as_administrator().await;
    let path = format!("/api/v1/users/{}", ada.body["id"].as_str().unwrap());
    // Ready is who lacks nothing that is old; the log is new here, and the last of it may still be on its way.
    wait_for("the views to have her", || async { queries.get(&path).await.status == 200 }).await;
    succeeded(&restored.roster(&["verify"]));
    succeeded(&restored.roster(&["provision", "--check"]));
}
