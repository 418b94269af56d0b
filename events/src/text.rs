//! The form in which texts are compared.

use unicode_normalization::UnicodeNormalization;

/// A text without what case and composition make of it: NFC, case-folded whole (Unicode 3.13).
///
/// Case folding can undo composition and the other way round: it is folded until nothing moves (twice
/// is known to be enough for NFC, see Unicode 3.13 D145).
#[must_use]
pub fn case_folded(text: &str) -> String {
    let composed: String = text.nfc().collect();
    let once: String = caseless::default_case_fold_str(&composed).nfc().collect();
    caseless::default_case_fold_str(&once).nfc().collect()
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

    proptest::proptest! {
        #[test]
        fn what_is_folded_stays(text in "\\PC{0,30}") {
            let folded = case_folded(&text);
            proptest::prop_assert_eq!(case_folded(&folded), folded);
        }
    }
}
