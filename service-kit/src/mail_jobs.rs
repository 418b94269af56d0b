//! Mail jobs: requests for mails, stored by whoever decides, and executed by the mailer of the reactor.
//!
//! A job waits in the stream `MAILS` until its mail is sent. It is sealed completely, because it may contain an
//! address. It never contains a link, which the mailer makes when it sends. Its id makes it idempotent: the same
//! request stored twice is one job while it waits, and one link however often it is executed.

use aws_lc_rs::digest;
use events::{CommandId, Position, Revision, SessionId, Timestamp, UserId, subjects};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event_log::{Append, EventLog, Guard, Outcome, Write};
use crate::key_ring::RotatingKey;
use crate::sealing::{Sealed, Sealer, SealingError};

/// The purpose for which the application key derives the key of mail jobs.
pub const MAIL_KEY_PURPOSE: &str = "mail order v1";

/// A request for one mail (for [`Mail::EmailChange`] two).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailJob {
    /// The id of the job.
    pub id: Uuid,
    /// When the job was created; the lifetime of links starts at sending.
    pub ordered_at: Timestamp,
    /// The mail and its recipient.
    pub mail: Mail,
}

/// A mail and its recipient. The address is always looked up when the mail is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Mail {
    /// A link to choose a new password, to the holder of a claim, if there is one. The key is that of the claim's
    /// subject, so that storing the job costs the same for every address.
    ResetPassword {
        /// `<key>` of `uq.email.<key>`.
        claim: String,
    },
    /// A link to choose the first password, or one that an administrator requested.
    SetPassword {
        /// The recipient.
        user: UserId,
    },
    /// A link to verify the address.
    VerifyEmail {
        /// The recipient.
        user: UserId,
    },
    /// A notice to the present address with a link to cancel, and then a link to the new address to confirm.
    EmailChange {
        /// The user.
        user: UserId,
        /// The new address as given.
        new_email: String,
        /// Position of the last revocation that was known when the password was checked: after a later one, the mails
        /// are not sent. Jobs from older versions have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<Position>,
        /// The session that made the request: once it has ended, the change cannot be confirmed. Jobs from older
        /// versions have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
    },
    /// The notice that the password was changed.
    PasswordChanged {
        /// The recipient.
        user: UserId,
    },
    /// The notice to a user that somebody tried to register with their address.
    AddressTaken {
        /// `<key>` of `uq.email.<key>`.
        claim: String,
    },
    /// The notice to a user's previous address, with a link to undo the change.
    EmailChanged {
        /// The user.
        user: UserId,
        /// The previous address, as given.
        old_email: String,
        /// Revision of the change.
        revision: Revision,
    },
    /// The notice of a login from a new device; stored at every login, because only the mailer looks up devices.
    LoggedIn {
        /// The user.
        user: UserId,
        /// The session.
        session: SessionId,
    },
    /// The notice that the roles changed.
    RolesChanged {
        /// The recipient.
        user: UserId,
    },
    /// The notice that the account was disabled.
    Disabled {
        /// The recipient.
        user: UserId,
    },
    /// The notice that the account was enabled again.
    Enabled {
        /// The recipient.
        user: UserId,
    },
    /// The notice that an administrator's account was created.
    Administrator {
        /// The recipient.
        user: UserId,
    },
}

impl Mail {
    /// The session that the links of the mail are bound to.
    #[must_use]
    pub const fn session(&self) -> Option<SessionId> {
        if let Self::EmailChange { session, .. } = self { *session } else { None }
    }

    /// Name of the kind, for logs and for the operator.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ResetPassword { .. } => "reset_password",
            Self::SetPassword { .. } => "set_password",
            Self::VerifyEmail { .. } => "verify_email",
            Self::EmailChange { .. } => "email_change",
            Self::PasswordChanged { .. } => "password_changed",
            Self::AddressTaken { .. } => "address_taken",
            Self::EmailChanged { .. } => "email_changed",
            Self::LoggedIn { .. } => "logged_in",
            Self::RolesChanged { .. } => "roles_changed",
            Self::Disabled { .. } => "disabled",
            Self::Enabled { .. } => "enabled",
            Self::Administrator { .. } => "administrator",
        }
    }

    /// Whether nobody waits for it: it is only a notice.
    #[must_use]
    pub const fn is_notice(&self) -> bool {
        match self {
            Self::PasswordChanged { .. }
            | Self::LoggedIn { .. }
            | Self::RolesChanged { .. }
            | Self::Disabled { .. }
            | Self::Enabled { .. }
            | Self::Administrator { .. } => true,
            Self::ResetPassword { .. }
            | Self::SetPassword { .. }
            | Self::VerifyEmail { .. }
            | Self::EmailChange { .. }
            | Self::AddressTaken { .. }
            // It contains the link to undo the change: it must not wait behind others.
            | Self::EmailChanged { .. } => false,
        }
    }
}

/// The id of the job for a cause: deterministic, and otherwise like a random id.
#[must_use]
pub fn order_id(cause: Uuid, kind: &str) -> Uuid {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"mail order v1");
    context.update(cause.as_bytes());
    context.update(kind.as_bytes());
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Seals and opens mail jobs, with a key derived for [`MAIL_KEY_PURPOSE`].
pub struct MailJobs {
    sealer: Sealer,
}

impl MailJobs {
    /// Uses the key of mail jobs.
    ///
    /// # Errors
    /// [`SealingError`] if the library rejects the key.
    pub fn new(key: impl Into<RotatingKey>) -> Result<Self, SealingError> {
        Ok(Self { sealer: Sealer::new(key)? })
    }

    /// The sealed message of a job.
    ///
    /// # Errors
    /// [`SealingError`].
    pub fn seal(&self, order: &MailJob) -> Result<Vec<u8>, SealingError> {
        let plain = serde_json::to_vec(order).map_err(|_| SealingError::Seal)?;
        let sealed = self.sealer.seal(order.id.as_bytes(), &plain)?;
        serde_json::to_vec(&sealed).map_err(|_| SealingError::Seal)
    }

    /// Opens the message of the job `id`.
    ///
    /// # Errors
    /// [`SealingError::Open`]: park it.
    pub fn open(&self, id: Uuid, message: &[u8]) -> Result<MailJob, SealingError> {
        let sealed: Sealed = serde_json::from_slice(message).map_err(|_| SealingError::Open)?;
        let plain = self.sealer.open(id.as_bytes(), &sealed)?;
        serde_json::from_slice(&plain).map_err(|_| SealingError::Open)
    }

    /// Whether the key that seals now opens the message of the job `id`.
    #[must_use]
    pub fn is_current(&self, id: Uuid, message: &[u8]) -> bool {
        serde_json::from_slice(message)
            .is_ok_and(|sealed| self.sealer.is_current(id.as_bytes(), &sealed))
    }

    /// Stores a job in the stream `MAILS`. [`Outcome::Conflict`] means that it is waiting already.
    pub async fn place(&self, mails: &EventLog, order: &MailJob) -> Outcome {
        let message = match self.seal(order) {
            Ok(message) => message,
            Err(error) => return Outcome::Refused(0, error.to_string()),
        };
        let subject = if order.mail.is_notice() {
            subjects::mail_notice(order.id)
        } else {
            subjects::mail_order(order.id)
        };
        let write = Write::new(subject, Guard::absent(), message);
        mails.append(&Append::new(CommandId::from_uuid(order.id), write)).await
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ambient;
    use crate::key_ring::Ring;
    use crate::keys::SecretKey;

    #[test]
    fn an_order_of_the_old_key_is_opened_during_a_rotation_and_not_after_it() {
        let old = SecretKey::generate().unwrap();
        let ring = Ring::parse(&old.to_base64(), Path::new("old")).unwrap();
        let ring = ring.with(SecretKey::generate().unwrap(), ambient::now());
        let [before, during, after] =
            [old.into(), RotatingKey::from(ring.clone()), ring.finished().into()]
                .map(|key| MailJobs::new(key).unwrap());
        let user = UserId::from_uuid(ambient::new_uuid());
        let mail = Mail::VerifyEmail { user };
        let order = MailJob { id: ambient::new_uuid(), ordered_at: ambient::now(), mail };
        let [old, new] = [&before, &during].map(|orders| orders.seal(&order).unwrap());
        for (message, is_current) in [(&old, false), (&new, true)] {
            assert!(during.open(order.id, message).is_ok());
            assert_eq!(during.is_current(order.id, message), is_current);
            assert_eq!(after.open(order.id, message).is_ok(), is_current);
        }
    }

    #[test]
    fn an_order_tells_nothing_until_it_is_opened() {
        let orders = MailJobs::new(SecretKey::generate().unwrap()).unwrap();
        let order = MailJob {
            id: ambient::new_uuid(),
            ordered_at: ambient::now(),
            mail: Mail::EmailChange {
                user: UserId::from_uuid(ambient::new_uuid()),
                new_email: "new@example.com".to_owned(),
                epoch: Some(Position(7)),
                session: Some(SessionId::from_uuid(ambient::new_uuid())),
            },
        };
        let message = orders.seal(&order).unwrap();
        let text = String::from_utf8(message.clone()).unwrap();
        assert!(!text.contains("example") && !text.contains("email_change"), "{text}");
        assert_eq!(orders.open(order.id, &message).unwrap(), order);
        assert_eq!(orders.open(ambient::new_uuid(), &message), Err(SealingError::Open));
    }
}
