//! Spans of traces.

use prometheus_client::metrics::counter::Counter;

use crate::metrics::Metrics;

impl Metrics {
    /// Watches the spans of traces.
    #[must_use]
    pub fn spans(&self) -> SpanMetrics {
        let spans =
            |outcome: &'static str| self.table().spans.with([self.service(), outcome.into()]);
        SpanMetrics { begun: spans("begun"), sent: spans("sent"), lost: spans("lost") }
    }
}

/// Of the spans of traces.
#[derive(Debug, Clone)]
pub struct SpanMetrics {
    begun: Counter,
    sent: Counter,
    lost: Counter,
}

impl SpanMetrics {
    /// One is recorded.
    pub fn begun(&self) {
        self.begun.inc();
    }

    /// Some were taken by the receiver.
    pub fn sent(&self, spans: u64) {
        self.sent.inc_by(spans);
    }

    /// Some could not be sent.
    pub fn lost(&self, spans: u64) {
        self.lost.inc_by(spans);
    }
}
