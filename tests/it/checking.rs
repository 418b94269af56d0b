//! The slow check of the projector: it finds nothing where nothing is wrong, and every kind of damage in its time.

use e2e::{Client, PASSWORD, System, rename, wait_for};
use events::UserId;
use mongodb::bson::{Uuid, doc};

use crate::damage::{Damage, SESSIONS, USERS, key};
use crate::workload::Workload;

const OFTEN: (&str, &str) = ("ROSTER_PROJECTOR_CHECK_PAUSE_MS", "10");

async fn checked(system: &System) -> f64 {
    let scrape = Client::new(&system.projector.as_ref().unwrap().value("private")).scrape().await;
    scrape.value("roster_checked_users_total", &[]).unwrap()
}

async fn differences(system: &System, place: &str) -> f64 {
    let scrape = Client::new(&system.projector.as_ref().unwrap().value("private")).scrape().await;
    scrape.value("roster_check_differences_total", &[("where", place)]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slow_check_finds_nothing_beside_writers_and_every_damage_afterwards() {
    let system = System::shared_with(&[OFTEN]).await;
    let workload = Workload::start(&system).await;
    workload.more(40).await;
    let before = checked(&system).await;
    wait_for("users to be checked", || async { checked(&system).await > before + 50.0 }).await;
    workload.finish().await;
    for place in ["log", "user-view", "session-view", "feed"] {
        assert!(differences(&system, place).await < 0.5, "{place}");
    }

    let (admin, _) = system.as_administrator().await;
    let commands = system.commands();
    let mut users: Vec<UserId> = Vec::new();
    for n in 0..4 {
        let email = format!("checked{n}@example.com");
        let user = commands.register(&email).await.expect(201);
        commands.log_in(&email, PASSWORD).await;
        admin.patch(user.header("location").unwrap(), &rename("Ada")).await.expect(200);
        users.push(user.body["id"].as_str().unwrap().parse().unwrap());
    }
    let damage = Damage::of(&system).await;
    let names_it = |user: UserId| system.log_of("projector").contains(&user.to_string());

    damage.change(USERS, doc! {"_id": key(users[0])}, doc! {"full_name": "Mallory"}).await;
    wait_for("a changed document", || async { names_it(users[0]) }).await;
    damage.drop(USERS, doc! {"_id": key(users[1])}).await;
    wait_for("a document that is missing", || async { names_it(users[1]) }).await;
    let extra = UserId::from_uuid(uuid::Uuid::now_v7());
    damage
        .copy(USERS, doc! {"_id": key(users[0])}, Uuid::from_bytes(*extra.as_uuid().as_bytes()))
        .await;
    wait_for("a document of nobody", || async { names_it(extra) }).await;
    assert!(differences(&system, "user-view").await >= 3.0);

    let of_theirs = doc! {"user_id": key(users[2])};
    damage.change(SESSIONS, of_theirs, doc! {"ip": "192.0.2.1"}).await;
    wait_for("a changed session", || async { differences(&system, "session-view").await > 0.5 })
        .await;
    assert!(names_it(users[2]));

    let told = damage.messages("USER_EVENTS", &format!("users.v1.*.{}", users[3])).await;
    // Not the last message of the feed, by which it knows where it is.
    commands.register("last@example.com").await.expect(201);
    damage.remove("USER_EVENTS", told.last().unwrap().sequence).await;
    wait_for("a gap in the feed", || async { differences(&system, "feed").await > 0.5 }).await;
    assert!(names_it(users[3]));

    damage.event_that_does_not_fold(users[3]).await;
    wait_for("a state that does not fold", || async { differences(&system, "log").await > 0.5 })
        .await;
}
