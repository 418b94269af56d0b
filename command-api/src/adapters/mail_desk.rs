//! Asking for mails: orders in the stream that the mailer works off.

use async_trait::async_trait;
use service_kit::ambient;
use service_kit::commands::Appended;
use service_kit::event_log::EventLog;
use service_kit::mail_orders::{Mail, MailOrder, MailOrders};

use crate::ports::MailDesk;

/// The real desk.
pub struct NatsMailDesk {
    mails: EventLog,
    orders: MailOrders,
}

impl NatsMailDesk {
    /// Uses a verified stream.
    pub const fn new(mails: EventLog, orders: MailOrders) -> Self {
        Self { mails, orders }
    }
}

#[async_trait]
impl MailDesk for NatsMailDesk {
    fn has_headroom(&self) -> bool {
        self.mails.has_headroom()
    }

    async fn order(&self, mail: Mail) -> Appended {
        let order = MailOrder { id: ambient::new_uuid(), ordered_at: ambient::now(), mail };
        self.orders.place(&self.mails, &order).await.into()
    }
}
