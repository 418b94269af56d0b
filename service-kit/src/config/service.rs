//! The settings of a service beside Roster's own.

use std::path::{Path, PathBuf};

use events::ServiceNames;
use serde::Deserialize;

use super::checks::{bound, check_allow_plain, check_replicas};
use super::{
    Checked, ConfigError, Deployment, Examined, Http, MongoDb, Nats, Revocations, Source,
    TelemetrySettings,
};

/// The documented defaults of what every service has. A service's own follow behind them.
pub const SERVICE_DEFAULTS: &str = include_str!("../../service-defaults.toml");

/// What every service has; see `service-defaults.toml` for each. A service with settings of its own has this in
/// its own, flattened.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceSettings {
    /// What this runs for.
    pub deployment: Deployment,
    /// Connections that may go without TLS in production.
    pub allow_plain: String,
    /// Listeners.
    pub http: Http,
    /// The connection to NATS.
    pub nats: Nats,
    /// Log and feed.
    pub log: ServiceLog,
    /// The database of the views.
    pub mongodb: MongoDb,
    /// Keys.
    pub secrets: ServiceSecrets,
    /// Roster's access tokens.
    pub tokens: ServiceTokens,
    /// The feed of what ended.
    pub revocations: Revocations,
    /// Read your writes.
    pub views: ServiceViews,
    /// Views and feed.
    pub projector: ServiceProjector,
    /// Logs.
    pub telemetry: TelemetrySettings,
}
section! {
    /// `[log]`
    ServiceLog {
        /// Copies of the streams.
        replicas: u8,
        /// Whether one copy is enough in production.
        allow_single_replica: bool,
        /// Bound of the log in bytes.
        bytes_max: u64,
        /// Bound of the feed in bytes.
        feed_bytes_max: u64,
        /// An append with its retries, in milliseconds.
        append_deadline_ms: u64,
    }
}
section! {
    /// `[secrets]`
    ServiceSecrets {
        /// Folder with this service's key.
        dir: PathBuf,
        /// Whether the group of a secret's file may read it.
        allow_group_read: bool,
    }
}
section! {
    /// `[tokens]`
    ServiceTokens {
        /// `iss`.
        issuer: String,
        /// `aud`.
        audience: String,
        /// Where the keys are.
        jwks_url: String,
        /// Certificate authority of that; empty for those that are built in.
        ca_file: PathBuf,
    }
}
section! {
    /// `[views]`
    ServiceViews {
        /// Wait of a command's answer, in milliseconds.
        command_wait_ms: u64,
        /// Wait of a query, in milliseconds.
        query_wait_ms: u64,
        /// Work of the database on one page of a list, in milliseconds.
        list_work_ms: u64,
        /// Largest total that is counted.
        list_total_max: u64,
    }
}
section! {
    /// `[projector]`
    ServiceProjector {
        /// Events per write to the database.
        batch_events_max: usize,
        /// Oldest event that views or feed may lack, in milliseconds.
        lag_max_ms: u64,
        /// Aggregates that may be parked.
        parked_max: usize,
    }
}

impl ServiceSettings {
    /// Reads the settings of a service: the common ones, and its own, whose documented defaults are `own`.
    ///
    /// # Errors
    /// [`ConfigError`] with every fault.
    pub fn load<T: Checked>(
        names: &ServiceNames,
        own: &str,
        file: Option<&Path>,
    ) -> Result<T, ConfigError> {
        let (defaults, prefix) = (format!("{SERVICE_DEFAULTS}\n{own}"), names.variable_prefix());
        Source { defaults: &defaults, prefix: &prefix, others: &[] }.load(file)
    }

    /// The same, with faults beside the settings.
    ///
    /// # Errors
    /// [`ConfigError`]: no settings can be made at all.
    pub fn examine<T: Checked>(
        names: &ServiceNames,
        own: &str,
        file: Option<&Path>,
    ) -> Result<Examined<T>, ConfigError> {
        let (defaults, prefix) = (format!("{SERVICE_DEFAULTS}\n{own}"), names.variable_prefix());
        Source { defaults: &defaults, prefix: &prefix, others: &[] }.read(file)
    }

    /// Bounds of the common ones.
    pub fn check(&self, faults: &mut Vec<String>) {
        let mut bound = |key: &str, value, low, high| bound(faults, key, value, low, high);
        let bytes = (1 << 20, i64::MAX.unsigned_abs());
        bound("nats.request_timeout_ms", self.nats.request_timeout_ms, 100, 60_000);
        bound("nats.start_wait_s", self.nats.start_wait_s, 0, 3_600);
        bound("log.bytes_max", self.log.bytes_max, bytes.0, bytes.1);
        bound("log.feed_bytes_max", self.log.feed_bytes_max, bytes.0, bytes.1);
        bound("log.append_deadline_ms", self.log.append_deadline_ms, 500, 60_000);
        bound("mongodb.operation_timeout_ms", self.mongodb.operation_timeout_ms, 100, 60_000);
        bound("revocations.silence_max_ms", self.revocations.silence_max_ms, 3_000, 60_000);
        bound("views.command_wait_ms", self.views.command_wait_ms, 0, 10_000);
        bound("views.query_wait_ms", self.views.query_wait_ms, 0, 30_000);
        bound("views.list_work_ms", self.views.list_work_ms, 1, 60_000);
        bound("views.list_total_max", self.views.list_total_max, 0, 100_000_000);
        bound("projector.batch_events_max", self.projector.batch_events_max as u64, 1, 10_000);
        bound("projector.lag_max_ms", self.projector.lag_max_ms, 1_000, 3_600_000);
        bound("projector.parked_max", self.projector.parked_max as u64, 0, 100);
        check_replicas(self.log.replicas, faults);
        check_allow_plain(&self.allow_plain, faults);
        self.http.check(faults);
        if !self.mongodb.database.is_empty() {
            self.mongodb.check(faults);
        }
        self.telemetry.check(faults);
        for (key, text) in [
            ("tokens.issuer", &self.tokens.issuer),
            ("tokens.audience", &self.tokens.audience),
            ("tokens.jwks_url", &self.tokens.jwks_url),
        ] {
            if text.is_empty() {
                faults.push(format!("{key} must not be empty"));
            }
        }
    }

    /// The database of the views.
    #[must_use]
    pub fn database(&self, names: &ServiceNames) -> String {
        match self.mongodb.database.as_str() {
            "" => names.database().to_owned(),
            given => given.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: ServiceNames = ServiceNames::fixed("parcel", "parcels");
    const OWN: &str = "[parcels]\n# Heaviest parcel in grams.\nweight_max_g = 30000\n";

    #[derive(Debug, Deserialize)]
    struct Parcels {
        weight_max_g: u64,
    }

    #[derive(Debug, Deserialize)]
    struct Settings {
        #[serde(flatten)]
        service: ServiceSettings,
        parcels: Parcels,
    }

    impl Checked for Settings {
        fn check(&self, faults: &mut Vec<String>) {
            self.service.check(faults);
            if self.parcels.weight_max_g == 0 {
                faults.push("parcels.weight_max_g must not be 0".to_owned());
            }
        }
    }

    fn merge(file: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let defaults = format!("{SERVICE_DEFAULTS}\n{OWN}");
        let prefix = NAMES.variable_prefix();
        let source = Source { defaults: &defaults, prefix: &prefix, others: &[] };
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        source.merge(file, variables.iter().map(owned))
    }

    #[test]
    fn a_service_has_the_common_settings_and_its_own() {
        let settings = merge("[parcels]\nweight_max_g = 5\n", &[("PARCEL_NATS_URL", "nats://a:1")]);
        let settings = settings.unwrap();
        assert_eq!(settings.service.nats.url, "nats://a:1");
        assert_eq!(settings.service.database(&NAMES), "parcel");
        assert_eq!(settings.parcels.weight_max_g, 5);
        let named = merge("[mongodb]\ndatabase = 'other'\n", &[]).unwrap();
        assert_eq!(named.service.database(&NAMES), "other");
    }

    #[test]
    fn the_faults_of_both_are_reported_together() {
        let given = [
            ("PARCEL_NATS_URLL", "x"),
            ("PARCEL_LOG_REPLICAS", "2"),
            ("PARCEL_PARCELS_WEIGHT_MAX_G", "0"),
            ("PARCEL_TOKENS_JWKS_URL", ""),
            ("PARCEL_MONGODB_DATABASE", "a.b"),
        ];
        let text = merge("[parcel]\na = 1\n", &given).unwrap_err().to_string();
        for part in [
            "unknown variable PARCEL_NATS_URLL",
            "unknown key parcel",
            "log.replicas is 2",
            "parcels.weight_max_g must not be 0",
            "tokens.jwks_url must not be empty",
            "mongodb.database must be",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn every_default_is_documented() {
        let lines: Vec<&str> = SERVICE_DEFAULTS.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            if line.contains(" = ") && !line.starts_with('#') {
                let before = lines.get(n.wrapping_sub(1)).unwrap();
                assert!(before.starts_with('#') || before.contains(" = "), "{line}");
            }
        }
    }
}
