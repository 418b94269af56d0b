//! The lists of the repository that a further service has to stand in.

use anyhow::Context;
use events::ServiceNames;

/// The manifest of the workspace with a further member.
pub fn workspace(manifest: &str, names: &ServiceNames) -> anyhow::Result<String> {
    let after = "    \"examples/product-service\",\n";
    insert(manifest, after, &format!("    \"{}\",\n", names.service())).context("Cargo.toml")
}

/// The check of the layers with a further crate, which may know what the template may.
pub fn layers(script: &str, names: &ServiceNames) -> anyhow::Result<String> {
    let template = "    [examples/product-service]=";
    let line = script.lines().find(|line| line.starts_with(template));
    let line = line.context(".ci/check-layers does not know the template")?;
    let own = line.replace("examples/product-service", &names.service());
    insert(script, &format!("{line}\n"), &format!("{own}\n")).context(".ci/check-layers")
}

fn insert(text: &str, after: &str, what: &str) -> anyhow::Result<String> {
    let at = text.find(after).context("the line of the template is not there")? + after.len();
    let (before, behind) = text.split_at(at);
    anyhow::ensure!(!text.contains(what), "it is in there already");
    Ok(format!("{before}{what}{behind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_stands_in_each_list_once() {
        let names = ServiceNames::parse("order", "orders").unwrap();
        let manifest = "members = [\n    \"examples/product-service\",\n    \"xtask\",\n]\n";
        let added = workspace(manifest, &names).unwrap();
        assert!(added.contains("    \"order-service\",\n"), "{added}");
        assert!(workspace(&added, &names).is_err());
        let script = "    [examples/product-service]=\"events\"\n    [tests]=\"\"\n";
        let added = layers(script, &names).unwrap();
        assert!(added.contains("    [order-service]=\"events\"\n"), "{added}");
        assert!(layers("", &names).is_err());
    }
}
