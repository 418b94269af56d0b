//! `cargo xtask new-service`: the example with other names. There is no other template, so it cannot rot: the example
//! is tested as it is, and a service made from it is made and tested where changes to this repository are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use events::ServiceNames;

use crate::lists;
use crate::words::Words;

/// The template.
const TEMPLATE: &str = "examples/product-service";

/// A service that is to be made.
pub struct NewService {
    /// What it is called.
    pub names: ServiceNames,
    /// The repository.
    pub root: PathBuf,
}

impl NewService {
    /// Makes it; what to do next.
    pub fn make(&self) -> anyhow::Result<String> {
        let service = self.names.service();
        let folder = self.root.join(&service);
        ensure!(!folder.exists(), "{service}/ is there already");
        // Before anything is written it is known that everything can be.
        let lists = self.lists()?;
        self.copy(&self.root.join(TEMPLATE), &folder)?;
        for (path, text) in lists {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.format(&service)?;
        self.describe(&service)?;
        Ok(format!(
            "created {service}/ and added it to Cargo.toml and .ci/check-layers.\n\
             \n\
             cargo test -p {service}                  # its tests, on real servers\n\
             cargo build -p {service} && cargo run -- dev --with {service}\n\
             \n\
             docs/adding-a-service.md goes on from here."
        ))
    }

    /// The lists with this service in them.
    fn lists(&self) -> anyhow::Result<Vec<(PathBuf, String)>> {
        type Change = fn(&str, &ServiceNames) -> anyhow::Result<String>;
        let changes: [(&str, Change); 2] =
            [("Cargo.toml", lists::workspace), (".ci/check-layers", lists::layers)];
        let changed = changes.into_iter().map(|(name, change)| {
            let path = self.root.join(name);
            let text = read(&path)?;
            Ok((path, change(&text, &self.names)?))
        });
        changed.collect()
    }

    /// Copies a folder of the template, with names and contents in the words of the service.
    fn copy(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let words = Words::of(&self.names);
        fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
        let entries =
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().context("a file of the template has no name in text")?;
            let target = to.join(words.rename(name));
            if entry.file_type()?.is_dir() {
                self.copy(&entry.path(), &target)?;
                continue;
            }
            // It lies one folder less deep than the example.
            let text = read(&entry.path())?
                .replace("../../", "../")
                .replace("examples/product", "product");
            fs::write(&target, words.rename(&text))
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
        Ok(())
    }

    /// Other names have other lengths and another order.
    fn format(&self, service: &str) -> anyhow::Result<()> {
        self.cargo(&["fmt", "--package", service]).map(drop)
    }

    /// Has the service write its own contracts: their members are in another order too.
    fn describe(&self, service: &str) -> anyhow::Result<()> {
        let run = ["run", "--quiet", "--package", service, "--"];
        let document = self.cargo(&[&run[..], &["openapi"]].concat())?;
        let folder = self.root.join(service);
        fs::write(folder.join("openapi.json"), document).context("cannot write openapi.json")?;
        let asyncapi = format!("{service}/asyncapi");
        self.cargo(&[&run[..], &["asyncapi", &asyncapi]].concat()).map(drop)
    }

    fn cargo(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo).args(arguments).current_dir(&self.root).output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            bail!("cargo {}: {why}", arguments.join(" "));
        }
        Ok(output.stdout)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
