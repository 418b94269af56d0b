//! `product-service asyncapi`: the contract of the feed as files.

use std::path::Path;

use events::feed::contract::{Described, ServiceFeed, schema_of};
use service_kit::contract_files;

use crate::feed::{Deleted, ProductData, Unpublished};
use crate::settings::NAMES;

/// Every event type of the feed.
fn types() -> Vec<Described> {
    let of = |name, title, description, data| Described { name, title, description, data };
    let state = schema_of::<ProductData>;
    vec![
        of("created", "Product created", "A product was created. Only its owner sees it.", state()),
        of("changed", "Product changed", "Name or description changed.", state()),
        of("price_changed", "Price changed", "The price changed.", state()),
        of("published", "Product published", "Everyone sees it from now on.", state()),
        of(
            "unpublished",
            "Product unpublished",
            "Only its owner sees it from now on, or nobody if the owner was deleted.",
            schema_of::<Unpublished>(),
        ),
        of("deleted", "Product deleted", "The product was deleted.", schema_of::<Deleted>()),
    ]
}

/// Every file of the contract: its name and contents.
fn files() -> anyhow::Result<Vec<(String, String)>> {
    Ok(ServiceFeed { names: NAMES, types: types() }.files()?)
}

/// Writes every file of the contract below `dir`.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    Ok(contract_files::write(&files()?, dir)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_committed_contract_matches_the_code() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("asyncapi");
        let files = files().unwrap();
        for (name, text) in &files {
            let committed = fs::read_to_string(dir.join(name)).unwrap_or_default();
            let command =
                "cargo run -p product-service -- asyncapi examples/product-service/asyncapi";
            assert!(*text == committed, "{name}: regenerate it with `{command}`");
        }
        let schemas = fs::read_dir(dir.join("schemas")).unwrap().count();
        assert_eq!(schemas + 1, files.len(), "a schema without an event type");
    }
}
