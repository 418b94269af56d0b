//! A log that the views were not built from.

use async_nats::jetstream;
use events::Position;
use view_kit::{Fold, View};

use crate::support::{Notes, Running, client, database, make_stream, say, shown, wait_for};

type View1 = Notes<1>;

#[tokio::test]
async fn a_log_of_another_lineage_is_refused() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    say(&log, "a", "a1").await;
    let projector = Running::start::<View1>(&client, &database).await;
    let stored = async || database.position(&View1::collection()).await.unwrap() == Position(1);
    wait_for("the checkpoint", stored).await;
    projector.kill().await;

    let server = jetstream::new(client.clone());
    server.delete_stream(View1::STREAM).await.unwrap();
    let log = make_stream(&client, "another").await;
    for text in ["x1", "x2"] {
        say(&log, "x", text).await;
    }
    let projector = Running::start::<View1>(&client, &database).await;
    let parted = "the views do not belong to this log";
    wait_for("that it is refused", async || projector.trouble().await.starts_with(parted)).await;
    assert_eq!(shown::<View1>(&database).await.len(), 1, "nothing of the other log is shown");
    projector.kill().await;

    // As it says: without the database the views are built from the log that is there.
    database.database().drop().await.unwrap();
    let projector = Running::start::<View1>(&client, &database).await;
    wait_for("readiness", async || projector.is_ready().await).await;
    let expected = [("x".to_owned(), 2, "x2".to_owned())];
    assert_eq!(shown::<View1>(&database).await, expected);
}
