//! Text normalisation for comparison and search.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Passes over a text until it no longer changes. Two are enough for all but a few letters that a fold decomposes into
/// others with case.
const FOLDS_MAX: usize = 4;

/// A text without differences of case and composition: NFC, case-folded completely (Unicode 3.13).
///
/// Case folding can undo composition and vice versa, so both are repeated until the text no longer changes (twice is
/// known to be enough for NFC, see Unicode 3.13 D145).
#[must_use]
pub fn case_folded(text: &str) -> String {
    let composed: String = text.nfc().collect();
    let once: String = caseless::default_case_fold_str(&composed).nfc().collect();
    caseless::default_case_fold_str(&once).nfc().collect()
}

/// A text for searching: without case, accents and invisible characters. Decomposed (NFKD), so that a prefix of a text
/// is a prefix of its folded form.
///
/// Accents are the marks on Latin, Greek and Cyrillic letters, and the strokes of letters that Unicode does not
/// decompose (`ø`, `ł`). Marks that form another syllable, as in Devanagari, Thai or Japanese, stay.
#[must_use]
pub fn search_folded(text: &str) -> String {
    let mut folded = fold_once(text);
    for _ in 1..FOLDS_MAX {
        let again = fold_once(&folded);
        if again == folded {
            break;
        }
        folded = again;
    }
    folded
}

fn fold_once(text: &str) -> String {
    let decomposed: String = text.nfkd().collect();
    let mut folded = String::with_capacity(decomposed.len());
    for c in caseless::default_case_fold_str(&decomposed).nfkd() {
        match c {
            _ if is_accent(c) || is_invisible(c) => {}
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            'ð' | 'đ' => folded.push('d'),
            'ø' => folded.push('o'),
            'ħ' => folded.push('h'),
            'ı' => folded.push('i'),
            'ł' => folded.push('l'),
            'ŧ' => folded.push('t'),
            '\u{2019}' | '\u{2bc}' => folded.push('\''),
            c => folded.push(c),
        }
    }
    folded
}

/// The words of a folded text: letters, digits and their marks, and apostrophes inside them. Any other character ends a
/// word.
pub fn words(folded: &str) -> impl Iterator<Item = &str> {
    folded
        .split(|c: char| !(c.is_alphanumeric() || c == '\'' || is_combining_mark(c)))
        .map(|word| word.trim_matches('\''))
        .filter(|word| !word.is_empty())
}

const fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

/// Whether a character is invisible on a screen: zero-width characters, bidirectional marks, fillers, the empty Braille
/// cell, tags and noncharacters. White space is not among them.
#[must_use]
pub const fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}'
        | '\u{3164}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{e0fff}')
        || (c as u32) & 0xfffe == 0xfffe
}

/// Whether a character is visible by itself: neither white space, nor invisible, nor a mark on another one.
#[must_use]
pub fn is_seen(c: char) -> bool {
    !(c.is_whitespace() || is_invisible(c) || is_combining_mark(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_text_meet() {
        for (one, other) in
            [("Ada", "aDA"), ("Straße", "STRASSE"), ("E\u{301}va", "\u{e9}VA"), ("ΣΑΣ", "σας")]
        {
            assert_eq!(case_folded(one), case_folded(other), "{one} {other}");
        }
    }

    #[test]
    fn what_people_take_for_the_same_meets() {
        for (one, other) in [
            ("Élodie", "elodie"),
            ("Zoë", "ZOE"),
            ("Ådne", "adne"),
            ("Łukasz Søren", "lukasz soren"),
            ("Straße", "STRASSE"),
            ("Ἀθηνᾶ", "αθηνα"),
            ("Фёдор", "федор"),
            ("O\u{2019}Neil", "o'neil"),
            ("A\u{200b}da", "ada"),
            ("\u{ff21}da", "ada"),
            ("İstanbul", "istanbul"),
        ] {
            assert_eq!(search_folded(one), search_folded(other), "{one} {other}");
        }
        // Marks that form another syllable.
        assert_ne!(search_folded("\u{0915}\u{093f}"), search_folded("\u{0915}"));
        assert_ne!(search_folded("が"), search_folded("か"));
    }

    #[test]
    fn words_end_at_what_is_no_letter() {
        let of = |text: &str| words(&search_folded(text)).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of("Holt-Reyes"), ["holt", "reyes"]);
        assert_eq!(of("(Nan)"), ["nan"]);
        assert_eq!(of("Smith,John 3rd"), ["smith", "john", "3rd"]);
        assert_eq!(of("O\u{2019}Neil 'quoted'"), ["o'neil", "quoted"]);
        assert_eq!(of("अर्जुन सिंह").len(), 2);
        assert_eq!(of(" .* ' - "), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn what_is_search_folded_stays(text in "\\PC{0,30}") {
            let folded = search_folded(&text);
            proptest::prop_assert_eq!(search_folded(&folded), folded);
        }

        #[test]
        fn what_is_folded_stays(text in "\\PC{0,30}") {
            let folded = case_folded(&text);
            proptest::prop_assert_eq!(case_folded(&folded), folded);
        }
    }
}
