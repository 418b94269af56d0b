//! A new layout, filled beside the one that is served.

use service_kit::views_position::{ViewsPosition, subject_of};
use tokio_util::sync::CancellationToken;
use view_kit::View;

use crate::support::{
    GATE, Notes, Running, client, database, make_stream, open_the_gate, say, shown, wait_for,
};

/// Two versions run at once, as in a rolling deployment.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_layout_is_filled_beside_the_old_one_and_not_ready_before_it_has_caught_up() {
    let (client, database) = (client().await, database().await);
    let log = make_stream(&client, "one").await;
    let follow = async |layout| {
        let (subject, stop) = (subject_of("notes"), CancellationToken::new());
        ViewsPosition::follow_layout(&client, subject, layout, stop).await.unwrap()
    };
    let (heard, heard_of_new) = (follow(1).await, follow(2).await);
    for text in ["first", "second", GATE, "last"] {
        say(&log, "a", text).await;
    }
    let old = Running::start::<Notes<1>>(&client, &database).await;
    wait_for("the old layout", async || old.is_ready().await).await;

    let new = Running::start::<Notes<2>>(&client, &database).await;
    let filling = "the views are being filled from the start of the log";
    wait_for("the new layout to begin", async || new.trouble().await == filling).await;
    // Whatever is stored meanwhile, the old one takes it in and is waited for.
    for text in ["later", "latest"] {
        let position = say(&log, "b", text).await;
        wait_for("the old layout", async || heard.current() == Some(position)).await;
        assert!(old.is_ready().await);
    }
    assert_eq!(new.trouble().await, filling);
    assert_eq!(heard_of_new.current(), None, "nothing is announced of what is being filled");
    assert_eq!(shown::<Notes<1>>(&database).await.len(), 2);

    open_the_gate();
    wait_for("the new layout", async || new.is_ready().await).await;
    wait_for("what it says", async || heard_of_new.current() == heard.current()).await;
    assert_eq!(shown::<Notes<2>>(&database).await, shown::<Notes<1>>(&database).await);
    assert_ne!(Notes::<1>::collection(), Notes::<2>::collection());

    // That it has caught up is known to the next one.
    new.kill().await;
    let noted = mongodb::bson::doc! {"_id": Notes::<2>::collection(), "filled": true};
    assert_eq!(database.checkpoints().count_documents(noted).await.unwrap(), 1);
}
