//! Which link is valid when jobs are repeated or late.

use std::collections::BTreeSet;

use events::{LinkPurpose, Position, UserFact, subjects};
use service_kit::links::LinkKind;
use service_kit::mail_jobs::Mail;

use crate::support::{ADA, System, id, order, reset};

#[tokio::test]
async fn only_the_newest_link_is_valid_despite_a_late_job() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    let (older, newer) = (reset("ada"), {
        let mut newer = reset("ada");
        newer.ordered_at = newer.ordered_at.plus_seconds(1);
        newer
    });
    let reactor = system.reactor().await;
    for order in [&older, &newer] {
        system.place(order).await;
        system.settled().await;
    }
    let mails = system.received();
    let [first, second] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(system.verified(first).await.serial, id(&older));
    let link = system.verified(second).await;
    assert_eq!((link.kind, link.serial), (LinkKind::ResetPassword, id(&newer)));
    let record = system.record(LinkPurpose::Password, user).await.unwrap();
    assert_eq!(record.serial, Some(id(&newer)), "the one valid link");

    // The older one is redelivered: a reactor died before it acknowledged.
    reactor.end().await;
    let reactor = system.reactor().await;
    system.place(&older).await;
    system.settled().await;
    reactor.end().await;
    assert_eq!(system.received().len(), 2);
    assert_eq!(system.record(LinkPurpose::Password, user).await, Some(record));
}

#[tokio::test]
async fn a_redelivered_job_makes_the_same_link() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    let order = reset("ada");
    let mut positions = BTreeSet::new();
    for _ in 0..2 {
        // Killed between sending and acknowledging: the next reactor gets the same job.
        let reactor = system.reactor().await;
        system.place(&order).await;
        system.settled().await;
        // The same reactor remembers it, and does not send it again.
        system.place(&order).await;
        system.settled().await;
        reactor.end().await;
        let subject = subjects::link(LinkPurpose::Password, user);
        positions.insert(system.users.last(&subject).await.unwrap().unwrap().position);
    }
    let mails = system.received();
    let [first, second] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(first.message_id, second.message_id);
    let serials = [system.verified(first).await.serial, system.verified(second).await.serial];
    assert_eq!(serials, [id(&order); 2]);
    assert_eq!(positions.len(), 1, "the record is written once");
}

#[tokio::test]
async fn a_used_link_is_not_revived() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    let orders = [
        (LinkPurpose::Password, reset("ada")),
        (LinkPurpose::Password, order(Mail::SetPassword { user })),
        (
            LinkPurpose::Email,
            order(Mail::EmailChange {
                user,
                new_email: "new@example.com".to_owned(),
                epoch: None,
                session: None,
            }),
        ),
    ];
    let mut sent = 0;
    for (purpose, mut order) in orders {
        // Later than the used one, whatever the resolution of the clock.
        order.ordered_at = order.ordered_at.plus_seconds(sent);
        let reactor = system.reactor().await;
        system.place(&order).await;
        system.settled().await;
        reactor.end().await;
        sent = system.received().len() as u64;
        assert_eq!(system.record(purpose, user).await.unwrap().serial, Some(id(&order)));
        system.use_link(purpose, user).await;

        let reactor = system.reactor().await;
        system.place(&order).await;
        system.settled().await;
        reactor.end().await;
        assert_eq!(system.received().len() as u64, sent, "{order:?}");
        assert_eq!(system.record(purpose, user).await.unwrap().serial, None);
    }
    assert_eq!(sent, 4);
    // A new request makes a new link.
    let mut again = reset("ada");
    again.ordered_at = again.ordered_at.plus_seconds(sent);
    let reactor = system.reactor().await;
    system.place(&again).await;
    system.happens(user, events::Actor::User(user), UserFact::EmailVerified).await;
    system.settled().await;
    reactor.end().await;
    assert_eq!(system.record(LinkPurpose::Password, user).await.unwrap().serial, Some(id(&again)));
}

#[tokio::test]
async fn a_change_of_address_from_before_a_recovery_is_not_mailed() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    let change = |epoch| {
        let new_email = "new@example.com".to_owned();
        order(Mail::EmailChange { user, new_email, epoch: Some(epoch), session: None })
    };
    let ended = br#"{"sessions":{"kept":"none"}}"#.to_vec();
    let recovery = system.put(subjects::user_revocation(user), ended).await;

    let reactor = system.reactor().await;
    system.place(&change(Position(0))).await;
    system.settled().await;
    assert_eq!(system.received().len(), 0, "it was delayed until after the recovery");
    assert_eq!(system.record(LinkPurpose::Email, user).await, None);

    system.place(&change(recovery)).await;
    system.settled().await;
    reactor.end().await;
    let mails = system.received();
    let [notice, confirm] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(system.verified(confirm).await.kind, LinkKind::ConfirmEmail);
    assert_eq!(system.verified(notice).await.kind, LinkKind::AbortEmail);
}
