//! How many mails one address gets and in which order they are sent, with a real SMTP socket.

use events::{Actor, CommandId, EmailClaim, LinkPurpose, UserFact, subjects};
use service_kit::event_log::{Append, Guard, Write};
use service_kit::mail_jobs::Mail;

use crate::smtp::with_server;
use crate::support::{ADA, System, id, new_user, order, registered, reset, wait_for};

/// Orders several mails one after the other, then the rest at once. With concurrent orders, an older one may find its
/// link replaced and send nothing.
async fn flood(system: &System, mail: &Mail) {
    for n in 0..40 {
        let mut order = order(mail.clone());
        order.ordered_at = order.ordered_at.plus_seconds(n);
        system.place(&order).await;
        if n < 5 {
            system.settled().await;
        }
    }
    system.settled().await;
}

#[tokio::test]
async fn hundreds_of_changes_lead_to_one_notice_and_a_pending_one() {
    let (system, server) = with_server(&[], "").await;
    let user = system.user("bob@example.com", "bob").await;
    let reactor = system.reactor().await;
    for _ in 0..300 {
        system.happens(user, Actor::User(user), UserFact::PasswordChanged).await;
    }
    wait_for("all but one to be handled", || async {
        system.users_left().await.is_none() && system.mails_left().await == 1
    })
    .await;
    reactor.readiness.check().await.unwrap();
    reactor.end().await;
    let subjects: Vec<String> = server.mails().into_iter().map(|mail| mail.subject).collect();
    assert_eq!(subjects, ["Your password was changed"]);
}

#[tokio::test]
async fn a_pending_notice_covers_later_changes() {
    let (mut system, server) = with_server(&[], "").await;
    system.settings.mail.notice_interval_s = 2;
    let user = system.user("bob@example.com", "bob").await;
    let reactor = system.reactor().await;
    system.place(&order(Mail::PasswordChanged { user })).await;
    wait_for("the first notice", || async { server.mails().len() == 1 }).await;
    for _ in 0..20 {
        system.place(&order(Mail::PasswordChanged { user })).await;
    }
    system.settled().await;
    reactor.end().await;
    // A slow machine may take longer than one interval, but never one mail per change.
    let mails = server.mails().len();
    assert!((2..=5).contains(&mails), "{mails}");
}

#[tokio::test]
async fn sends_no_notice_to_an_unverified_address() {
    let (system, server) = with_server(&[], "").await;
    let user = new_user();
    system.happens(user, Actor::System, registered("stranger@example.com", false)).await;
    let reactor = system.reactor().await;
    for _ in 0..50 {
        system.happens(user, Actor::User(user), UserFact::PasswordChanged).await;
    }
    system.settled().await;
    reactor.end().await;
    let to_stranger: Vec<_> =
        server.mails().into_iter().filter(|mail| mail.subject.contains("changed")).collect();
    assert!(to_stranger.is_empty(), "{to_stranger:?}");
}

#[tokio::test]
async fn limits_mails_to_an_address_that_is_registered_repeatedly() {
    let (system, server) = with_server(&[], "").await;
    let reactor = system.reactor().await;
    for _ in 0..100 {
        let user = new_user();
        system.put(subjects::user_credential(user), b"sealed".to_vec()).await;
        system.happens(user, Actor::Anonymous, registered("victim@example.com", false)).await;
    }
    system.settled().await;
    reactor.end().await;
    let to: Vec<String> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, ["victim@example.com"; 3]);
}

#[tokio::test]
async fn every_kind_of_mail_has_its_own_cap() {
    let (system, server) = with_server(&[], "").await;
    let user = system.user("bob@example.com", "bob").await;
    let held = EmailClaim::held(user);
    system.put(subjects::email_claim("bob"), serde_json::to_vec(&held).unwrap()).await;
    let reactor = system.reactor().await;
    for mail in [
        // One link that an administrator sends, and the mails that strangers can cause.
        Mail::SetPassword { user },
        Mail::AddressTaken { claim: "bob".to_owned() },
        Mail::EmailChange {
            user,
            new_email: "new@example.com".to_owned(),
            epoch: None,
            session: None,
        },
    ] {
        flood(&system, &mail).await;
    }
    reactor.end().await;
    let mails = server.mails();
    for subject in [
        "Choose your password",
        "You already have an account",
        "Confirm your new e-mail address",
        "Your e-mail address is about to change",
    ] {
        let count = mails.iter().filter(|mail| mail.subject == subject).count();
        assert_eq!(count, 3, "{subject}");
    }
    assert_eq!(mails.len(), 12);
}

#[tokio::test]
async fn a_reset_overtakes_a_thousand_notices() {
    let (mut system, server) = with_server(&[], "").await;
    // All of them are to be sent; this test checks the order.
    system.settings.throttle.enabled = false;
    let user = system.user("bob@example.com", "bob").await;
    for _ in 0..1_000 {
        system.place(&order(Mail::PasswordChanged { user })).await;
    }
    system.place(&reset("ada")).await;
    let reactor = system.reactor().await;
    wait_for("the reset mail", || async { server.mails().iter().any(|mail| mail.to == ADA) }).await;
    let before = server.mails().iter().position(|mail| mail.to == ADA).unwrap();
    reactor.end().await;
    assert!(before < 500, "{before} notices went first");
}

#[tokio::test]
async fn a_flood_of_resets_keeps_a_valid_link_and_replaces_a_used_one() {
    let (system, server) = with_server(&[], "").await;
    let reactor = system.reactor().await;
    flood(&system, &reset("ada").mail).await;
    let mails = server.mails();
    assert_eq!(mails.len(), 3, "however many are requested");
    // The last one repeats the valid link: no request of a stranger invalidates the owner's link.
    let [_, second, third] = &mails[..] else { panic!("{mails:?}") };
    let serial = system.verified(second).await.serial;
    assert_eq!(system.verified(third).await.serial, serial);
    let user = system.verified(third).await.user;
    assert_eq!(system.record(LinkPurpose::Password, user).await.unwrap().serial, Some(serial));

    // The owner uses it in the middle of the flood and needs another one.
    system.use_link(LinkPurpose::Password, user).await;
    let mut again = reset("ada");
    again.ordered_at = again.ordered_at.plus_seconds(100);
    system.place(&again).await;
    system.settled().await;
    reactor.end().await;
    let mails = server.mails();
    assert_eq!(mails.len(), 4);
    assert_eq!(system.verified(&mails[3]).await.serial, id(&again));
}

/// A notice that an older version left in the queue of all mails.
#[tokio::test]
async fn sends_a_notice_from_the_queue_of_other_mails() {
    let (system, server) = with_server(&[], "").await;
    let user = system.user("bob@example.com", "bob").await;
    let order = order(Mail::PasswordChanged { user });
    let sealed = system.orders.seal(&order).unwrap();
    let write = Write::new(subjects::mail_order(order.id), Guard::absent(), sealed);
    system.mails.append(&Append::new(CommandId::from_uuid(order.id), write)).await;
    let reactor = system.reactor().await;
    wait_for("the notice", || async { server.mails().len() == 1 }).await;
    system.settled().await;
    reactor.end().await;
}
