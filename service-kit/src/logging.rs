//! Logs on standard error, so that standard output stays for what a command answers.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, TelemetrySettings};

/// Starts logging; a second call does nothing. From then on a panic says where it was and not what it
/// said: its text can hold anything, a password included.
///
/// # Errors
/// The filter is not valid.
pub fn start(settings: &TelemetrySettings) -> Result<(), String> {
    let filter = filter(settings)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match settings.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panicked");
    }));
    Ok(())
}

/// Logs what production would refuse.
pub fn warn_insecure(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(warning, "the configuration is insecure; production would refuse it");
    }
}

/// Reads the filter.
///
/// # Errors
/// It is not valid. The text does not repeat it.
pub(crate) fn filter(settings: &TelemetrySettings) -> Result<EnvFilter, String> {
    EnvFilter::try_new(&settings.log)
        .map_err(|_| "telemetry.log is not a filter like \"info,async_nats=warn\"".to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::Settings;

    /// In a process of its own, since a hook is everybody's.
    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_text() {
        const SECRET: &str = "the password of somebody";
        #[expect(clippy::disallowed_methods, reason = "no setting: it tells the two runs apart")]
        if std::env::var("PANIC_HERE").is_ok() {
            start(&Settings::merge("", []).unwrap().telemetry).unwrap();
            panic!("{SECRET}");
        }
        let name = "logging::tests::a_panic_is_logged_with_its_place_and_without_its_text";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("PANIC_HERE", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(said.contains("panicked") && said.contains("logging.rs:"), "{said}");
        assert!(!said.contains(SECRET), "{said}");
    }
}
