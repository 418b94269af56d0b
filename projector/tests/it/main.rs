//! The writes of the projector on a real mongod: guarded, repeatable, without a way back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::sync::atomic::{AtomicU32, Ordering};

use events::{
    DeletedUser, Metadata, Position, Revision, Snapshot, Status, Timestamp, User, UserId,
};
use futures::TryStreamExt;
use mongodb::bson::doc;
use projector::store::{Batch, checkpoint, prepare, write};
use uuid::Uuid;
use views::{UserDocument, Views};

async fn views() -> Views {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("projector_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let views = Views::open(&local_stack::testing::mongod().url(), &name).await.unwrap();
    prepare(&views).await.unwrap();
    views
}

fn id(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

fn time() -> Timestamp {
    Timestamp::try_from("2026-01-31T12:00:00.000Z".to_owned()).unwrap()
}

fn living(n: u128, revision: u64, name: &str) -> Snapshot {
    Snapshot::Present(User {
        id: id(n),
        email: format!("user{n}@example.com"),
        email_verified: false,
        full_name: Some(name.to_owned()),
        roles: vec!["user".to_owned()],
        status: Status::Active,
        metadata: Metadata::new(),
        revision: Revision(revision),
        created_at: time(),
        updated_at: time(),
    })
}

fn deleted(n: u128, revision: u64) -> Snapshot {
    Snapshot::Deleted(DeletedUser { id: id(n), revision: Revision(revision), deleted_at: time() })
}

fn batch(events: &[(u64, Snapshot)]) -> Batch {
    let mut batch = Batch::default();
    for (position, after) in events {
        batch.add(Position(*position), after.clone());
    }
    batch
}

async fn documents(views: &Views) -> Vec<UserDocument> {
    views.users().find(doc! {}).sort(doc! {"_id": 1}).await.unwrap().try_collect().await.unwrap()
}

fn projected(events: &[(u64, Snapshot)]) -> Vec<UserDocument> {
    events
        .iter()
        .map(|(position, after)| UserDocument::project(after, Position(*position)))
        .collect()
}

/// A history with a name that would be an operator, an overwritten user and a deleted one.
fn history() -> Vec<(u64, Snapshot)> {
    vec![
        (3, living(1, 1, "$set")),
        (6, living(2, 1, "Grace")),
        (7, living(1, 2, "$$ROOT")),
        (9, living(3, 1, "Edsger")),
        (12, deleted(2, 2)),
    ]
}

#[tokio::test]
async fn a_batch_is_the_last_state_of_each_user() {
    let views = views().await;
    write(&views, &batch(&history())).await.unwrap();
    let expected = [(7, living(1, 2, "$$ROOT")), (12, deleted(2, 2)), (9, living(3, 1, "Edsger"))];
    assert_eq!(documents(&views).await, projected(&expected));
}

#[tokio::test]
async fn the_checkpoint_never_goes_back() {
    let views = views().await;
    assert_eq!(views.position().await.unwrap(), Position(0), "nothing yet");
    for (moved, expected) in [(12, 12), (7, 12), (13, 13)] {
        checkpoint(&views, Position(moved)).await.unwrap();
        assert_eq!(views.position().await.unwrap(), Position(expected));
    }
}

#[tokio::test]
async fn any_prefix_applied_again_changes_nothing() {
    let whole = views().await;
    write(&whole, &batch(&history())).await.unwrap();
    let expected = documents(&whole).await;
    for cut in 0..=history().len() {
        let views = views().await;
        for (position, after) in &history()[..cut] {
            write(&views, &batch(&[(*position, after.clone())])).await.unwrap();
        }
        write(&views, &batch(&history())).await.unwrap();
        // An older projector that is late: nothing of it shows, the tombstone least of all.
        if cut > 0 {
            write(&views, &batch(&history()[..cut])).await.unwrap();
        }
        assert_eq!(documents(&views).await, expected, "prefix of {cut}");
    }
}

#[tokio::test]
async fn two_projectors_at_once_write_the_same() {
    let views = views().await;
    let events: Vec<(u64, Snapshot)> =
        (1..=200).map(|n| (n, living(u128::from(n % 20), n, &n.to_string()))).collect();
    let run = |size: usize| {
        let (views, events) = (views.clone(), events.clone());
        async move {
            for chunk in events.chunks(size) {
                // Both insert the same new user at once: one is told so and goes again.
                while write(&views, &batch(chunk)).await.is_err() {}
            }
        }
    };
    tokio::join!(run(7), run(11), run(1));
    let found = documents(&views).await;
    assert_eq!(found.len(), 20);
    for document in found {
        let position = document.position();
        assert!(position > Position(180), "the last of its user, not {position}");
    }
}

#[tokio::test]
async fn every_list_is_served_from_an_index() {
    let views = views().await;
    let filters = [
        doc! {},
        doc! {"roles": "admin"},
        doc! {"status": "active"},
        doc! {"email_verified": true},
        doc! {"email_canonical": "a@example.com"},
    ];
    for mut filter in filters {
        filter.insert("created_at", doc! {"$gte": mongodb::bson::DateTime::from_millis(0)});
        for direction in [1, -1] {
            let find = doc! {
                "find": views::users_collection(), "filter": filter.clone(),
                "sort": {"created_at": direction, "_id": direction}, "limit": 50,
            };
            let plan = views.database().run_command(doc! {"explain": find}).await.unwrap();
            let plan =
                plan.get_document("queryPlanner").unwrap().get("winningPlan").unwrap().to_string();
            assert!(plan.contains("IXSCAN"), "{filter}: {plan}");
            assert!(!plan.contains("\"SORT\"") && !plan.contains("COLLSCAN"), "{filter}: {plan}");
        }
    }
}
