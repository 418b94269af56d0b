//! Logs on standard error, so that standard output stays for what a command answers.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, Telemetry};

/// Starts logging; a second call does nothing.
///
/// # Errors
/// The filter is not valid; the text says where.
pub fn start(settings: &Telemetry) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| format!("telemetry.log: {e}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}
