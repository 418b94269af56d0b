//! What is parked, with two projectors at once on a real mongod: no message falls between the two.

use std::collections::HashMap;

use events::Position;
use view_kit::Parked;

use crate::support::database;

const STREAM: &str = "USERS";

fn at(position: u64) -> HashMap<String, Position> {
    HashMap::from([("ada".to_owned(), Position(position))])
}

#[tokio::test]
async fn what_another_projector_passed_over_is_applied_before_the_aggregate_is_let_go() {
    let database = database().await;
    let mut one = Parked::load(&database, "users_1", STREAM).await.unwrap();
    one.hold("ada", Position(7), "unknown".to_owned());
    one.passes("ada", Position(9));
    one.park("ada").await.unwrap();

    let mut other = Parked::load(&database, "users_1", STREAM).await.unwrap();
    assert_eq!(other.aggregates(), [("ada".to_owned(), Position(7))]);
    other.wait(at(12)).await.unwrap();
    assert!(other.holds("ada"), "so the other one passes over what stands at 12");

    // The first one has read up to 10 and does not know of 12.
    one.release("ada", Position(10)).await.unwrap();
    assert!(one.holds("ada"), "there is more to apply");
    one.release("ada", Position(12)).await.unwrap();
    assert!(!one.holds("ada"));

    // The other one hears of it before it passes anything over.
    other.wait(at(13)).await.unwrap();
    assert!(!other.holds("ada"), "so the other one applies what stands at 13");
    assert_eq!(Parked::load(&database, "users_1", STREAM).await.unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_parked_is_parked_for_its_own_views_alone() {
    let database = database().await;
    let mut users = Parked::load(&database, "users_1", STREAM).await.unwrap();
    users.hold("ada", Position(7), "unknown".to_owned());
    users.park("ada").await.unwrap();
    users.park("ada").await.unwrap();
    users.stuck("ada", Position(8), "another".to_owned()).await.unwrap();
    assert_eq!(Parked::load(&database, "users_2", STREAM).await.unwrap().count(), 0);
    let again = Parked::load(&database, "users_1", STREAM).await.unwrap();
    assert_eq!(again.aggregates(), [("ada".to_owned(), Position(8))]);
    users.end("ada").await.unwrap();
    users.reload().await.unwrap();
    assert_eq!(users.count(), 0);
}
