//! E-mail addresses: the only place that decides whether two spellings are the same address.
//!
//! Uniqueness, login, the list filter and resets all compare [`EmailAddress::canonical`]. The user's own spelling is
//! kept, composed (NFC), for display and sending. The mailer can write to every address that is accepted here; its
//! tests verify that.

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization;

use crate::text::{case_folded, is_invisible};

/// Longest accepted address in bytes of UTF-8, both as given and in canonical form (RFC 5321 4.5.3.1.3
/// less the brackets).
pub const EMAIL_BYTES_MAX: usize = 254;

/// Longest accepted part before the `@` in bytes (RFC 5321 4.5.3.1.1).
const LOCAL_BYTES_MAX: usize = 64;

/// Why a string is not an address that Roster accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidEmail(&'static str);

/// An e-mail address, checked, in the spelling given and in canonical form.
///
/// Accepted is `dot-atom@domain` of RFC 5322 with the letters of RFC 6531 and a domain of at least two
/// labels; quoted local parts, comments and address literals are not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EmailAddress {
    given: String,
    canonical: String,
}

impl EmailAddress {
    /// Checks an address and derives its canonical form: NFC, case-folded completely, with the domain in A-label form.
    ///
    /// # Errors
    /// [`InvalidEmail`] describes the fault in words that may be shown to the caller.
    pub fn parse(given: &str) -> Result<Self, InvalidEmail> {
        if given.len() > EMAIL_BYTES_MAX {
            return Err(InvalidEmail("is longer than 254 bytes"));
        }
        if given.chars().any(is_refused) {
            return Err(InvalidEmail("contains a space, control or invisible character"));
        }
        let composed: String = given.nfc().collect();
        let Some((local, domain)) = composed.rsplit_once('@') else {
            return Err(InvalidEmail("has no @"));
        };
        check_local(local)?;
        if local.len() > LOCAL_BYTES_MAX {
            return Err(InvalidEmail("has more than 64 bytes before the @"));
        }
        let local = case_folded(local);
        let domain = canonical_domain(domain)?;
        let canonical = format!("{local}@{domain}");
        if local.len() > LOCAL_BYTES_MAX {
            return Err(InvalidEmail("has more than 64 bytes before the @"));
        }
        if canonical.len() > EMAIL_BYTES_MAX {
            return Err(InvalidEmail("is longer than 254 bytes"));
        }
        if composed.len() > EMAIL_BYTES_MAX {
            return Err(InvalidEmail("is longer than 254 bytes"));
        }
        Ok(Self { given: composed, canonical })
    }

    /// The address as it was given, composed (NFC).
    #[must_use]
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// The form for comparison: equal canonical forms are the same address.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// An address is personal data: its debug form hides it, so that it cannot get into a log line.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EmailAddress(…)")
    }
}

fn check_local(local: &str) -> Result<(), InvalidEmail> {
    if local.is_empty() {
        return Err(InvalidEmail("has nothing before the @"));
    }
    if local.split('.').any(str::is_empty) {
        return Err(InvalidEmail("has a misplaced dot before the @"));
    }
    let atext =
        |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    if !local.chars().all(atext) {
        return Err(InvalidEmail("has a character before the @ that is not allowed there"));
    }
    Ok(())
}

fn canonical_domain(domain: &str) -> Result<String, InvalidEmail> {
    let ascii = Uts46::new()
        .to_ascii(
            domain.as_bytes(),
            AsciiDenyList::STD3,
            Hyphens::CheckFirstLast,
            DnsLength::Verify,
        )
        .map_err(|_| InvalidEmail("has no valid domain after the @"))?;
    let mut labels = ascii.rsplit('.');
    let top = labels.next().unwrap_or_default();
    if labels.next().is_none() {
        return Err(InvalidEmail("needs a domain with a dot after the @"));
    }
    if top.chars().all(|c| c.is_ascii_digit()) {
        return Err(InvalidEmail("has a number where its domain should end"));
    }
    Ok(ascii.into_owned())
}

/// White space, control characters and invisible characters. An address with one of them looks like another address.
fn is_refused(c: char) -> bool {
    c.is_control() || c.is_whitespace() || is_invisible(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(given: &str) -> String {
        EmailAddress::parse(given).unwrap().canonical().to_owned()
    }

    #[test]
    fn spellings_of_one_address_meet() {
        for (given, expected) in [
            ("Ada@Example.com", "ada@example.com"),
            ("ada+x@example.com", "ada+x@example.com"),
            ("STRASSE@example.com", "strasse@example.com"),
            ("straße@example.com", "strasse@example.com"),
            ("e\u{301}va@example.com", "\u{e9}va@example.com"),
            ("\u{c9}VA@example.com", "\u{e9}va@example.com"),
            ("a@BÜCHER.example", "a@xn--bcher-kva.example"),
            ("a@xn--bcher-kva.example", "a@xn--bcher-kva.example"),
            ("a@example\u{3002}com", "a@example.com"),
        ] {
            assert_eq!(canonical(given), expected, "{given}");
            assert_eq!(canonical(&canonical(given)), expected, "canonical of canonical: {given}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long = format!("a@{}.com", "a.".repeat(130));
        for given in [
            "",
            "ada",
            "@",
            "@example.com",
            "ada@",
            "ada@example",
            "ada@@example.com",
            "a b@example.com",
            "a@exa mple.com",
            ".a@example.com",
            "a.@example.com",
            "a..b@example.com",
            "\"a\"@example.com",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@-x.com",
            "a@x-.com",
            "a@x_y.com",
            "a@example.com.",
            "a\0@example.com",
            "a\u{200b}@example.com",
            "a\u{202e}@example.com",
            "a@exam\u{200d}ple.com",
            "a\r\nBcc: b@example.com",
            "a,b@example.com",
            "<a@example.com>",
            "a@b@example.com",
            &long_local,
            &long,
        ] {
            assert!(EmailAddress::parse(given).is_err(), "{given:?}");
        }
    }

    #[test]
    fn what_was_typed_is_kept_composed() {
        let address = EmailAddress::parse("Zoe\u{308}.Finch@Example.com").unwrap();
        assert_eq!(address.as_given(), "Zo\u{eb}.Finch@Example.com");
    }

    proptest::proptest! {
        /// Idempotent: otherwise the index would contain two forms.
        #[test]
        fn canonical_is_a_fixed_point(given in "\\PC{1,20}@[a-zA-Zäéß]{1,8}\\.[a-z]{2,5}") {
            if let Ok(address) = EmailAddress::parse(&given) {
                let again = EmailAddress::parse(address.canonical());
                proptest::prop_assert_eq!(again.map(|a| a.canonical().to_owned()), Ok(address.canonical().to_owned()));
            }
        }
    }
}
