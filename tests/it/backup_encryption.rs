//! Backups that only their owner can read, and that only the operator can have made.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use e2e::{PASSWORD, Site, System};
use sha2::{Digest, Sha256};

use crate::canary::{files, places};

const EMAIL: &str = "kestrel.of.the.backup@example.com";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(why), "{why} in {said}");
}

/// Two files of `roster keys backup`.
fn pair(system: &System, name: &str) -> (PathBuf, PathBuf) {
    let files =
        (system.file(&format!("{name}.recipient")), system.file(&format!("{name}.identity")));
    let arguments = ["keys", "backup", "--recipient", text(&files.0), "--identity", text(&files.1)];
    succeeded(&system.roster(&arguments));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_backup_is_restored_by_its_identity() {
    let system = System::shared().await;
    let user = system.commands().register(EMAIL).await.expect(201);
    let gone = system.commands().register("gone@example.com").await.expect(201);
    let (recipient, identity) = pair(&system, "own");
    let folder = system.file("backup");
    let to = ["--recipient", text(&recipient)];
    succeeded(&system.roster(&["backup", text(&folder), to[0], to[1]]));
    let (admin, _) = system.as_administrator().await;
    let path = format!("/api/v1/users/{}", gone.body["id"].as_str().unwrap());
    admin.delete(&path).await.expect(204);
    succeeded(&system.roster(&["backup", text(&folder), "--ends", to[0], to[1]]));

    // Nothing in it can be read: no address, no key, not who was deleted.
    let mut found = Vec::new();
    files(&folder, &mut found);
    let key = fs::read_to_string(system.secrets_dir().join("operator/application.key")).unwrap();
    for secret in [EMAIL, key.trim(), gone.body["id"].as_str().unwrap()] {
        assert_eq!(places(secret, &found), Vec::<&str>::new());
    }
    assert!(!places("USER_EVENTS", &found).is_empty(), "the manifest is there to be looked at");
    // Whether it is whole can be seen without the identity, and whose it is with it.
    succeeded(&system.roster(&["backup", text(&folder), "--check"]));
    succeeded(&system.roster(&["backup", text(&folder), "--check", "--identity", text(&identity)]));

    let site = Site::of_encrypted(&folder, &identity, &[("ROSTER_ERASURE_SECOND_LOOK_S", "1")]);
    refused(&site.roster(&["restore", text(&folder)]), "--identity");
    succeeded(&site.roster(&["restore", text(&folder), "--identity", text(&identity)]));
    let restored = site.start().await;
    let token = restored.commands().login(EMAIL, PASSWORD).await;
    let me = restored.queries().with_token(&token).get("/api/v1/auth/me").await.expect(200);
    assert_eq!(me.body["id"], user.body["id"]);
    let login = serde_json::json!({"email": "gone@example.com", "password": PASSWORD});
    restored.commands().post("/api/v1/auth/login", &login).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_somebody_else_made_or_changed_is_refused() {
    let system = System::shared().await;
    let ((recipient, identity), (stranger, _)) = (pair(&system, "own"), pair(&system, "stranger"));
    let (own, foreign, plain) = (system.file("own"), system.file("foreign"), system.file("plain"));
    succeeded(&system.roster(&["backup", text(&own), "--recipient", text(&recipient)]));
    succeeded(&system.roster(&["backup", text(&foreign), "--recipient", text(&stranger)]));
    succeeded(&system.roster(&["backup", text(&plain)]));
    let keys = system.file("keys");
    let restore = |folder: &Path| {
        let identity = ["--identity", text(&identity)];
        system.roster(&["restore", text(folder), "--keys", text(&keys), identity[0], identity[1]])
    };
    refused(&restore(&foreign), "not made by the recipient");
    refused(&restore(&plain), "is not encrypted");
    let ends = ["backup", text(&own), "--ends"];
    refused(&system.roster(&ends), "--recipient");
    refused(
        &system.roster(&[&ends[..], &["--recipient", text(&stranger)]].concat()),
        "same recipient",
    );
    succeeded(&restore(&own));
    fs::remove_dir_all(&keys).unwrap();

    // One character changed, with a checksum that fits: what a thief of the storage can do.
    let path = own.join("manifest.jsonl");
    let manifest = fs::read_to_string(&path).unwrap();
    let (seal, body) = manifest.trim_end().split_once('\n').unwrap();
    let changed = body.replacen("USERS.snapshot", "USERS.snapshoT", 1);
    let sum =
        |body: &str| Sha256::digest(body).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let seal = seal.replace(&sum(body), &sum(&changed));
    fs::write(&path, format!("{seal}\n{changed}\n")).unwrap();
    refused(&restore(&own), "was changed");
    assert!(!keys.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_identity_file_restores_nothing_and_is_named() {
    let system = System::shared().await;
    let (recipient, identity) = pair(&system, "own");
    let (folder, keys, damaged) =
        (system.file("backup"), system.file("keys"), system.file("damaged.identity"));
    succeeded(&system.roster(&["backup", text(&folder), "--recipient", text(&recipient)]));
    let whole = fs::read_to_string(&identity).unwrap();
    let (head, key) = whole.trim_end().split_once(' ').unwrap();
    // One character of the private key, which comes first, and one of the key that verifies, which comes last.
    let changed = |at: usize| {
        let other = if key.as_bytes()[at] == b'A' { "B" } else { "A" };
        format!("{head} {}{other}{}\n", &key[..at], &key[at + 1..])
    };
    let is_none = "damaged.identity is not a roster-backup-identity-v1 file";
    for (content, why) in [
        (String::new(), is_none),
        (whole[..whole.len() / 2].to_owned(), is_none),
        (format!("{head} {}\n", &key[..key.len() - 4]), is_none),
        (format!("{whole}{whole}"), is_none),
        (fs::read_to_string(&recipient).unwrap(), is_none),
        (changed(10), "the backup is not for this identity"),
        (changed(key.len() - 10), "not made by the recipient"),
    ] {
        fs::write(&damaged, &content).unwrap();
        let with_it = ["--identity", text(&damaged)];
        let restore = ["restore", text(&folder), "--keys", text(&keys)];
        let output = system.roster(&[&restore[..], &with_it].concat());
        refused(&output, why);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(content.is_empty() || !said.contains(&content[content.len() / 2..]), "{said}");
        refused(
            &system.roster(&[&["backup", text(&folder), "--check"][..], &with_it].concat()),
            why,
        );
        assert!(!keys.exists(), "{why}");
    }
    fs::remove_file(&damaged).unwrap();
    let restore = ["restore", text(&folder), "--identity", text(&damaged)];
    refused(&system.roster(&restore), "cannot read");
}

#[tokio::test(flavor = "multi_thread")]
async fn production_makes_and_takes_no_plain_backup_unless_it_is_asked_to() {
    let system = System::shared().await;
    let creds = system.file("operator.creds");
    fs::set_permissions(&creds, fs::Permissions::from_mode(0o600)).unwrap();
    let production = [("ROSTER_DEPLOYMENT", "production")];
    let (folder, keys) = (system.file("backup"), system.file("keys"));
    let backup = ["backup", text(&folder)];
    refused(&system.roster_with(&backup, &production), "--recipient");
    assert!(!folder.exists());
    succeeded(&system.roster_with(&[backup[0], backup[1], "--plain"], &production));
    let restore = ["restore", text(&folder), "--keys", text(&keys)];
    refused(&system.roster_with(&restore, &production), "--identity");
    assert!(!keys.exists());
    succeeded(&system.roster_with(&[&restore[..], &["--plain"]].concat(), &production));
}
