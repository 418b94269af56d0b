//! What watches a service: its metrics, and its spans where an operator wants them.

use crate::config::TelemetrySettings;
use crate::metrics::Metrics;
use crate::trace::{TraceError, Tracer};

/// The watch over one service. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    /// Its metrics.
    pub metrics: Metrics,
    /// Its spans.
    pub tracer: Tracer,
}

impl Telemetry {
    /// Over the service of a process, or over a process of several.
    ///
    /// # Errors
    /// [`TraceError`]: the receiver of spans cannot be used.
    pub fn start(settings: &TelemetrySettings, service: &'static str) -> Result<Self, TraceError> {
        Self::over(settings, service, Metrics::new(service))
    }

    /// Over a further service of the same process.
    ///
    /// # Errors
    /// [`TraceError`]: the receiver of spans cannot be used.
    pub fn of(
        &self,
        settings: &TelemetrySettings,
        service: &'static str,
    ) -> Result<Self, TraceError> {
        Self::over(settings, service, self.metrics.of(service))
    }

    fn over(
        settings: &TelemetrySettings,
        service: &'static str,
        metrics: Metrics,
    ) -> Result<Self, TraceError> {
        let tracer = Tracer::start(settings, service, &metrics)?;
        Ok(Self { metrics, tracer })
    }
}
