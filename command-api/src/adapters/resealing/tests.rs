//! On a real log.

use std::path::Path;

use events::credential_position;
use nats_access::Role;
use service_kit::config::Settings;
use service_kit::event_log::{Guard, users_stream};
use service_kit::key_ring::Ring;
use service_kit::keys::SecretKey;

use super::*;
use crate::adapters::testing::{account, connect, log};
use crate::ports::PasswordHash;

/// Before a rotation, during it and after it.
struct Rotation {
    user: UserId,
    log: EventLog,
    before: Resealer,
    during: Resealer,
    after: Resealer,
}

impl Rotation {
    async fn of_one_user() -> Self {
        let account = account();
        let client = connect(account, Role::Operator).await;
        let log = log(&client, subjects::USERS_STREAM);
        let settings = Settings::merge("", []).unwrap().log;
        log.provision(&users_stream(&settings)).await.unwrap();
        let old = SecretKey::generate().unwrap();
        let old = Ring::parse(&old.to_base64(), Path::new("old")).unwrap();
        let both = old.clone().with(SecretKey::generate().unwrap(), ambient::now());
        let resealer = |ring: Ring| Resealer::new(log.clone(), &ring.into()).unwrap();
        Self {
            user: UserId::from_uuid(ambient::new_uuid()),
            before: resealer(old),
            during: resealer(both.clone()),
            after: resealer(both.finished()),
            log,
        }
    }

    async fn top(&self) -> Top {
        self.log.top(&subjects::user_credential(self.user)).await.unwrap()
    }

    /// Stores a credential as a command does.
    async fn set(&self, by: &Resealer, hash: Option<&str>, guard: Guard) -> Position {
        let hash = hash.map(|hash| PasswordHash(hash.to_owned()));
        let message = by.sealer.seal(self.user, hash.as_ref(), None).unwrap();
        let write = Write::new(subjects::user_credential(self.user), guard, message);
        let command = CommandId::from_uuid(ambient::new_uuid());
        let outcome = self.log.append(&Append::new(command, write)).await;
        let Outcome::Stored(position) = outcome else { panic!("{outcome:?}") };
        position
    }

    async fn opened(&self, by: &Resealer) -> Option<String> {
        let last = self.top().await.last.unwrap();
        by.sealer.open(self.user, &last.payload).unwrap().map(|hash| hash.0.clone())
    }
}

#[tokio::test]
async fn a_credential_is_sealed_anew_and_keeps_the_position_of_its_password() {
    let rotation = Rotation::of_one_user().await;
    let Rotation { user, before, during, after, .. } = &rotation;
    let set_at = rotation.set(before, Some("one"), Guard::absent()).await;
    let old = rotation.top().await.last.unwrap();
    assert!(during.is_former(*user, &old.payload).unwrap());
    assert!(after.sealer.open(*user, &old.payload).is_err(), "the new key alone does not open it");

    assert!(during.reseal(*user).await.unwrap());
    assert_eq!(rotation.opened(after).await.as_deref(), Some("one"));
    let new = rotation.top().await.last.unwrap();
    assert!(before.sealer.open(*user, &new.payload).is_err(), "the old key opens it no more");
    assert!(new.position > set_at);
    assert_eq!(credential_position(&new.payload, new.position), set_at, "links are bound to it");
    assert!(!during.reseal(*user).await.unwrap(), "once is enough");
    assert_eq!(rotation.top().await.last.unwrap().position, new.position);
}

#[tokio::test]
async fn a_password_that_is_changed_meanwhile_stays() {
    let rotation = Rotation::of_one_user().await;
    let Rotation { user, before, during, after, .. } = &rotation;
    rotation.set(before, Some("one"), Guard::absent()).await;
    let read = rotation.top().await;
    rotation.set(before, Some("two"), read.guard).await;
    assert_eq!(during.replace(*user, read).await, Ok(None), "it was read before the change");
    assert_eq!(rotation.opened(before).await.as_deref(), Some("two"));
    assert!(during.reseal(*user).await.unwrap());
    assert_eq!(rotation.opened(after).await.as_deref(), Some("two"));
}

#[tokio::test]
async fn a_credential_that_is_removed_meanwhile_stays_removed() {
    let rotation = Rotation::of_one_user().await;
    let Rotation { user, before, during, .. } = &rotation;
    rotation.set(before, Some("one"), Guard::absent()).await;
    let read = rotation.top().await;
    rotation.set(before, None, read.guard).await;
    assert_eq!(during.replace(*user, read).await, Ok(None));
    assert!(!during.reseal(*user).await.unwrap());
    assert_eq!(rotation.opened(during).await, None);
}
