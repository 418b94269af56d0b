//! The queue of mail jobs: the stream that the mailer processes.

use async_trait::async_trait;
use service_kit::ambient;
use service_kit::commands::Appended;
use service_kit::event_log::EventLog;
use service_kit::mail_jobs::{Mail, MailJob, MailJobs};

use crate::ports::MailQueue;

/// The queue in NATS.
pub struct NatsMailQueue {
    mails: EventLog,
    jobs: MailJobs,
}

impl NatsMailQueue {
    /// Uses a verified stream.
    pub const fn new(mails: EventLog, jobs: MailJobs) -> Self {
        Self { mails, jobs }
    }
}

#[async_trait]
impl MailQueue for NatsMailQueue {
    fn has_headroom(&self) -> bool {
        self.mails.has_headroom()
    }

    async fn enqueue(&self, mail: Mail) -> Appended {
        let job = MailJob { id: ambient::new_uuid(), ordered_at: ambient::now(), mail };
        self.jobs.place(&self.mails, &job).await.into()
    }
}
