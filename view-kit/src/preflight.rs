//! Finds what would stop a peer service at its start, without connecting to anything.

use service_kit::config::ServiceSettings;
use service_kit::keys::SERVICE_KEY_FILE;
use service_kit::preflight::Preflight;

use crate::database::database_target;

/// What a process of a peer service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceProcess {
    /// Creates the streams, as the operator.
    Provision,
    /// Serves requests, and keeps views and feed up to date.
    Serve,
    /// Reads the log or the feed.
    Read,
}

/// Checks the settings that all services have. `faults` were found before. Returns warnings if nothing is wrong.
///
/// # Errors
/// Everything that is wrong.
pub fn service_preflight(
    settings: &ServiceSettings,
    process: ServiceProcess,
    faults: Vec<String>,
) -> Result<Vec<String>, Vec<String>> {
    let mut preflight = Preflight::new(settings.deployment, &settings.allow_plain, faults)
        .allow_group_read(settings.secrets.allow_group_read);
    preflight.telemetry(&settings.telemetry);
    preflight.nats(&settings.nats);
    match process {
        ServiceProcess::Provision => {
            if settings.log.replicas == 1 && !settings.log.allow_single_replica {
                preflight.insecure("log.replicas is 1 and log.allow_single_replica is false");
            }
        }
        ServiceProcess::Serve => {
            match database_target(&settings.mongodb.url) {
                Ok(target) => preflight.mongodb(&settings.mongodb, &target),
                Err(error) => preflight.fault(error.to_string()),
            }
            if preflight.secrets_dir(&settings.secrets.dir) {
                preflight.key(&settings.secrets.dir.join(SERVICE_KEY_FILE));
            }
        }
        ServiceProcess::Read => {}
    }
    preflight.end()
}
