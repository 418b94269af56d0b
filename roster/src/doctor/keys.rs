//! The application key on this host: whether a rotation is under way, and whether every service's folder has its part.

use service_kit::config::Settings;
use service_kit::key_ring::Ring;
use service_kit::keys::{APPLICATION_KEY_FILE, LOOKUP_KEYS_FILE};
use service_kit::lookup_keys::LookupKeys;
use service_kit::problem::chain;

use super::report::{Level, Report};
use crate::application_key::{is_handed_out, shown};

const AREA: &str = "application-key";

/// Looks at the folder of the operator, and at those of the services beside it.
pub fn look(settings: &Settings, report: &mut Report) {
    let dir = &settings.secrets.dir;
    if dir.as_os_str().is_empty() {
        return;
    }
    let read = Ring::read(&dir.join(APPLICATION_KEY_FILE))
        .and_then(|ring| LookupKeys::read(dir).map(|_| ring));
    let ring = match read {
        Ok(ring) => ring,
        Err(error) => {
            let advice = "check secrets.dir: it is the folder operator of what `roster init` made";
            return report.unknown(AREA, chain(&error), advice);
        }
    };
    if !dir.join(LOOKUP_KEYS_FILE).exists() {
        let finding =
            format!("{} is not there yet; it is derived when it is needed", LOOKUP_KEYS_FILE);
        report.point(
            AREA,
            Level::Warning,
            finding,
            "run `roster init` again, and bring its files to their services",
        );
    }
    if let Some(root) = dir.parent().filter(|root| root.join("command-api").is_dir())
        && !is_handed_out(root, &ring)
    {
        let finding = "command-api or reactor has another application key than the operator";
        report.point(
            AREA,
            Level::Fault,
            finding,
            "run `roster init` again, and bring its files to their services",
        );
    } else if ring.is_rotating() {
        let finding = format!("a rotation is under way; its new key seals from {}", shown(&ring));
        report.point(
            AREA,
            Level::Warning,
            finding,
            "end it with `roster keys rotate-application --finish`",
        );
    } else {
        report.ok(AREA, "one key is accepted");
    }
}
