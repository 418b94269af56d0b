//! The guide for those who subscribe shows what is really published.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use events::feed::Happened;
use serde_json::Value;

use crate::feed_contract::{golden, published};

/// The blocks of JSON of the guide, each with the heading above it.
fn blocks() -> Vec<(String, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/feed.md");
    let text = fs::read_to_string(path).unwrap();
    let (mut heading, mut block, mut found) = (String::new(), None::<String>, Vec::new());
    for line in text.lines() {
        match &mut block {
            None if line.starts_with('#') => {
                heading = line.trim_start_matches(['#', ' ']).to_owned()
            }
            None if line == "```json" => block = Some(String::new()),
            None => {}
            Some(text) if line == "```" => {
                found.push((heading.clone(), serde_json::from_str(text).unwrap()));
                block = None;
            }
            Some(text) => text.push_str(line),
        }
    }
    found
}

#[test]
fn every_type_is_shown_as_it_is_published() {
    let (golden, published) = (golden(), published());
    let mut shown: HashMap<String, usize> = HashMap::new();
    for (heading, block) in blocks() {
        let fits = |event: &Value| match heading.as_str() {
            "The envelope" => *event == block,
            kind => event["type"] == kind && event["data"] == block,
        };
        assert!(published.iter().any(|(_, event)| fits(event)), "{heading}: {block}");
        *shown.entry(heading).or_default() += 1;
    }
    for kind in Happened::KINDS {
        let files = golden.iter().filter(|(_, event)| event["type"] == *kind).count();
        assert_eq!(shown.get(*kind), Some(&files), "{kind}");
    }
}
