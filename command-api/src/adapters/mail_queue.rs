//! Asking for mails: orders in the stream that the mailer works off.

use async_trait::async_trait;
use service_kit::ambient;
use service_kit::commands::Appended;
use service_kit::event_log::EventLog;
use service_kit::mail_jobs::{Mail, MailJob, MailJobs};

use crate::ports::MailQueue;

/// The real desk.
pub struct NatsMailQueue {
    mails: EventLog,
    orders: MailJobs,
}

impl NatsMailQueue {
    /// Uses a verified stream.
    pub const fn new(mails: EventLog, orders: MailJobs) -> Self {
        Self { mails, orders }
    }
}

#[async_trait]
impl MailQueue for NatsMailQueue {
    fn has_headroom(&self) -> bool {
        self.mails.has_headroom()
    }

    async fn order(&self, mail: Mail) -> Appended {
        let order = MailJob { id: ambient::new_uuid(), ordered_at: ambient::now(), mail };
        self.orders.place(&self.mails, &order).await.into()
    }
}
