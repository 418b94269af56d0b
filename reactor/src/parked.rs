//! Mails that were put aside: what the operator can do about them.

use events::{CommandId, Position, Timestamp, subjects};
use service_kit::event_log::{Append, EventLog, Guard, Outcome, ReadError, Write};
use service_kit::mail_jobs::MailJobs;
use uuid::Uuid;

/// A mail that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedMail {
    /// The id of its order.
    pub id: Uuid,
    /// When it was put aside.
    pub parked_at: Timestamp,
    /// Which kind of mail; `None` when it cannot be opened.
    pub kind: Option<&'static str>,
}

/// Nothing was done, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ParkedError {
    /// The log does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The order could not be placed.
    #[error("the order could not be placed: {0:?}")]
    Place(Outcome),
}

/// The mails that were put aside. Needs the operator's rights.
pub struct ParkedMails {
    mails: EventLog,
    orders: MailJobs,
}

impl ParkedMails {
    /// Looks into the stream `MAILS`.
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
            // Whoever put it aside is the order itself.
            let Some(id) = next.command_id.map(|id| *id.as_uuid()) else { continue };
            let kind = self.orders.open(id, &next.payload).ok().map(|order| order.mail.kind());
            parked.push(ParkedMail { id, parked_at: next.stored_at, kind });
        }
        Ok(parked)
    }

    /// Puts a mail back to be sent; `false` when it is not here. It has as much time again as at first.
    ///
    /// A mail whose link is void by now, since a newer one was ordered or it was used, is not sent.
    ///
    /// # Errors
    /// [`ParkedError`]. After [`ParkedError::Read`] it may be back already; again is as good as once.
    pub async fn retry(&self, id: Uuid) -> Result<bool, ParkedError> {
        let Some(parked) = self.mails.last(&subjects::parked_mail(id)).await? else {
            return Ok(false);
        };
        let write = Write::new(subjects::mail_order(id), Guard::absent(), parked.payload.clone());
        match self.mails.append(&Append::new(CommandId::from_uuid(id), write)).await {
            // It is waiting, put back just now or before.
            Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => {}
            failed @ (Outcome::Unknown
            | Outcome::Full
            | Outcome::Unavailable
            | Outcome::Refused(..)) => return Err(ParkedError::Place(failed)),
        }
        self.mails.erase(parked.position).await?;
        Ok(true)
    }

    /// Gives a mail up for good; `false` when it is not here.
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
