//! `roster openapi`: the document of the whole public API, out of the code.

/// The document, as committed.
pub const DOCUMENT: &str = include_str!("../../openapi/roster.json");

/// The document of both APIs as they are committed: pretty, with an end of line.
pub fn document() -> anyhow::Result<String> {
    let mut document = command_api::openapi();
    document.merge(query_api::openapi());
    Ok(document.to_pretty_json()? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_codes() {
        let told = "cargo run -- openapi > new.json && mv new.json openapi/roster.json";
        assert!(document().unwrap() == DOCUMENT, "write it again: {told}");
    }
}
