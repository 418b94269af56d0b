//! The lists of the repository that a further service has to stand in.

use anyhow::Context;
use events::ServiceNames;

use crate::words::Words;

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

/// The compose file with a further entry: that of the template in other words.
pub fn compose(file: &str, names: &ServiceNames) -> anyhow::Result<String> {
    let (begin, end) =
        ("  # ---- product-service ----\n", "  # ---- end of product-service ----\n");
    let start = file.find(begin).context("docker-compose.yml does not have the template")?;
    let length = file.get(start..).and_then(|rest| rest.find(end));
    let length = length.context("docker-compose.yml does not end the template")? + end.len();
    let entry = file.get(start..start + length).unwrap_or_default();
    let own = Words::of(names).rename(entry);
    insert(file, entry, &own).context("docker-compose.yml")
}

fn insert(text: &str, after: &str, what: &str) -> anyhow::Result<String> {
    let at = text.find(after).context("the line of the template is not there")? + after.len();
    let (before, behind) = text.split_at(at);
    anyhow::ensure!(!text.contains(what), "it is in there already");
    Ok(format!("{before}{what}{behind}"))
}
