//! The telemetry of a service: its metrics, and its spans if they are exported.

use crate::config::TelemetrySettings;
use crate::metrics::Metrics;
use crate::trace::{TraceError, Tracer};

/// The telemetry of one service. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    /// Its metrics.
    pub metrics: Metrics,
    /// Its spans.
    pub tracer: Tracer,
}

impl Telemetry {
    /// For the service of a process, or for a process with several services.
    ///
    /// # Errors
    /// [`TraceError`]: spans cannot be exported.
    pub fn start(settings: &TelemetrySettings, service: &'static str) -> Result<Self, TraceError> {
        Self::over(settings, service, Metrics::new(service))
    }

    /// For one more service of the same process.
    ///
    /// # Errors
    /// [`TraceError`]: spans cannot be exported.
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
