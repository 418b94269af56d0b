//! The wish for a mail: placed by who decides, carried out by the mailer of the reactor.
//!
//! An order waits in the stream `MAILS` until its mail is sent. It is sealed whole, since it may hold an
//! address; it never holds a link, which the mailer makes when it sends. Its id names the wish: the same
//! wish placed twice is one order as long as it waits, and one link however often it is carried out.

use aws_lc_rs::digest;
use events::{CommandId, Position, Revision, SessionId, Timestamp, UserId, subjects};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::event_log::{Append, EventLog, Guard, Outcome, Write};
use crate::key_ring::RotatingKey;
use crate::sealing::{Sealed, Sealer, SealingError};

/// What the application key derives the key of orders with.
pub const MAIL_KEY_PURPOSE: &str = "mail order v1";

/// One wish for a mail (for [`Mail::EmailChange`] two).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailJob {
    /// Names the wish.
    pub id: Uuid,
    /// When it was made; links count from the sending.
    pub ordered_at: Timestamp,
    /// Which mail to whom.
    pub mail: Mail,
}

/// Which mail to whom. The address is always looked up when the mail is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Mail {
    /// A link to choose a new password, to whoever holds the claim; nobody may. The key is that of the
    /// claim's subject, so that placing the order costs the same for every address.
    ResetPassword {
        /// `<key>` of `uq.email.<key>`.
        claim: String,
    },
    /// A link to choose the first password, or one that an administrator asked for.
    SetPassword {
        /// To whom.
        user: UserId,
    },
    /// A link to verify the address.
    VerifyEmail {
        /// To whom.
        user: UserId,
    },
    /// A notice with a link to abort to the present address, and then a link to confirm to the new one.
    EmailChange {
        /// Whose.
        user: UserId,
        /// The new address as given.
        new_email: String,
        /// Position of the last revocation that was known when the password was proved: once there is a later
        /// one, nobody gets the mails. Orders that older versions placed have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<Position>,
        /// The session that asked: once it is ended, nobody confirms the change. Orders that older versions placed have
        /// none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
    },
    /// The notice that the password was changed.
    PasswordChanged {
        /// To whom.
        user: UserId,
    },
    /// The notice to a user that somebody tried to register with their address.
    AddressTaken {
        /// `<key>` of `uq.email.<key>`.
        claim: String,
    },
    /// The notice to the address that a user had, with a link to take it back.
    EmailChanged {
        /// Whose.
        user: UserId,
        /// The address from before, as given.
        old_email: String,
        /// Revision of the change.
        revision: Revision,
    },
    /// The notice that somebody logged in from a new device; placed at every login, since only the mailer looks.
    LoggedIn {
        /// Who.
        user: UserId,
        /// By which session.
        session: SessionId,
    },
    /// The notice that the roles are others.
    RolesChanged {
        /// To whom.
        user: UserId,
    },
    /// The notice that the account was disabled.
    Disabled {
        /// To whom.
        user: UserId,
    },
    /// The notice that the account was enabled again.
    Enabled {
        /// To whom.
        user: UserId,
    },
    /// The notice that the account was made, as an administrator's.
    Administrator {
        /// To whom.
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

    /// Whether nobody waits for it: it only says that something happened.
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
            // It carries the way back: it must not wait behind others.
            | Self::EmailChanged { .. } => false,
        }
    }
}

/// The id of the order that a cause leads to: the same each time, and as good as random otherwise.
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

/// Seals and opens orders, with a key derived for [`MAIL_KEY_PURPOSE`].
pub struct MailJobs {
    sealer: Sealer,
}

impl MailJobs {
    /// Uses the key of orders.
    ///
    /// # Errors
    /// [`SealingError`] when the library refuses the key.
    pub fn new(key: impl Into<RotatingKey>) -> Result<Self, SealingError> {
        Ok(Self { sealer: Sealer::new(key)? })
    }

    /// The message of an order.
    ///
    /// # Errors
    /// [`SealingError`].
    pub fn seal(&self, order: &MailJob) -> Result<Vec<u8>, SealingError> {
        let plain = serde_json::to_vec(order).map_err(|_| SealingError::Seal)?;
        let sealed = self.sealer.seal(order.id.as_bytes(), &plain)?;
        serde_json::to_vec(&sealed).map_err(|_| SealingError::Seal)
    }

    /// The order `id` in a message.
    ///
    /// # Errors
    /// [`SealingError::Open`]: park it.
    pub fn open(&self, id: Uuid, message: &[u8]) -> Result<MailJob, SealingError> {
        let sealed: Sealed = serde_json::from_slice(message).map_err(|_| SealingError::Open)?;
        let plain = self.sealer.open(id.as_bytes(), &sealed)?;
        serde_json::from_slice(&plain).map_err(|_| SealingError::Open)
    }

    /// Whether the key that seals now opens the order `id` in a message.
    #[must_use]
    pub fn is_current(&self, id: Uuid, message: &[u8]) -> bool {
        serde_json::from_slice(message)
            .is_ok_and(|sealed| self.sealer.is_current(id.as_bytes(), &sealed))
    }

    /// Places an order in the stream `MAILS`. [`Outcome::Conflict`] means that it is waiting already.
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
