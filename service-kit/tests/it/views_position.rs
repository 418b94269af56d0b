//! Waiting for the views.

use std::time::Duration;

use events::Position;
use events::subjects::USER_VIEWS_POSITION;
use nats_access::Role;
use service_kit::views_position::{Announcer, ViewsPosition, Waited};
use tokio_util::sync::CancellationToken;

use crate::support::{account, connect};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn a_wait_ends_with_the_position_or_with_its_time() {
    let account = account();
    let announcer = Announcer::new(connect(account, Role::Projector).await, USER_VIEWS_POSITION);
    let client = connect(account, Role::CommandApi).await;
    let stop = CancellationToken::new();
    let views = ViewsPosition::follow(&client, USER_VIEWS_POSITION, stop).await.unwrap();
    client.flush().await.unwrap();

    assert_eq!(views.wait_for(Position(1), LONG).await, Waited::ProjectorDown, "nothing heard");
    assert!(!views.is_alive());

    let said = async {
        // What is said before the server has the subscription is lost: it is said until it is heard.
        while !views.is_alive() {
            announcer.announce(Position(4)).await;
            tokio::task::yield_now().await;
        }
        announcer.announce(Position(5)).await;
    };
    let heard = async {
        while !views.is_alive() {
            tokio::task::yield_now().await;
        }
        views.wait_for(Position(5), LONG).await
    };
    assert_eq!(tokio::join!(said, heard).1, Waited::Reached);
    assert_eq!(views.wait_for(Position(5), SHORT).await, Waited::Reached);
    assert_eq!(views.wait_for(Position(6), SHORT).await, Waited::TimedOut);
    assert_eq!(views.current(), Some(Position(5)));
}
