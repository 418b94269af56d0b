//! `service.toml`: what a folder says about the service in it.

use std::fs;
use std::path::Path;

use anyhow::Context;
use events::ServiceNames;
use serde::Deserialize;

/// The file in the folder of a service.
const MANIFEST_FILE: &str = "service.toml";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    name: String,
    plural: String,
}

/// The names of the service in a folder.
pub fn read(dir: &Path) -> anyhow::Result<ServiceNames> {
    let path = dir.join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).with_context(|| {
        format!("{} is no folder of a service: cannot read {MANIFEST_FILE}", dir.display())
    })?;
    names(&text).with_context(|| format!("{} is wrong", path.display()))
}

fn names(text: &str) -> anyhow::Result<ServiceNames> {
    let Manifest { name, plural } = toml::from_str(text)?;
    ServiceNames::parse(&name, &plural).with_context(|| format!("{name}, {plural}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_has_two_names_and_nothing_else() {
        let good = names("name = \"product\"\nplural = \"products\"\n").unwrap();
        assert_eq!(good, ServiceNames::fixed("product", "products"));
        for (text, part) in [
            ("name = \"product\"", "plural"),
            ("name = \"product\"\nplural = \"products\"\ncolour = \"red\"", "colour"),
            ("name = \"user\"\nplural = \"products\"", "taken"),
            ("name = \"Product\"\nplural = \"products\"", "lower case"),
        ] {
            let error = format!("{:#}", names(text).unwrap_err());
            assert!(error.contains(part), "{part} in {error}");
        }
    }
}
