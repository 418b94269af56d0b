//! The rules for passwords. Registration, change and reset call [`Candidate::check`], which is cheap, and then
//! [`Candidate::rate`], which is not.
//!
//! The rules follow NIST SP 800-63B-4: a minimum length, a list of common and breached passwords that the whole
//! password is compared with, words that an attacker of this particular account would try, and no rule about kinds of
//! characters. In addition the number of guesses is estimated (zxcvbn), because "qwertyuiop1" is on no list.
//!
//! The minimum of that estimate is 2 of 4 by default: more than a million guesses. The throttle allows an attacker a
//! hundred at one account, so 2 leaves a factor of ten thousand, and 3 would reject many a phrase of two words that
//! serves its owner well.

use std::fmt;

use events::EmailAddress;
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Violation;

/// Longest password in code points. Long enough for every passphrase, short enough to hash whole.
const PASSWORD_CHARS_MAX: usize = 256;
/// Sorted entries of [`ENTRY_BYTES`] each; `data/README.md` states their source.
const COMMON_PASSWORDS: &[u8] = include_bytes!("../../data/common-passwords.bin");
/// Bytes of SHA-256 that an entry keeps.
const ENTRY_BYTES: usize = 5;
/// Characters that must remain of a password without the words of its context.
const BESIDE_CONTEXT_CHARS_MIN: usize = 8;
/// Shorter words are in too many good passwords by chance.
const CONTEXT_WORD_CHARS_MIN: usize = 3;
/// Most words of a context. A name of 200 characters has no more.
const CONTEXT_WORDS_MAX: usize = 100;
/// Characters that are estimated: the work grows with the square of the length.
const ESTIMATED_CHARS_MAX: usize = 32;
/// The substitutions that zxcvbn knows. It looks up every part of the password once for each combination of them, and
/// the number of combinations is a product.
const LEET: [&str; 12] = ["4@", "8", "({[<", "3", "69", "1!|", "1|7", "0", "$5", "+7", "%", "2"];
/// Combinations that are tried. "p@$$w0rd!" has one, ten different digits have twelve; with more of them, the
/// punctuation does not stand for letters.
const READINGS_MAX: usize = 16;
/// The name of this product, which attackers try first at its users.
const PRODUCT: &str = "roster";

/// The rules for a new password.
#[derive(Debug, Clone)]
pub struct PasswordRules {
    /// Fewest code points.
    pub length_min: usize,
    /// Least estimate of zxcvbn, 0 to 4.
    pub strength_min: u8,
    /// Words that do not count here: the names of the organisation and of its products.
    pub context_words: Vec<String>,
}

/// The context of a new password.
#[derive(Debug, Clone, Copy, Default)]
pub struct PasswordContext<'a> {
    /// The address, if it is known.
    pub email: Option<&'a EmailAddress>,
    /// The name, if there is one.
    pub full_name: Option<&'a str>,
}

/// A password in the form that is hashed: NFC, otherwise whole and as typed. It is never printed, and is zeroed when
/// dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A new password that passed every rule except the last: that it is hard to guess. That estimate takes milliseconds
/// for text that was made to be slow, so it runs on the hashing threads.
pub struct Candidate {
    password: Password,
    words: Vec<String>,
    strength_min: u8,
}

impl Candidate {
    /// Checks all cheap rules.
    ///
    /// # Errors
    /// The first violated rule: `too-long`, `too-short`, `common-password` or `contains-context`, with a text that
    /// helps to choose a better password.
    pub fn check(
        text: &str,
        rules: &PasswordRules,
        context: &PasswordContext<'_>,
    ) -> Result<Self, Violation> {
        let password = Password::given(text).ok_or_else(|| {
            ("too-long", format!("has more than {PASSWORD_CHARS_MAX} characters"))
        })?;
        if password.0.chars().count() < rules.length_min {
            return Err(("too-short", format!("has fewer than {} characters", rules.length_min)));
        }
        let folded = normalised(&password.0);
        if is_common(&folded) {
            return Err(("common-password", "is one of those that attackers try first".to_owned()));
        }
        let words = context_words(rules, context);
        if is_little_more_than(&folded, &words) {
            let text = "is little more than a word that anyone would try: a part of the e-mail \
                        address, of the name, or of this service's name";
            return Err(("contains-context", text.to_owned()));
        }
        Ok(Self { password, words, strength_min: rules.strength_min })
    }

    /// Estimates how easy it is to guess. Slow: not for the async threads.
    ///
    /// # Errors
    /// `too-weak`, with a text that helps to choose a better password.
    pub fn rate(self) -> Result<Password, Violation> {
        if self.strength_min > 0 && strength(&self.password.0, &self.words) < self.strength_min {
            let text = "is easy to guess; a few words that have nothing to do with each other are \
                        not, nor is what a password manager makes";
            return Err(("too-weak", text.to_owned()));
        }
        Ok(self.password)
    }
}

impl Password {
    /// Takes a password to be compared; `None` if it is too long to be anyone's.
    pub fn given(text: &str) -> Option<Self> {
        // Bounded before the work of normalisation: a code point has at most 4 bytes, and composition replaces at
        // most three by one.
        if text.len() > PASSWORD_CHARS_MAX * 4 * 3 {
            return None;
        }
        // Never grows, or a part of the password would stay in the old allocation.
        let mut password = Self(String::with_capacity(text.len() * 3));
        password.0.extend(text.nfc());
        (password.0.chars().count() <= PASSWORD_CHARS_MAX).then_some(password)
    }

    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// NFC and case-folded until nothing changes: each can undo the other.
fn normalised(text: &str) -> Zeroizing<String> {
    let composed = Zeroizing::new(text.nfc().collect::<String>());
    let folded = |text: &str| Zeroizing::new(caseless::default_case_fold_str(text));
    let once = Zeroizing::new(folded(&composed).nfc().collect::<String>());
    Zeroizing::new(folded(&once).nfc().collect())
}

/// Whether a normalised password is on the list.
fn is_common(folded: &str) -> bool {
    let digest = Sha256::digest(folded.as_bytes());
    let (entries, _) = COMMON_PASSWORDS.as_chunks::<ENTRY_BYTES>();
    digest.first_chunk().is_some_and(|wanted| entries.binary_search(wanted).is_ok())
}

/// The words of a context, normalised, the longest first, so that "example.com" goes before "example".
fn context_words(rules: &PasswordRules, context: &PasswordContext<'_>) -> Vec<String> {
    let mut words = vec![PRODUCT.to_owned()];
    for word in rules.context_words.iter().map(|word| normalised(word)) {
        words.extend(parts(&word));
        words.push(word.to_string());
    }
    if let Some((local, domain)) = context.email.and_then(|email| email.canonical().split_once('@'))
    {
        words.push(local.to_owned());
        words.extend(parts(local));
        words.push(domain.to_owned());
        // The last label is everybody's.
        let (own, _) = domain.rsplit_once('.').unwrap_or((domain, ""));
        words.extend(parts(own));
    }
    if let Some(name) = context.full_name {
        words.extend(parts(&normalised(name)));
    }
    words.retain(|word| word.chars().count() >= CONTEXT_WORD_CHARS_MIN);
    words.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    words.dedup();
    words.truncate(CONTEXT_WORDS_MAX);
    words
}

fn parts(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned)
}

/// Whether a normalised password is little more than words of its context. Containing one of them is allowed: "the
/// roster of the drowned ships" is a good password.
fn is_little_more_than(folded: &str, words: &[String]) -> bool {
    let mut rest = Zeroizing::new(folded.to_owned());
    for word in words {
        if rest.contains(word.as_str()) {
            // The gap stays, or the text on both sides could form a new word.
            rest = Zeroizing::new(rest.replace(word.as_str(), " "));
        }
    }
    let separates = |c: &char| c.is_whitespace() || "-_.,:;@+/\\".contains(*c);
    *rest != folded && rest.chars().filter(|c| !separates(c)).count() < BESIDE_CONTEXT_CHARS_MIN
}

/// The estimate of zxcvbn: 0 for up to a thousand guesses, 1 up to a million, 2 up to 10^8, 3 up to
/// 10^10, 4 beyond.
fn strength(password: &str, words: &[String]) -> u8 {
    let mut text: String = password.chars().take(ESTIMATED_CHARS_MAX).collect();
    if readings(&text) > READINGS_MAX {
        text = text.replace(|c: char| !c.is_ascii_digit() && is_leet(c), "~");
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    u8::from(zxcvbn::zxcvbn(&text, &words).score())
}

fn is_leet(c: char) -> bool {
    LEET.iter().any(|signs| signs.contains(c))
}

/// How many combinations zxcvbn tries for a text: one sign for each letter, and a sign that an earlier letter may
/// already have is tried with and without it.
fn readings(text: &str) -> usize {
    let letter = |(n, signs): (usize, &&str)| {
        let taken = |c: char| LEET.iter().take(n).any(|earlier| earlier.contains(c));
        let found = signs.chars().filter(|c| text.contains(*c));
        found.map(|c| if taken(c) { 2 } else { 1 }).sum::<usize>().max(1)
    };
    LEET.iter().enumerate().map(letter).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_password_is_overwritten() {
        fn overwrite<T: Zeroize + ZeroizeOnDrop>(value: &mut T) {
            value.zeroize();
        }
        let mut password = Password::given("correct horse battery staple").unwrap();
        overwrite(&mut password);
        assert_eq!(password.as_bytes(), b"");
    }

    fn rules() -> PasswordRules {
        PasswordRules {
            length_min: 8,
            strength_min: 2,
            context_words: vec!["Babbage Society".to_owned()],
        }
    }

    fn checked(
        text: &str,
        rules: &PasswordRules,
        context: &PasswordContext<'_>,
    ) -> Result<Password, Violation> {
        Candidate::check(text, rules, context)?.rate()
    }

    fn refusal(text: &str, rules: &PasswordRules) -> &'static str {
        let email = EmailAddress::parse("Ada.Lovelace@Engines.Example.com").unwrap();
        let context =
            PasswordContext { email: Some(&email), full_name: Some("Augusta Ada King Śmigły") };
        checked(text, rules, &context).map_or_else(|(code, _)| code, |_| "none")
    }

    #[test]
    fn passwords_are_counted_in_code_points_and_never_cut() {
        let any = PasswordRules { strength_min: 0, ..rules() };
        assert_eq!(refusal("日本語日本語日本", &any), "none");
        assert_eq!(refusal("日本語日本語日", &any), "too-short");
        assert_eq!(refusal(&"xy".repeat(128), &any), "none");
        assert_eq!(refusal(&"x".repeat(257), &any), "too-long");
        assert_eq!(refusal(&"x".repeat(100_000), &any), "too-long");
        let new = |text| checked(text, &any, &PasswordContext::default()).unwrap();
        assert_eq!(new("p\u{e9}rfectly").as_bytes(), new("pe\u{301}rfectly").as_bytes());
        assert_eq!(new("  spaces  ").as_bytes(), b"  spaces  ");
    }

    #[test]
    fn good_passwords_of_every_kind_are_accepted() {
        for text in [
            "a password for tests",
            "a password for the administrator",
            "analytical engine",
            "difference engine",
            "0b5cd3f2f7a14be8d90a62c1",
            " nul \u{0} and spaces ",
            "correct horse battery staple",
            "the roster of the drowned ships",
            "UPPER lower nothing else",
            "мой дядя самых честных правил",
            "🐎🔋📎🌊🪺🧭🪁🫖",
            "#~({[<|>]})~@$%!+",
            &"several words, and more of them, ".repeat(7),
        ] {
            assert_eq!(refusal(text, &rules()), "none", "{text}");
        }
    }

    #[test]
    fn common_passwords_are_refused_in_any_case() {
        for text in [
            "password1",
            "PassWord1",
            "qwertyuiop",
            "1234567890",
            "iloveyou1",
            "ILOVEYOU1",
            "football1",
            "1q2w3e4r5t",
        ] {
            assert_eq!(refusal(text, &rules()), "common-password", "{text}");
        }
    }

    #[test]
    fn words_of_the_context_are_not_enough() {
        for text in [
            "roster2024!",
            "Roster-Roster-Roster",
            "ada.lovelace",
            "Ada.Lovelace1815",
            "LOVELACE!!!!!",
            "ada.lovelace@engines.example.com",
            "engines.example",
            "Example99",
            "augusta king",
            "King-Augusta-1815",
            "ŚMIGŁY99",
            "babbage society",
            "BabbageSociety1",
        ] {
            assert_eq!(refusal(text, &rules()), "contains-context", "{text}");
        }
        // For somebody else they are as good as any.
        let other = checked("Ada.Lovelace1815", &rules(), &PasswordContext::default());
        assert!(other.is_ok());
    }

    #[test]
    fn what_is_easy_to_guess_is_refused_as_the_configuration_says() {
        for text in [
            "P@ssw0rd2024",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "abdabdabdabd",
            "20240131",
            "zxcvbnm,./zxcvbnm",
            &"password".repeat(20),
        ] {
            assert_eq!(refusal(text, &rules()), "too-weak", "{text}");
        }
        let strict = PasswordRules { strength_min: 4, ..rules() };
        assert_eq!(refusal("difference engine", &strict), "too-weak");
        assert_eq!(refusal("correct horse battery staple", &strict), "none");
    }

    /// What takes a second when it is not bounded; the benchmark `registrations` measures it.
    #[test]
    fn the_estimate_is_bounded() {
        let leet: String = "4@8({[<369!1|0$5+7%2".chars().cycle().take(256).collect();
        assert_eq!(refusal(&leet, &rules()), "none");
        assert_eq!(strength(&leet, &[]), strength(leet.get(..40).unwrap(), &[]));
        assert!(readings(&leet) > READINGS_MAX);
        for (text, ways) in [("no signs", 1), ("p@$$w0rd!", 1), ("4836910572", 12), ("4@1!|", 24)] {
            assert_eq!(readings(text), ways, "{text}");
        }
        // Digits are never left out: dates and sequences are made of them.
        assert!(readings("4836910572") <= READINGS_MAX);
    }

    #[test]
    fn the_list_is_sorted_and_as_long_as_its_readme_says() {
        let (entries, rest) = COMMON_PASSWORDS.as_chunks::<ENTRY_BYTES>();
        assert!(rest.is_empty());
        assert!(entries.is_sorted_by(|a, b| a < b));
        let readme = include_str!("../../data/README.md");
        assert!(readme.contains("| entries | 198,285 passwords"));
        assert_eq!(entries.len(), 198_285);
        let digest = Sha256::digest(COMMON_PASSWORDS);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(readme.contains(&hex), "{hex}");
    }
}
