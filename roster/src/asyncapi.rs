//! `roster asyncapi`: the contract of the feed as files.

use std::path::Path;

use events::feed::contract;
use service_kit::contract_files;

/// Writes every file of the contract below `dir`.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    Ok(contract_files::write(&contract::files()?, dir)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
