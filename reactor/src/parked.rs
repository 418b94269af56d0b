//! Parked mails: the operator's actions.

use events::{CommandId, Position, Timestamp, subjects};
use service_kit::event_log::{Append, EventLog, Guard, Outcome, ReadError, Write};
use service_kit::mail_jobs::MailJobs;
use uuid::Uuid;

/// A parked mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedMail {
    /// The id of its job.
    pub id: Uuid,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// The kind of mail; `None` if it cannot be opened.
    pub kind: Option<&'static str>,
}

/// Nothing was changed, unless stated otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ParkedError {
    /// The log does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The job could not be stored.
    #[error("the mail job could not be stored: {0:?}")]
    Place(Outcome),
}

/// The parked mails. Needs the operator's permissions.
pub struct ParkedMails {
    mails: EventLog,
    orders: MailJobs,
}

impl ParkedMails {
    /// For the stream `MAILS`.
    #[must_use]
    pub const fn new(mails: EventLog, orders: MailJobs) -> Self {
        Self { mails, orders }
    }

    /// All of them, oldest first.
    ///
    /// # Errors
    /// [`ParkedError::Read`].
    pub async fn list(&self) -> Result<Vec<ParkedMail>, ParkedError> {
        let mut parked = Vec::new();
        let mut behind = Position::default();
        while let Some(next) = self.mails.next(subjects::PARKED_MAILS_FILTER, behind).await? {
            behind = next.position;
            // The command id is the id of the job.
            let Some(id) = next.command_id.map(|id| *id.as_uuid()) else { continue };
            let kind = self.orders.open(id, &next.payload).ok().map(|order| order.mail.kind());
            parked.push(ParkedMail { id, parked_at: next.stored_at, kind });
        }
        Ok(parked)
    }

    /// Queues a parked mail again; `false` if there is none with this id. It gets its full time again.
    ///
    /// A mail is not sent if its link is void by now, because a newer one was requested or it was used.
    ///
    /// # Errors
    /// [`ParkedError`]. After [`ParkedError::Read`] it may be queued already. Retrying is idempotent.
    pub async fn retry(&self, id: Uuid) -> Result<bool, ParkedError> {
        let Some(parked) = self.mails.last(&subjects::parked_mail(id)).await? else {
            return Ok(false);
        };
        let write = Write::new(subjects::mail_order(id), Guard::absent(), parked.payload.clone());
        match self.mails.append(&Append::new(CommandId::from_uuid(id), write)).await {
            // It is queued already.
            Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => {}
            failed @ (Outcome::Unknown
            | Outcome::Full
            | Outcome::Unavailable
            | Outcome::Refused(..)) => return Err(ParkedError::Place(failed)),
        }
        self.mails.erase(parked.position).await?;
        Ok(true)
    }

    /// Discards a parked mail; `false` if there is none with this id.
    ///
    /// # Errors
    /// [`ParkedError::Read`].
    pub async fn drop(&self, id: Uuid) -> Result<bool, ParkedError> {
        match self.mails.last(&subjects::parked_mail(id)).await? {
            None => Ok(false),
            Some(parked) => Ok(self.mails.erase(parked.position).await?),
        }
    }
}
