//! From an event of a user to a mail file in the folder.

use std::os::unix::fs::PermissionsExt as _;

use events::{Actor, LinkPurpose, Snapshot, UserFact, subjects};
use service_kit::ambient;
use service_kit::links::{LinkKind, undone_revision};
use service_kit::mail_jobs::{Mail, order_id};

use crate::support::{ADA, System, new_user, order, put, registered, wait_for};

#[tokio::test]
async fn a_new_user_gets_one_mail_with_a_valid_link() {
    let system = System::start().await;
    let user = new_user();
    system.put(subjects::user_credential(user), b"sealed".to_vec()).await;
    let event = system.happens(user, Actor::Anonymous, registered(ADA, false)).await;
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.readiness.check().await.unwrap();
    reactor.end().await;

    let mails = system.received();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!((mail.to.as_str(), mail.subject.as_str()), (ADA, "Verify your e-mail address"));
    assert!(mail.text.contains("https://id.example.com/links/verify-email?token="), "{mail:?}");
    let link = system.verified(mail).await;
    assert_eq!((link.kind, link.user), (LinkKind::VerifyEmail, user));
    let record = system.record(LinkPurpose::Verify, user).await.unwrap();
    assert_eq!((record.serial, record.ordered_at), (Some(link.serial), event.time));
    assert_eq!(link.serial, order_id(event.id, "verify_email"));
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for file in std::fs::read_dir(system.folder()).unwrap() {
        assert_eq!(mode(file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn a_created_user_chooses_a_password_and_is_notified_of_changes() {
    let system = System::start().await;
    let (user, administrator) = (new_user(), Actor::User(new_user()));
    system.happens(user, administrator, registered(ADA, false)).await;
    let reactor = system.reactor().await;
    system.settled().await;
    let mails = system.received();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(system.verified(mail).await.kind, LinkKind::SetPassword);

    system.put(subjects::user_credential(user), b"sealed".to_vec()).await;
    // The link verifies the address: a notice goes to no other.
    system.happens(user, Actor::User(user), UserFact::EmailVerified).await;
    system.happens(user, Actor::User(user), UserFact::PasswordChanged).await;
    system.settled().await;
    reactor.end().await;
    let mails = system.received();
    let [_, notice] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(notice.subject, "Your password was changed");
    assert!(!notice.text.contains("token"), "{notice:?}");
}

#[tokio::test]
async fn old_events_lead_to_no_mail() {
    let system = System::start().await;
    let long_ago = events::Timestamp::from_unix_seconds(
        ambient::now().as_datetime().timestamp()
            - i64::try_from(system.settings.mail.give_up_s).unwrap(),
    )
    .unwrap();
    let facts = [registered(ADA, false), UserFact::PasswordChanged];
    let user = new_user();
    for fact in facts {
        system.happened(user, Actor::User(user), fact, long_ago).await;
    }
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.end().await;
    assert!(system.received().is_empty());
}

#[tokio::test]
async fn an_unreadable_event_is_not_skipped_and_delays_nobody() {
    let system = System::start().await;
    let (broken, user) = (new_user(), new_user());
    let poison = Some((ambient::new_uuid(), "user.registered.v1"));
    put(&system.users, subjects::user_events(broken), b"{}".to_vec(), poison).await;
    system.happens(user, Actor::Anonymous, registered(ADA, false)).await;
    let reactor = system.reactor().await;
    wait_for("the mail of the other", || async { system.received().len() == 1 }).await;
    wait_for("the reactor to report it", || async {
        let Err(failed) = reactor.readiness.check().await else { return false };
        failed.iter().any(|(_, why)| why.contains("position 1 cannot be read"))
    })
    .await;
    reactor.end().await;
}

#[tokio::test]
async fn sends_no_mail_without_a_recipient() {
    let system = System::start().await;
    let verified = system.user(ADA, "verified").await;
    let disabled = system.user("off@example.com", "disabled").await;
    system.happens(disabled, Actor::System, UserFact::Disabled).await;
    let deleted = system.user("gone@example.com", "deleted").await;
    system.happens(deleted, Actor::System, UserFact::Deleted).await;
    let orders = [
        Mail::ResetPassword { claim: "unknown".to_owned() },
        Mail::AddressTaken { claim: "unknown".to_owned() },
        Mail::ResetPassword { claim: "disabled".to_owned() },
        Mail::SetPassword { user: disabled },
        Mail::ResetPassword { claim: "deleted".to_owned() },
        Mail::PasswordChanged { user: deleted },
        Mail::VerifyEmail { user: verified },
        Mail::VerifyEmail { user: new_user() },
    ]
    .map(order);
    for order in &orders {
        system.place(order).await;
    }
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.end().await;
    let mails: Vec<_> = system.received().into_iter().map(|m| (m.to, m.subject)).collect();
    let expected = ("off@example.com".to_owned(), "Your account was disabled".to_owned());
    assert_eq!(mails, [expected], "only the notice, and none of the requested mails");
    for order in &orders {
        assert!(!system.is_waiting(order).await, "{order:?}");
    }
    assert_eq!(system.parked().list().await.unwrap(), []);
}

#[tokio::test]
async fn a_change_of_address_mails_a_confirmation_and_a_notice() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    let new_email = "New@example.com".to_owned();
    system.place(&order(Mail::EmailChange { user, new_email, epoch: None, session: None })).await;
    system.place(&order(Mail::AddressTaken { claim: "ada".to_owned() })).await;
    let reactor = system.reactor().await;
    system.settled().await;
    reactor.end().await;

    let mails = system.received();
    assert_eq!(mails.len(), 3, "{mails:?}");
    let of = |subject| mails.iter().find(|mail| mail.subject == subject).unwrap();
    let confirm = of("Confirm your new e-mail address");
    assert_eq!(confirm.to, "New@example.com");
    let link = system.verified(confirm).await;
    assert_eq!(link.kind, LinkKind::ConfirmEmail);
    assert_eq!(link.new_email.as_deref(), Some("New@example.com"));
    let notice = of("Your e-mail address is about to change");
    assert_eq!(notice.to, ADA);
    assert!(!notice.raw.contains("New@"), "the notice does not contain the new address");
    let abort = system.verified(notice).await;
    assert_eq!((abort.kind, abort.serial), (LinkKind::AbortEmail, link.serial));
    assert_ne!(confirm.message_id, notice.message_id);
    assert_eq!(of("You already have an account").to, ADA);
}

#[tokio::test]
async fn the_previous_address_gets_a_recovery_link() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    // Events of other users in between: the event before the change is found among them.
    for n in 0..5 {
        system.user(&format!("other{n}@example.com"), &format!("other{n}")).await;
    }
    let reactor = system.reactor().await;
    let moved = UserFact::EmailChanged { email: "thief@evil.example".to_owned() };
    let event = system.happens(user, Actor::User(user), moved).await;
    system.settled().await;
    let mails = system.received();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!((mail.to.as_str(), mail.subject.as_str()), (ADA, "Your e-mail address was changed"));
    assert!(!mail.raw.contains("evil"), "it does not contain the new address");
    let link = system.verified(mail).await;
    assert_eq!((link.kind, link.new_email.as_deref()), (LinkKind::UndoEmail, Some(ADA)));
    let Snapshot::Present(after) = event.after else { panic!("deleted") };
    assert_eq!(undone_revision(&link), Some(after.revision));

    // Other changes do not invalidate it; another change of address leads to another link.
    system.put(subjects::user_credential(user), b"sealed".to_vec()).await;
    let ended = br#"{"sessions":{"kept":"none"}}"#.to_vec();
    system.put(subjects::user_revocation(user), ended).await;
    let again = UserFact::EmailChanged { email: "second@evil.example".to_owned() };
    system.happens(user, Actor::User(user), again).await;
    system.settled().await;
    reactor.end().await;
    assert_eq!(system.verified(mail).await, link);
    let to: Vec<String> = system.received().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [ADA, "thief@evil.example"]);
}

#[tokio::test]
async fn a_change_of_roles_or_status_leads_to_a_notice() {
    let system = System::start().await;
    let user = system.user(ADA, "ada").await;
    let administrator = Actor::User(new_user());
    let reactor = system.reactor().await;
    let roles = vec!["admin".to_owned(), "user".to_owned()];
    let mut notices = Vec::new();
    for (fact, subject) in [
        (UserFact::RolesChanged { roles }, "Your roles were changed"),
        (UserFact::Disabled, "Your account was disabled"),
        (UserFact::Enabled, "Your account was enabled"),
    ] {
        system.happens(user, administrator, fact).await;
        system.settled().await;
        notices.push((ADA.to_owned(), subject.to_owned()));
        let mails: Vec<_> = system.received().into_iter().map(|m| (m.to, m.subject)).collect();
        assert_eq!(mails, notices);
    }
    reactor.end().await;
}
