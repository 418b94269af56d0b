//! Following the log, whatever happens to the projector.

use events::Position;
use mongodb::bson::{Document, doc};
use service_kit::views_position::{ViewsPosition, Waited, subject_of};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use view_kit::View;

use crate::support::{Notes, Running, client, database, make_stream, say, shown, wait_for};

type View1 = Notes<1>;

fn note(name: &str, position: i64, text: &str) -> (String, i64, String) {
    (name.to_owned(), position, text.to_owned())
}

#[tokio::test]
async fn the_views_follow_the_log_and_say_how_far_they_are() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    let (subject, stop) = (subject_of(View1::NAME), CancellationToken::new());
    let heard = ViewsPosition::follow_layout(&client, subject, View1::LAYOUT, stop).await.unwrap();
    say(&log, "a", "first").await;
    say(&log, "b", "$name").await;
    say(&log, "a", "second").await;
    let projector = Running::start::<View1>(&client, &database).await;
    wait_for("readiness", async || projector.is_ready().await).await;
    assert_eq!(shown::<View1>(&database).await, [note("a", 3, "second"), note("b", 2, "$name")]);
    wait_for("a sign of life", async || heard.is_alive()).await;

    let position = say(&log, "c", "third").await;
    assert_eq!(heard.wait_for(position, Duration::from_secs(30)).await, Waited::Reached);
    assert!(shown::<View1>(&database).await.contains(&note("c", 4, "third")));
    let names = database.database().collection::<Document>(&View1::collection());
    assert_eq!(names.list_index_names().await.unwrap(), ["_id_", "text_1__id_1"]);
    let stored = async || database.position(&View1::collection()).await.unwrap() == position;
    wait_for("the checkpoint", stored).await;
}

/// Killed at any moment, it goes on where its data says, and shows what one that was never killed shows.
#[tokio::test]
async fn a_projector_that_is_killed_goes_on() {
    const NOTES: i64 = 40;
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    for n in 1..=NOTES {
        say(&log, &format!("n{:02}", n % 4), &n.to_string()).await;
    }
    let mut seen = Position(0);
    while seen < Position(NOTES.unsigned_abs()) {
        let projector = Running::start::<View1>(&client, &database).await;
        let mut found = seen;
        wait_for("the next message", async || {
            let farthest = shown::<View1>(&database).await.into_iter().map(|(_, at, _)| at).max();
            found = Position(farthest.unwrap_or(0).unsigned_abs());
            found > seen
        })
        .await;
        projector.kill().await;
        seen = found;
    }
    let expected: Vec<_> = (37..=NOTES)
        .map(|n| note(&format!("n{:02}", n % 4), n, &n.to_string()))
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(shown::<View1>(&database).await, expected);
}

/// The documents of a batch are written, and the checkpoint is not: as a kill between the two leaves it.
#[tokio::test]
async fn what_was_written_before_a_kill_is_written_again_to_no_effect() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    for text in ["first", "second", "third"] {
        say(&log, "a", text).await;
    }
    let projector = Running::start::<View1>(&client, &database).await;
    let name = View1::collection();
    let stored = async || database.position(&name).await.unwrap() == Position(3);
    wait_for("the checkpoint", stored).await;
    projector.kill().await;
    let before = shown::<View1>(&database).await;
    assert_eq!(before, [note("a", 3, "third")]);

    let back = doc! {"$set": {"position": 1_i64}, "$unset": {"last": ""}};
    database.checkpoints().update_one(doc! {"_id": &name}, back).await.unwrap();
    // It is written one by one: the second text must not come back on the way.
    let history = database.database().collection::<Document>(&name);
    let guard = doc! {"$jsonSchema": {"properties": {"text": {"enum": ["third"]}}}};
    database.database().run_command(doc! {"collMod": &name, "validator": guard}).await.unwrap();
    assert_eq!(history.count_documents(doc! {}).await.unwrap(), 1);
    let projector = Running::start::<View1>(&client, &database).await;
    wait_for("the checkpoint again", stored).await;
    wait_for("readiness", async || projector.is_ready().await).await;
    assert_eq!(shown::<View1>(&database).await, before);
}
