//! `q`: a prefix of the address or of a word of the name, without case and accents.

use events::search_folded;
use mongodb::bson::{Document, doc};

/// The most words in one search.
const WORDS_MAX: usize = 8;

/// A search as ranges of one index, whatever characters it contains. Each part between white space is a prefix of the
/// address, or its words are each a prefix of a word of the name.
pub fn words(text: &str) -> Result<Vec<Document>, &'static str> {
    let folded = search_folded(text);
    let mut terms = Vec::new();
    let mut count = 0;
    for term in folded.split_whitespace() {
        let words: Vec<&str> = events::words(term).collect();
        count += words.len().max(1);
        if count > WORDS_MAX {
            return Err("has more than 8 words");
        }
        let whole = beginning_with(term);
        terms.push(match words.as_slice() {
            [] => whole,
            [word] if *word == term => whole,
            [word] => doc! {"$or": [whole, beginning_with(word)]},
            words => {
                let each: Vec<Document> = words.iter().map(|word| beginning_with(word)).collect();
                doc! {"$or": [whole, {"$and": each}]}
            }
        });
    }
    if terms.is_empty() { Err("must not be empty") } else { Ok(terms) }
}

/// Some word of the user starts with this one. `$elemMatch` because both bounds are about the same word.
fn beginning_with(prefix: &str) -> Document {
    let mut range = doc! {"$gte": prefix};
    if let Some(end) = successor(prefix) {
        range.insert("$lt", end);
    }
    doc! {"search": {"$elemMatch": range}}
}

/// The first text after all that start with `prefix`, by code points, which is how MongoDB compares.
fn successor(prefix: &str) -> Option<String> {
    let mut rest: Vec<char> = prefix.chars().collect();
    while let Some(last) = rest.pop() {
        // The range of characters has a gap, which this steps over; the last character has no successor.
        if let Some(next) = (last..=char::MAX).nth(1) {
            rest.push(next);
            return Some(rest.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix() {
        for (prefix, end) in [
            ("ada", Some("adb")),
            ("a\u{d7ff}", Some("a\u{e000}")),
            ("a\u{10ffff}", Some("b")),
            ("\u{10ffff}", None),
            (".*", Some(".+")),
        ] {
            assert_eq!(successor(prefix).as_deref(), end, "{prefix}");
        }
    }

    #[test]
    fn words_are_folded_and_few() {
        let ada = doc! {"search": {"$elemMatch": {"$gte": "ada", "$lt": "adb"}}};
        assert_eq!(words(" ADA ").unwrap(), std::slice::from_ref(&ada));
        let l = doc! {"search": {"$elemMatch": {"$gte": "l", "$lt": "m"}}};
        assert_eq!(words("ada L").unwrap(), [ada, l]);
        let elodie = doc! {"search": {"$elemMatch": {"$gte": "elodie", "$lt": "elodif"}}};
        assert_eq!(words("ÉLODIE").unwrap(), [elodie]);
        let range =
            |from: &str, to: &str| doc! {"search": {"$elemMatch": {"$gte": from, "$lt": to}}};
        let each = vec![range("holt", "holu"), range("r", "s")];
        let holt = doc! {"$or": [range("holt-r", "holt-s"), {"$and": each}]};
        assert_eq!(words("Holt-R").unwrap(), [holt]);
        let smith = doc! {"$or": [range("smith,", "smith-"), range("smith", "smiti")]};
        assert_eq!(words("smith,").unwrap(), [smith]);
        assert!(words("a b c d e f g h i").is_err());
        assert!(words("a-b-c-d e-f-g-h-i").is_err());
        assert!(words("\u{2003}").is_err());
    }

    proptest::proptest! {
        #[test]
        fn the_range_holds_what_begins_so_and_nothing_else(
            prefix in "\\PC{1,3}", text in "\\PC{0,5}",
        ) {
            let end = successor(&prefix);
            let within = |text: &str| {
                text >= prefix.as_str() && end.as_ref().is_none_or(|end| text < end.as_str())
            };
            proptest::prop_assert_eq!(within(&text), text.starts_with(&prefix));
            let longer = format!("{prefix}{text}");
            proptest::prop_assert!(within(&longer));
        }
    }
}
