//! Changing the application key while everything runs, and taking the old one away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use e2e::{Answer, Client, PASSWORD, Pair, Process, Site, System, wait_for};
use events::Timestamp;
use serde_json::{Value, json};

const ADA: &str = "ada@example.com";
const EVE: &str = "eve@example.com";
const NEW_PASSWORD: &str = "another password for tests";
/// Long enough for a test to use both keys before the new one seals.
const LEAD_S: &str = "30";

fn said(output: &Output) -> String {
    let [out, error] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{error}")
}

fn keys(system: &System, arguments: &[&str]) -> Output {
    let dir = system.secrets_dir();
    let command = ["keys", "rotate-application", "--dir", dir.to_str().unwrap()];
    system.roster(&[&command[..], arguments].concat())
}

/// Begins a rotation; from when on the new key seals.
fn rotate(system: &System, lead_s: &str) -> Timestamp {
    let output = keys(system, &["--lead-s", lead_s]);
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    let (_, from) = said.split_once("seals from ").unwrap();
    Timestamp::parse(from.split_once(',').unwrap().0).unwrap()
}

async fn until(time: Timestamp) {
    wait_for("a time to come", || async {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        Timestamp::from_unix_seconds(i64::try_from(since).unwrap()).unwrap() > time
    })
    .await;
}

/// Ends a rotation, once its new key has sealed for long enough.
async fn finish(system: &System, arguments: &[&str]) -> Output {
    let mut last = None;
    wait_for("the rotation to be old enough to be finished", || {
        let output = keys(system, &[&["--finish"], arguments].concat());
        let is_early = said(&output).contains(": finish after ");
        last = Some(output);
        async move { !is_early }
    })
    .await;
    last.unwrap()
}

fn finished(output: &Output) {
    let said = said(output);
    assert!(output.status.success() && said.contains("the old key is gone"), "{said}");
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A command side whose folder of keys is a copy: it knows of nothing until it is brought the files.
fn with_copied_keys(system: &System, name: &str) -> (Process, PathBuf) {
    let folder = system.file(name);
    copied(&system.secrets_dir().join("command-api"), &folder);
    let variables = [("ROSTER_SECRETS_DIR", folder.to_str().unwrap())];
    (system.another_with("command-api", &variables), folder)
}

/// The token of the newest mail of a kind.
async fn link(system: &System, to: &str, purpose: &str) -> String {
    let newest = || {
        let mut links = system.mails_to(to).into_iter().filter_map(|mail| mail.link);
        links.rfind(|link| link.purpose == purpose)
    };
    wait_for("a mail", || async { newest().is_some() }).await;
    newest().unwrap().token
}

async fn login(client: &Client, email: &str, password: &str) -> Answer {
    client.post("/api/v1/auth/login", &json!({"email": email, "password": password})).await
}

async fn refreshed(client: &Client, pair: &Pair) -> Pair {
    Pair::of(&client.refresh(&pair.refresh).await.expect(200).body)
}

/// The sealed credentials in the log, those that were replaced among them: user and message.
async fn credentials(system: &System) -> Vec<(String, Value)> {
    let stream = jetstream::new(system.operator().await).get_stream("USERS").await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let mut found = Vec::new();
    for position in 1..=last {
        let Ok(message) = stream.get_raw_message(position).await else { continue };
        if let Some(user) = message.subject.strip_prefix("sec.user.") {
            found.push((user.to_owned(), serde_json::from_slice(&message.payload).unwrap()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_refuses_nothing_on_two_command_sides_that_learn_of_it_one_after_the_other() {
    let system = System::shared().await;
    let (late, folder) = with_copied_keys(&system, "late");
    let (here, there) = (system.commands(), Client::new(&late.value("url")));
    let registration = json!({"email": ADA, "password": PASSWORD, "full_name": "Ada"});
    let keyed = |client: &Client| client.with_header("idempotency-key", "before");
    let first = keyed(&here).post("/api/v1/auth/register", &registration).await.expect(201);
    here.register(EVE).await.expect(201);
    let verifying = link(&system, ADA, "verify-email").await;
    here.post("/api/v1/auth/password-reset-request", &json!({"email": EVE})).await.expect(202);
    let resetting = link(&system, EVE, "reset-password").await;
    let mut pair = here.log_in(ADA, PASSWORD).await;

    let seals_from = rotate(&system, LEAD_S);
    // One has the new key, and the other has not: what either makes is good for both.
    wait_for("the new key to be taken", || async {
        system.log_of("command-api").contains("took the keys of a rotation")
    })
    .await;
    for (maker, taker) in [(&here, &there), (&there, &here)] {
        pair = refreshed(taker, &refreshed(maker, &pair).await).await;
        login(maker, ADA, PASSWORD).await.expect(200);
    }
    here.register("ines@example.com").await.expect(201);
    login(&there, "ines@example.com", PASSWORD).await.expect(200);
    copied(&system.secrets_dir().join("command-api"), &folder);
    until(seals_from).await;

    // The new key seals, and what the old one made is good still, however often the credential was sealed anew.
    for (maker, taker) in [(&here, &there), (&there, &here)] {
        pair = refreshed(taker, &refreshed(maker, &pair).await).await;
        login(maker, ADA, PASSWORD).await.expect(200);
        let again = keyed(maker).post("/api/v1/auth/register", &registration).await.expect(201);
        assert_eq!(again.body, first.body, "the same request is the same answer");
        let other = json!({"email": ADA, "password": NEW_PASSWORD});
        maker.post("/api/v1/auth/register", &other).await.expect(409);
    }
    let proof = json!({"token": verifying, "password": PASSWORD});
    there.post("/api/v1/auth/verify-email-confirm", &proof).await.expect(204);
    let reset = json!({"token": resetting, "new_password": NEW_PASSWORD});
    there.post("/api/v1/auth/password-reset-confirm", &reset).await.expect(204);
    login(&here, EVE, NEW_PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_rotation_leaves_nothing_to_the_old_key_and_takes_nothing_from_users() {
    let system = System::shared().await;
    let commands = system.commands();
    for email in [ADA, EVE] {
        commands.register(email).await.expect(201);
    }
    let old_link = link(&system, ADA, "verify-email").await;
    let (asleep, awake) =
        (commands.log_in(EVE, PASSWORD).await, commands.log_in(ADA, PASSWORD).await);
    let before = credentials(&system).await;
    // Somebody has a copy of the old keys, with a command side of their own.
    let (thief, _) = with_copied_keys(&system, "stolen");
    let operator = system.secrets_dir().join("operator/application.key");

    let seals_from = rotate(&system, "5");
    let early = keys(&system, &["--finish"]);
    assert!(!early.status.success() && said(&early).contains(": finish after "), "{early:?}");
    // Clocks may differ by a little.
    until(seals_from.plus_seconds(5)).await;
    let awake = refreshed(&commands, &awake).await;
    let refused = finish(&system, &[]).await;
    let why = said(&refused);
    assert!(!refused.status.success(), "{why}");
    for part in ["1 sessions were not refreshed", "2 links that were made", "--now"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    let kept = fs::read(&operator).unwrap();

    let output = finish(&system, &["--now"]).await;
    finished(&output);
    // The administrator is a user of whom nobody logged in.
    assert!(said(&output).contains("3 credentials were sealed"), "{}", said(&output));
    // Killed before the operator's file was written: it is done again.
    fs::write(&operator, &kept).unwrap();
    finished(&finish(&system, &["--now"]).await);
    let again = keys(&system, &["--finish"]);
    assert!(again.status.success() && said(&again).contains("no rotation"), "{again:?}");
    assert_ne!(fs::read(&operator).unwrap(), kept);

    let after = credentials(&system).await;
    assert_eq!(after.len(), before.len(), "replaced ones are erased");
    for message in &before {
        assert!(!after.contains(message), "what the old key opens is gone: {message:?}");
    }
    let thieves = Client::new(&thief.value("url"));
    for email in [ADA, EVE] {
        let unreadable = login(&thieves, email, PASSWORD).await.expect(409);
        assert_eq!(unreadable.code(), "unreadable-record");
        login(&commands, email, PASSWORD).await.expect(200);
    }
    wait_for("the old key to be dropped", || async {
        commands.refresh(&asleep.refresh).await.status == 401
    })
    .await;
    refreshed(&commands, &awake).await;
    let old = json!({"token": old_link, "password": PASSWORD});
    commands.post("/api/v1/auth/verify-email-confirm", &old).await.expect(400);
    let bearer = commands.with_token(&commands.log_in(ADA, PASSWORD).await.access);
    bearer.post("/api/v1/auth/verify-email-request", &json!({})).await.expect(202);
    wait_for("a new link", || async { link(&system, ADA, "verify-email").await != old_link }).await;
    let new = json!({"token": link(&system, ADA, "verify-email").await, "password": PASSWORD});
    commands.post("/api/v1/auth/verify-email-confirm", &new).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_waits_keeps_the_old_key_and_is_sent_after_the_rotation() {
    let system = System::shared().await;
    let commands = system.commands();
    commands.register(ADA).await.expect(201);
    link(&system, ADA, "verify-email").await;
    // Nothing can be mailed, and everything else of the reactor goes on.
    let (folder, aside) = (system.file("mail"), system.file("mails aside"));
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "not a folder").unwrap();
    commands.post("/api/v1/auth/password-reset-request", &json!({"email": ADA})).await.expect(202);
    rotate(&system, "5");
    let refused = finish(&system, &["--now"]).await;
    let why = said(&refused);
    assert!(!refused.status.success() && why.contains("1 mails wait"), "{why}");

    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    let token = link(&system, ADA, "reset-password").await;
    wait_for("the mail to be taken out of the queue", || {
        let output = keys(&system, &["--finish", "--now"]);
        let has_finished = output.status.success();
        assert!(has_finished || said(&output).contains("1 mails wait"), "{}", said(&output));
        async move { has_finished }
    })
    .await;
    // The mail was ordered with the old key, and its link made with the new one.
    let reset = json!({"token": token, "new_password": NEW_PASSWORD});
    commands.post("/api/v1/auth/password-reset-confirm", &reset).await.expect(204);
    login(&commands, ADA, NEW_PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_side_that_was_never_brought_the_new_key_keeps_the_old_one() {
    let system = System::shared().await;
    let (late, folder) = with_copied_keys(&system, "late");
    let (here, there) = (system.commands(), Client::new(&late.value("url")));
    let seals_from = rotate(&system, "5");
    until(seals_from.plus_seconds(5)).await;
    there.register(ADA).await.expect(201);
    let refused = finish(&system, &["--now"]).await;
    let why = said(&refused);
    assert!(!refused.status.success() && why.contains("sealed 1 credentials since"), "{why}");
    // Nothing was changed, so who has no new key goes on, and it is refused as often as it is tried.
    login(&there, ADA, PASSWORD).await.expect(200);
    login(&there, e2e::ADMIN_EMAIL, e2e::ADMIN_PASSWORD).await.expect(200);
    let again = said(&finish(&system, &["--now"]).await);
    assert!(again.contains("sealed 1 credentials since"), "{again}");

    copied(&system.secrets_dir().join("command-api"), &folder);
    finished(&finish(&system, &["--now", "--brought"]).await);
    login(&here, ADA, PASSWORD).await.expect(200);
    login(&there, ADA, PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_and_counts_are_found_after_a_rotation() {
    let mut system = System::shared_with(&[
        ("ROSTER_THROTTLE_ENABLED", "true"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_FREE", "3"),
        ("ROSTER_THROTTLE_ACCOUNT_FAILURES_MAX", "4"),
    ])
    .await;
    system.commands().register(ADA).await.expect(201);
    let is_closed = async |client: Client| {
        let answer = login(&client, ADA, "a wrong password").await;
        answer.header("retry-after").is_some_and(|wait| wait.parse::<u64>().unwrap() > 900)
    };
    wait_for("an account to be closed", || is_closed(system.commands())).await;
    rotate(&system, "5");
    finished(&finish(&system, &["--now"]).await);
    system.restart_command_api();
    system.ready().await;
    assert!(is_closed(system.commands()).await, "its attempts are counted from nothing");
    let taken = system.commands().register(ADA).await.expect(409);
    assert_eq!(taken.code(), "email-taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_was_changed_behind_a_backup_and_a_rotation_survives_a_restore() {
    let system = System::shared().await;
    let commands = system.commands();
    let ada = commands.register(ADA).await.expect(201).body["id"].as_str().unwrap().to_owned();
    let eve = commands.register(EVE).await.expect(201).body["id"].as_str().unwrap().to_owned();
    let folder = system.file("backup");
    let backup = ["backup", folder.to_str().unwrap()];
    assert!(system.roster(&backup).status.success());
    let seals_from = rotate(&system, "5");
    until(seals_from).await;
    let bearer = commands.with_token(&commands.log_in(ADA, PASSWORD).await.access);
    let change = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    bearer.post("/api/v1/auth/change-password", &change).await.expect(204);
    finished(&finish(&system, &["--now"]).await);
    let ends = system.roster(&[&backup[..], &["--ends"]].concat());
    assert!(ends.status.success(), "{}", said(&ends));
    let delta = fs::read_to_string(folder.join("ends.jsonl")).unwrap();
    assert!(delta.contains(&ada) && !delta.contains(&eve), "she has the password of the backup");

    let site = Site::of(&folder, &[]);
    let restored = site.roster(&["restore", folder.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", said(&restored));
    let restored = site.start().await;
    let commands = restored.commands();
    login(&commands, ADA, NEW_PASSWORD).await.expect(200);
    login(&commands, ADA, PASSWORD).await.expect(401);
    login(&commands, EVE, PASSWORD).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_from_after_a_rotation_is_restored_with_every_key_that_it_needs() {
    let system = System::shared().await;
    system.commands().register(ADA).await.expect(201);
    rotate(&system, "5");
    finished(&finish(&system, &["--now"]).await);
    let folder = system.file("backup");
    assert!(system.roster(&["backup", folder.to_str().unwrap()]).status.success());
    let site = Site::of(&folder, &[]);
    let restored = site.roster(&["restore", folder.to_str().unwrap()]);
    assert!(restored.status.success(), "{}", said(&restored));
    let restored = site.start().await;
    login(&restored.commands(), ADA, PASSWORD).await.expect(200);
    let taken = restored.commands().register(ADA).await.expect(409);
    assert_eq!(taken.code(), "email-taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_of_a_rotation_and_of_a_service_that_was_not_brought_its_key() {
    let system = System::shared().await;
    let file = system.secrets_dir().join("command-api/application.key");
    let before = fs::read(&file).unwrap();
    let told = |part: &str| {
        let output = system.roster(&["doctor"]);
        assert!(said(&output).contains(part), "{part} in {}", said(&output));
        output.status.success()
    };
    assert!(told("ok       application-key"));
    rotate(&system, LEAD_S);
    assert!(told("a rotation is under way"));
    fs::write(&file, before).unwrap();
    assert!(!told("another application key than the operator"));
    // The advice helps.
    let secrets = system.secrets_dir();
    assert!(system.roster(&["init", "--dir", secrets.to_str().unwrap()]).status.success());
    assert!(told("a rotation is under way"));
}
