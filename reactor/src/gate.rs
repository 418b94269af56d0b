//! The gate that every mail passes: counted by address and kind of mail in the bucket `THROTTLE_COUNTS`, over all
//! reactors.
//!
//! A mail can only be handed over with a [`Permit`], and only the gate makes permits: there is no way around it,
//! whoever asked for the mail. Keys are keyed hashes; no address is in the bucket.
//!
//! Nothing is let through when the bucket does not answer: the mail is tried again later.

use std::time::Duration;

use events::{CommandId, EmailAddress, Timestamp};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    Append, EventLog, Outcome, ReadError, THROTTLE_COUNTS_SUBJECT_PREFIX, Top, Write,
};
use service_kit::keys::SecretKey;
use uuid::Uuid;

use crate::quota::{Candidate, Overflow, Quota, Sent, Verdict};

/// Changes of one record that may be lost to other reactors before a mail is put off.
const CHANGES_MAX: usize = 16;
/// Before the keyed hash in the subject of a record; the reactor may write nothing else in the bucket.
const SUBJECT_KIND: &str = "sent";

/// What a mail is, as far as its cap is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MailKind {
    ResetPassword,
    SetPassword,
    VerifyEmail,
    ConfirmEmail,
    EmailWillChange,
    PasswordChanged,
    AddressTaken,
    EmailChanged,
    NewDevice,
    RolesChanged,
    Disabled,
    Enabled,
    Administrator,
}

impl MailKind {
    /// The name in the key of its records.
    const fn as_str(self) -> &'static str {
        match self {
            Self::ResetPassword => "reset_password",
            Self::SetPassword => "set_password",
            Self::VerifyEmail => "verify_email",
            Self::ConfirmEmail => "confirm_email",
            Self::EmailWillChange => "email_will_change",
            Self::PasswordChanged => "password_changed",
            Self::AddressTaken => "address_taken",
            Self::EmailChanged => "email_changed",
            Self::NewDevice => "new_device",
            Self::RolesChanged => "roles_changed",
            Self::Disabled => "disabled",
            Self::Enabled => "enabled",
            Self::Administrator => "administrator",
        }
    }

    /// Whether it only says that something happened. Such a mail goes to verified addresses alone, and one stands
    /// for several.
    pub(crate) const fn is_notice(self) -> bool {
        match self {
            Self::PasswordChanged
            | Self::NewDevice
            | Self::RolesChanged
            | Self::Disabled
            | Self::Enabled
            | Self::Administrator => true,
            Self::ResetPassword
            | Self::SetPassword
            | Self::VerifyEmail
            | Self::ConfirmEmail
            | Self::EmailWillChange
            | Self::AddressTaken
            | Self::EmailChanged => false,
        }
    }
}

/// The permission to hand one mail over, to one address.
#[derive(Debug)]
pub(crate) struct Permit {
    to: EmailAddress,
    repeat: Option<Uuid>,
}

impl Permit {
    /// Whom the mail may go to.
    pub(crate) const fn to(&self) -> &EmailAddress {
        &self.to
    }

    /// The serial of the link to mail once more, instead of a new one.
    pub(crate) const fn repeat(&self) -> Option<Uuid> {
        self.repeat
    }
}

/// What the gate says about a mail.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It may be handed over.
    Go(Permit),
    /// Not before this time has passed.
    Later(Duration),
    /// Not at all: the address got enough of its kind.
    Never,
}

/// Nobody knows whether a mail may go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GateError {
    #[error("the counts of mails cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("a count of mails is not readable")]
    Unreadable,
    #[error("a count of mails cannot be written: {0:?}")]
    Write(Outcome),
}

/// Counts mails.
pub(crate) struct Gate {
    bucket: EventLog,
    key: SecretKey,
    is_enabled: bool,
    links: Quota,
    /// For the link to an old address, of which none stands for another and none may be lost.
    ways_back: Quota,
    notices: Quota,
}

impl Gate {
    /// Uses the verified bucket, with a key for this purpose alone.
    pub(crate) fn new(bucket: EventLog, key: SecretKey, settings: &Settings) -> Self {
        let (throttle, mail) = (&settings.throttle, &settings.mail);
        let window_ms = throttle.mails_window_s.saturating_mul(1_000);
        let burst = throttle.mails_max;
        let links = Quota {
            burst,
            interval_ms: window_ms.checked_div(burst.into()).unwrap_or(window_ms),
            overflow: Overflow::Drop,
        };
        Self {
            bucket,
            key,
            is_enabled: throttle.enabled,
            links,
            ways_back: Quota { overflow: Overflow::Wait, ..links },
            notices: Quota {
                burst: 1,
                interval_ms: mail.notice_interval_s.saturating_mul(1_000),
                overflow: Overflow::Coalesce,
            },
        }
    }

    /// Asks for a permit and counts the mail.
    pub(crate) async fn admit(
        &self,
        kind: MailKind,
        to: &EmailAddress,
        mail: &Candidate,
        now: Timestamp,
    ) -> Result<Admission, GateError> {
        let go = |repeat| Admission::Go(Permit { to: to.clone(), repeat });
        if !self.is_enabled {
            return Ok(go(None));
        }
        let quota = if kind.is_notice() {
            &self.notices
        } else if kind == MailKind::EmailChanged {
            &self.ways_back
        } else {
            &self.links
        };
        let subject = self.subject(kind, to);
        Ok(match self.count(&subject, mail, millis(now), quota).await? {
            Verdict::Send { repeat } => go(repeat),
            Verdict::Later(wait_ms) => Admission::Later(Duration::from_millis(wait_ms)),
            Verdict::Never => Admission::Never,
        })
    }

    fn subject(&self, kind: MailKind, to: &EmailAddress) -> String {
        let mac = self.key.mac_hex(&[kind.as_str().as_bytes(), to.canonical().as_bytes()]);
        format!("{THROTTLE_COUNTS_SUBJECT_PREFIX}{SUBJECT_KIND}.{mac}")
    }

    async fn count(
        &self,
        subject: &str,
        mail: &Candidate,
        now_ms: u64,
        quota: &Quota,
    ) -> Result<Verdict, GateError> {
        let mut outcome = Outcome::Conflict;
        for _ in 0..CHANGES_MAX {
            let Top { last, guard } = self.bucket.top(subject).await?;
            let before = match &last {
                None => Sent::default(),
                Some(stored) => {
                    serde_json::from_slice(&stored.payload).map_err(|_| GateError::Unreadable)?
                }
            };
            let mut sent = before.clone();
            let verdict = sent.admit(mail, now_ms, quota);
            if sent == before {
                return Ok(verdict);
            }
            let payload = serde_json::to_vec(&sent).map_err(|_| GateError::Unreadable)?;
            let life = Duration::from_millis(sent.life_ms(now_ms, quota));
            // The server counts the life of a message in whole seconds.
            let life = Duration::from_secs(life.as_secs().saturating_add(1));
            let write = Write::new(subject.to_owned(), guard, payload).expiring_after(life);
            let command = CommandId::from_uuid(ambient::new_uuid());
            outcome = self.bucket.append(&Append::new(command, write)).await;
            match outcome {
                Outcome::Stored(_) => return Ok(verdict),
                Outcome::Conflict | Outcome::Duplicate => {}
                Outcome::Unknown | Outcome::Full | Outcome::Unavailable | Outcome::Refused(..) => {
                    break;
                }
            }
        }
        Err(GateError::Write(outcome))
    }
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_datetime().timestamp_millis()).unwrap_or(0)
}
