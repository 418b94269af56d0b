//! The names and settings of this service.

use std::path::Path;

use events::ServiceNames;
use serde::Deserialize;
use service_kit::config::{Checked, ConfigError, Examined, ServiceSettings};
use view_kit::{ServiceProcess, service_preflight};

/// The two words from which all names are derived: streams, subjects, NATS user, environment variables, database.
pub const NAMES: ServiceNames = ServiceNames::fixed("product", "products");
/// The name of the process in logs, metrics and NATS.
pub const SERVICE: &str = "product-service";
/// The stream of the event log.
pub const LOG_STREAM: &str = "PRODUCTS";
/// The stream of the feed.
pub const FEED_STREAM: &str = "PRODUCT_EVENTS";

/// The documented defaults of this service's own settings.
const DEFAULTS: &str = include_str!("../defaults.toml");

/// The common settings of peer services, and those of products.
#[derive(Debug, Clone, Deserialize)]
pub struct Settings {
    #[serde(flatten)]
    pub service: ServiceSettings,
    pub products: ProductSettings,
}

/// `[products]`
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProductSettings {
    pub price_max: u64,
    pub second_look_s: u64,
}

/// Settings that a process can start with.
pub struct Loaded {
    pub settings: Settings,
    /// Insecure settings that production would reject.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads the defaults, the file and the environment of the process.
    ///
    /// # Errors
    /// [`ConfigError`] lists every mistake.
    pub fn load(file: Option<&Path>, process: ServiceProcess) -> Result<Loaded, ConfigError> {
        let examined = ServiceSettings::examine::<Self>(&NAMES, DEFAULTS, file)?;
        let Examined { settings, faults, .. } = examined;
        let warnings = service_preflight(&settings.service, process, faults)?;
        Ok(Loaded { settings, warnings })
    }
}

impl Checked for Settings {
    fn check(&self, faults: &mut Vec<String>) {
        self.service.check(faults);
        let mut bound = |key: &str, value: u64, high: u64| {
            if !(1..=high).contains(&value) {
                faults.push(format!("{key} is {value} and must be in 1..{high}"));
            }
        };
        bound("products.price_max", self.products.price_max, 1_000_000_000_000);
        bound("products.second_look_s", self.products.second_look_s, 3_600);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_derive_from_the_same_words() {
        assert_eq!(NAMES.service(), SERVICE);
        assert_eq!(NAMES.log_stream(), LOG_STREAM);
        assert_eq!(NAMES.feed_stream(), FEED_STREAM);
        let manifest: toml::Table = include_str!("../service.toml").parse().unwrap();
        assert_eq!(manifest["name"].as_str(), Some(NAMES.singular()));
        assert_eq!(manifest["plural"].as_str(), Some(NAMES.plural()));
    }
}
