//! A message that cannot be read.

use async_nats::jetstream;
use events::Position;
use view_kit::{Fold, RetryRequest, View, retry_subject};

use crate::support::{Notes, Running, client, database, garble, make_stream, say, shown, wait_for};

type View1 = Notes<1>;

async fn texts(database: &view_kit::ViewDatabase) -> Vec<String> {
    shown::<View1>(database).await.into_iter().map(|(_, _, text)| text).collect()
}

#[tokio::test]
async fn it_is_parked_with_its_note_until_it_is_gone() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    say(&log, "a", "a1").await;
    let garbled = garble(&log, "a").await;
    say(&log, "a", "a2").await;
    let end = say(&log, "b", "b1").await;
    let projector = Running::start::<View1>(&client, &database).await;
    let wait = async || database.position(&View1::collection()).await.unwrap() == end;
    wait_for("the end of the log", wait).await;
    assert_eq!(texts(&database).await, ["a1", "b1"], "others go on");
    let parked = "1 parked: see the collection `parked` of the database";
    wait_for("that it is said", async || projector.trouble().await == parked).await;
    let found = database.parked().find_one(mongodb::bson::doc! {}).await.unwrap().unwrap();
    assert_eq!((found.aggregate.as_str(), found.position()), ("a", garbled));
    assert_eq!((found.through(), found.checkpoint.as_str()), (Position(3), "notes_1"));

    // What is parked stays so over a restart.
    projector.kill().await;
    let projector = Running::start::<View1>(&client, &database).await;
    wait_for("that it is said again", async || projector.trouble().await == parked).await;

    let stream = jetstream::new(client.clone()).get_stream(View1::STREAM).await.unwrap();
    assert!(stream.delete_message(garbled.0).await.unwrap());
    let wish = RetryRequest::new(client, retry_subject(View1::NAME));
    wait_for("that it is well", async || {
        wish.send().await.unwrap();
        projector.is_ready().await
    })
    .await;
    assert_eq!(texts(&database).await, ["a2", "b1"], "what waited is applied");
    assert_eq!(database.parked().count_documents(mongodb::bson::doc! {}).await.unwrap(), 0);
}

#[tokio::test]
async fn more_than_a_few_stop_it() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    for note in ["a", "b", "c"] {
        garble(&log, note).await;
    }
    say(&log, "d", "d1").await;
    let projector = Running::start_with::<View1>(&client, &database, 2).await;
    let stopped = "the event at position 3 cannot be read";
    wait_for("that it stands", async || projector.trouble().await.starts_with(stopped)).await;
    assert_eq!(texts(&database).await, [""; 0], "nothing behind it is applied");
}
