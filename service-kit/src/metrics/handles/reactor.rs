//! Mails and erasures.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::seconds;
use crate::metrics::{Level, Metrics};

impl Metrics {
    /// Watches the mailer.
    #[must_use]
    pub fn mails(&self) -> MailMetrics {
        let mails =
            |outcome: &'static str| self.table().mails.with([self.service(), outcome.into()]);
        MailMetrics {
            sent: mails("sent"),
            nak: mails("nak"),
            parked: mails("parked"),
            failed: mails("failed"),
            capped: mails("capped"),
        }
    }

    /// Watches the eraser of these streams.
    #[must_use]
    pub fn erasures(&self, streams: [&'static str; 5]) -> ErasureMetrics {
        let table = self.table();
        let erasures = |kind: &'static str| table.erasures.with([self.service(), kind.into()]);
        ErasureMetrics {
            users: erasures("user"),
            credentials: erasures("credential"),
            messages: streams.map(|stream| {
                (stream, table.erased_messages.with([self.service(), stream.into()]))
            }),
            oldest: table.erasure_oldest.with([self.service()]),
        }
    }
}

/// Of the mailer.
#[derive(Clone)]
pub struct MailMetrics {
    sent: Counter,
    nak: Counter,
    parked: Counter,
    failed: Counter,
    capped: Counter,
}

impl MailMetrics {
    /// A mail was handed over.
    pub fn sent(&self) {
        self.sent.inc();
    }

    /// An order is tried again later.
    pub fn nak(&self) {
        self.nak.inc();
    }

    /// An order was put aside.
    pub fn parked(&self) {
        self.parked.inc();
    }

    /// An order could not even be put aside, and is tried again later.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// A mail is not sent, since its address got enough of its kind.
    pub fn capped(&self) {
        self.capped.inc();
    }
}

/// Of the eraser.
#[derive(Clone)]
pub struct ErasureMetrics {
    users: Counter,
    credentials: Counter,
    messages: [(&'static str, Counter); 5],
    oldest: Level,
}

impl ErasureMetrics {
    /// A deleted user is erased.
    pub fn user_erased(&self) {
        self.users.inc();
    }

    /// What was before a credential is erased.
    pub fn credential_erased(&self) {
        self.credentials.inc();
    }

    /// A message of a stream is erased.
    pub fn message_erased(&self, stream: &str) {
        for (_, count) in self.messages.iter().filter(|(name, _)| *name == stream) {
            count.inc();
        }
    }

    /// How long the oldest has waited that is not done.
    pub fn oldest(&self, age: Duration) {
        self.oldest.set(seconds(age));
    }
}
