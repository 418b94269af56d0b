//! From the words of one service to those of another.

use events::ServiceNames;

/// What the template is about.
pub const TEMPLATE: ServiceNames = ServiceNames::fixed("product", "products");

/// Replaces the words of the template, in every way in which they are written.
#[derive(Debug, Clone)]
pub struct Words {
    pairs: Vec<(String, String)>,
}

impl Words {
    /// Those of a service.
    pub fn of(names: &ServiceNames) -> Self {
        let (from, to) = (&TEMPLATE, names);
        let mut pairs = Vec::new();
        // The plural first: it begins with the singular.
        for (from, to) in [(from.plural(), to.plural()), (from.singular(), to.singular())] {
            for written in [str::to_owned, str::to_uppercase, capital] {
                // "a product" is "an order".
                for (article, before_vowel) in [("a ", "an "), ("A ", "An ")] {
                    if begins_with_vowel(to) {
                        let (from, to) = (written(from), written(to));
                        pairs.push((format!(" {article}{from}"), format!(" {before_vowel}{to}")));
                        pairs.push((format!("\n{article}{from}"), format!("\n{before_vowel}{to}")));
                        pairs.push((format!("`{article}{from}"), format!("`{before_vowel}{to}")));
                        pairs.push((format!("\"{article}{from}"), format!("\"{before_vowel}{to}")));
                    }
                }
                pairs.push((written(from), written(to)));
            }
        }
        Self { pairs }
    }

    /// A text in the words of the service.
    pub fn rename(&self, text: &str) -> String {
        self.pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }
}

fn begins_with_vowel(word: &str) -> bool {
    word.starts_with(['a', 'e', 'i', 'o'])
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().collect::<String>() + letters.as_str()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_replaced_in_every_way_they_are_written() {
        let words = Words::of(&ServiceNames::parse("story", "stories").unwrap());
        for (from, to) in [
            ("ev.product.*", "ev.story.*"),
            ("products.v1.created", "stories.v1.created"),
            ("PRODUCT_EVENTS of PRODUCTS", "STORY_EVENTS of STORIES"),
            ("impl Fold for ProductViews", "impl Fold for StoryViews"),
            ("mod Products; a product", "mod Stories; a story"),
        ] {
            assert_eq!(words.rename(from), to);
        }
        let words = Words::of(&ServiceNames::parse("order", "orders").unwrap());
        assert_eq!(words.rename("/// A product of a product."), "/// An order of an order.");
        assert_eq!(words.rename("data product, a products"), "data order, an orders");
    }
}
