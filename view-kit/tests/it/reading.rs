//! The query side: page by page, and not before the views have what is asked for.

use std::time::Duration;

use events::Position;
use mongodb::bson::doc;
use serde::Deserialize;
use service_kit::http::cursor::{Cursor, Key};
use service_kit::http::page::Total;
use service_kit::metrics::Metrics;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use view_kit::{Count, Find, ReadLimits, ViewReads, behind};

use crate::support::{Notes, Running, client, database, make_stream, say, wait_for};

const INDEX: &str = "text_1__id_1";
const LONG: Duration = Duration::from_secs(30);

async fn reads(
    client: &async_nats::Client,
    database: &view_kit::ViewDatabase,
) -> ViewReads<Notes<1>> {
    let limits = ReadLimits { operation_timeout: LONG, list_work: LONG, total_max: 6 };
    let metrics = Metrics::new("notes");
    let stop = CancellationToken::new();
    ViewReads::follow(client, database.clone(), limits, &metrics, stop).await.unwrap()
}

#[tokio::test]
async fn an_answer_waits_for_the_projector_and_is_refused_without_one() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    let reads = reads(&client, &database).await;
    let position = say(&log, "a", "a1").await;
    let short = Duration::from_millis(200);
    assert!(!reads.wait_for(position, short).await.unwrap(), "nobody has written it");
    let failed = reads.readiness().check().await.unwrap_err();
    assert_eq!(failed, [("views", "nothing heard of the projector".to_owned())]);

    let projector = Running::start::<Notes<1>>(&client, &database).await;
    assert!(reads.wait_for(position, LONG).await.unwrap());
    wait_for("readiness", async || reads.readiness().check().await.is_ok()).await;
    assert_eq!(reads.position().await.unwrap(), position);
    assert!(!reads.wait_for(Position(position.0 + 1), short).await.unwrap());
    projector.kill().await;
    reads.finished().await;
}

#[derive(Deserialize)]
struct Note {
    #[serde(rename = "_id")]
    id: bson::Uuid,
    text: String,
}

impl Note {
    fn id(&self) -> Uuid {
        Uuid::from_bytes(self.id.bytes())
    }
}

/// Notes are read in the order of their texts, of which many are equal, in both directions.
#[tokio::test]
async fn a_list_is_read_page_by_page() {
    const NOTES: u64 = 9;
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    let reads = reads(&client, &database).await;
    let mut position = Position(0);
    for n in 0..NOTES {
        let id = Uuid::from_u128(u128::from(n));
        position = say(&log, &id.to_string(), &format!("text {}", n % 2)).await;
    }
    let _projector = Running::start::<Notes<1>>(&client, &database).await;
    assert!(reads.wait_for(position, LONG).await.unwrap());

    for descending in [false, true] {
        let direction = if descending { -1 } else { 1 };
        let sort = doc! {"text": direction, "_id": direction};
        let mut found: Vec<(String, Uuid)> = Vec::new();
        let mut filter = doc! {};
        loop {
            let find = Find { filter, sort: sort.clone(), limit: 2, index: Some(INDEX) };
            let page: Vec<Note> = reads.page(find).await.unwrap();
            let Some(last) = page.last() else { break };
            let place = Cursor { key: Key::Text(last.text.clone()), id: last.id() };
            filter = doc! {"$or": behind(&place, "text", descending, None)};
            found.extend(page.into_iter().map(|note| (note.text.clone(), note.id())));
        }
        let mut expected = found.clone();
        expected.sort();
        expected.dedup();
        if descending {
            expected.reverse();
        }
        assert_eq!((found.len() as u64, &found), (NOTES, &expected), "{direction}");
    }

    let count = |filter| Count { filter, index: None };
    assert_eq!(reads.total(count(doc! {})).await.unwrap(), Total::MoreThan(6));
    let some = count(doc! {"text": "text 1"});
    assert_eq!(reads.total(some).await.unwrap(), Total::Exactly(4));
}
