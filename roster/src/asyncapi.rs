//! `roster asyncapi`: the contract of the feed as files.

use std::fs;
use std::path::Path;

use anyhow::Context;
use events::feed::contract;

/// Writes every file of the contract below `dir`.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    for (name, text) in contract::files()? {
        let path = dir.join(name);
        let at = || format!("cannot write {}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(dir)).with_context(at)?;
        fs::write(&path, text).with_context(at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_contract_is_the_codes() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../asyncapi");
        let files = contract::files().unwrap();
        for (name, text) in &files {
            let committed = fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(
                *text == committed,
                "{name}: write it again with `cargo run -- asyncapi asyncapi`"
            );
        }
        let schemas = fs::read_dir(dir.join("schemas")).unwrap().count();
        assert_eq!(schemas + 1, files.len(), "a schema whose event type is gone");
    }
}
