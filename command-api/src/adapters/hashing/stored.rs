//! Password hashes as they are stored, those that other systems made among them.
//!
//! A user who comes from elsewhere brings the hash along and keeps the password. What is read here:
//! Argon2id and Argon2i, scrypt and PBKDF2 as PHC strings, and bcrypt in its own form. Not read:
//! Argon2d, which leaks the password to whoever can measure memory accesses; `$2x$` of bcrypt, which
//! marks hashes with a bug in them; anything without a salt.
//!
//! # bcrypt
//! bcrypt sees the first 72 bytes of a password. The others that made these hashes cut it there, so it
//! is cut here as well. Which tail of a longer one is the owner's cannot be told, so such a hash stays what it is:
//! an Argon2id hash of whatever was typed first would shut the owner out. A password with NUL in it never matches: bcrypt cannot tell "a" from
//! "a\0a", and those who read C strings stop at the NUL.
//!
//! # Normalisation
//! Roster compares passwords in NFC. Someone who typed decomposed letters elsewhere, into a system that
//! hashed them as they came, has to reset the password.
//!
//! # Cost
//! The numbers in a hash say how much memory and time a login takes. They come from outside, so each is
//! bounded here, by about two seconds of one core. Numbers so low that whoever has the hash has the password are not
//! taken over either; what is stored already is compared all the same.

use std::num::NonZeroU32;

use argon2::password_hash::phc::PasswordHash as Phc;
use argon2::{Algorithm, Params, Version};
use aws_lc_rs::pbkdf2;
use base64::Engine;
use base64::alphabet::BCRYPT;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::domain::Violation;

/// Most memory in KiB that Argon2 or scrypt may take.
const MEMORY_KIB_MAX: u64 = 256 * 1024;
/// Most memory of Argon2 times its passes, in KiB.
const ARGON2_WORK_KIB_MAX: u64 = 4 * 1024 * 1024;
/// Most memory of scrypt times its `p`, in KiB.
const SCRYPT_WORK_KIB_MAX: u64 = 1024 * 1024;
/// Most iterations of PBKDF2, all blocks of the output together.
const PBKDF2_ITERATIONS_MAX: u64 = 10_000_000;
/// Highest cost of bcrypt: 2^15 rounds.
const BCRYPT_COST_MAX: u32 = 15;
/// Lowest cost of bcrypt that there is.
const BCRYPT_COST_MIN: u32 = 4;
/// Lowest cost of bcrypt that is taken over: libraries use 4 in tests alone.
const BCRYPT_FOREIGN_COST_MIN: u32 = 5;
/// Fewest iterations of PBKDF2 that are taken over (RFC 8018 4.2).
const PBKDF2_FOREIGN_ITERATIONS_MIN: u32 = 1_000;
/// Least memory in KiB of a scrypt hash that is taken over: N = 1,024 with r = 8.
const SCRYPT_FOREIGN_KIB_MIN: u64 = 1_024;
/// Least memory in KiB of an Argon2 hash that is taken over.
const ARGON2_FOREIGN_KIB_MIN: u64 = 64;
/// What bcrypt sees of a password, in bytes.
const BCRYPT_PASSWORD_BYTES: usize = 72;
/// Bytes of a bcrypt hash that are stored; the 24th never is.
const BCRYPT_OUTPUT_BYTES: usize = 23;
/// Characters of a bcrypt salt, before those of the hash.
const BCRYPT_SALT_CHARS: usize = 22;
/// Longest stored hash in bytes.
const TEXT_BYTES_MAX: usize = 512;

/// Some implementations leave bits behind the last byte.
const BCRYPT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &BCRYPT,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// A stored hash, taken apart. Its debug form would show a hash: there is none.
pub struct Stored {
    /// How to make the same output again.
    pub kind: Kind,
    /// The salt.
    pub salt: Vec<u8>,
    /// The output for the right password.
    pub expected: Vec<u8>,
}

/// The function that made a hash, with its numbers.
pub enum Kind {
    /// Argon2i or Argon2id.
    Argon2(Algorithm, Version, Params),
    /// scrypt.
    Scrypt(ScryptCost),
    /// PBKDF2.
    Pbkdf2(pbkdf2::Algorithm, NonZeroU32),
    /// bcrypt with its cost.
    Bcrypt(u32),
}

/// The numbers of scrypt.
#[derive(Clone, Copy)]
pub struct ScryptCost {
    log_n: u8,
    r: u32,
    p: u32,
}

/// Whether a hash from elsewhere can be stored: it is understood, and a login with it costs no more than
/// a login may.
///
/// # Errors
/// `hash-unknown`, `hash-malformed`, `hash-too-costly` or `hash-too-weak`, with the reason in words.
pub fn check_foreign_hash(text: &str) -> Result<(), Violation> {
    let stored = Stored::parse(text)?;
    stored.check_cost()?;
    stored.check_strength()
}

impl Stored {
    /// Takes a hash apart.
    pub fn parse(text: &str) -> Result<Self, Violation> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(malformed("is longer than any password hash"));
        }
        match text.strip_prefix("$2") {
            Some(rest) => bcrypt(rest),
            None => phc(text),
        }
    }

    /// Refuses what would take too much memory or time.
    pub fn check_cost(&self) -> Result<(), Violation> {
        let fine = match &self.kind {
            Kind::Argon2(_, _, params) => {
                let memory = u64::from(params.m_cost());
                memory <= MEMORY_KIB_MAX
                    && memory.saturating_mul(params.t_cost().into()) <= ARGON2_WORK_KIB_MAX
            }
            Kind::Scrypt(cost) => {
                let memory = self.memory_kib();
                memory <= MEMORY_KIB_MAX
                    && memory.saturating_mul(cost.p.into()) <= SCRYPT_WORK_KIB_MAX
            }
            Kind::Pbkdf2(algorithm, iterations) => {
                let blocks = self.expected.len().div_ceil(block_bytes(*algorithm)) as u64;
                u64::from(iterations.get()).saturating_mul(blocks) <= PBKDF2_ITERATIONS_MAX
            }
            Kind::Bcrypt(cost) => *cost <= BCRYPT_COST_MAX,
        };
        if fine {
            return Ok(());
        }
        Err(("hash-too-costly", "takes more memory or time than a login may".to_owned()))
    }

    /// Refuses what takes next to no work.
    fn check_strength(&self) -> Result<(), Violation> {
        let fine = match &self.kind {
            Kind::Argon2(..) => self.memory_kib() >= ARGON2_FOREIGN_KIB_MIN,
            Kind::Scrypt(_) => self.memory_kib() >= SCRYPT_FOREIGN_KIB_MIN,
            Kind::Pbkdf2(_, iterations) => iterations.get() >= PBKDF2_FOREIGN_ITERATIONS_MIN,
            Kind::Bcrypt(cost) => *cost >= BCRYPT_FOREIGN_COST_MIN,
        };
        if fine {
            return Ok(());
        }
        let why =
            "takes so little work that it protects nothing: let its user choose a new password";
        Err(("hash-too-weak", why.to_owned()))
    }

    /// Whether other passwords than this one have the same hash.
    pub fn is_ambiguous(&self, password: &[u8]) -> bool {
        matches!(self.kind, Kind::Bcrypt(_)) && password.len() >= BCRYPT_PASSWORD_BYTES
    }

    /// Memory that the comparison takes, in KiB.
    pub fn memory_kib(&self) -> u64 {
        match &self.kind {
            Kind::Argon2(_, _, params) => params.m_cost().into(),
            Kind::Scrypt(cost) => {
                // 128 bytes times r times N.
                let n = 1_u64.checked_shl(cost.log_n.into()).unwrap_or(u64::MAX);
                u64::from(cost.r).saturating_mul(n).div_ceil(8)
            }
            Kind::Pbkdf2(..) => 1,
            Kind::Bcrypt(_) => 5,
        }
    }

    /// Whether these numbers and no others are the ones that new hashes are made with.
    pub fn is_made_with(&self, today: &Params, output_bytes: usize) -> bool {
        match &self.kind {
            Kind::Argon2(Algorithm::Argon2id, Version::V0x13, params) => {
                let numbers = |p: &Params| (p.m_cost(), p.t_cost(), p.p_cost());
                numbers(params) == numbers(today) && self.expected.len() == output_bytes
            }
            Kind::Argon2(..) | Kind::Scrypt(_) | Kind::Pbkdf2(..) | Kind::Bcrypt(_) => false,
        }
    }
}

impl ScryptCost {
    /// The output for a password.
    pub fn output(self, password: &[u8], salt: &[u8], bytes: usize) -> Result<Vec<u8>, String> {
        let mut output = vec![0; bytes];
        let params = scrypt::Params::new(self.log_n, self.r, self.p).map_err(|e| e.to_string())?;
        scrypt::scrypt(password, salt, &params, &mut output).map_err(|e| e.to_string())?;
        Ok(output)
    }
}

/// The output of PBKDF2 for a password.
pub fn pbkdf2_output(
    algorithm: pbkdf2::Algorithm,
    iterations: NonZeroU32,
    password: &[u8],
    salt: &[u8],
    bytes: usize,
) -> Vec<u8> {
    let mut output = vec![0; bytes];
    pbkdf2::derive(algorithm, iterations, salt, password, &mut output);
    output
}

/// The output of bcrypt for a password; `None` for one that no bcrypt hash can stand for.
pub fn bcrypt_output(cost: u32, password: &[u8], salt: &[u8]) -> Option<Vec<u8>> {
    let salt = salt.try_into().ok()?;
    let mut seen: Vec<u8> = password.iter().copied().take(BCRYPT_PASSWORD_BYTES).collect();
    if seen.len() < BCRYPT_PASSWORD_BYTES {
        // bcrypt hashes the end of the C string with it, as far as there is room.
        seen.push(0);
    }
    // Worked out also for a password with NUL, so that it takes as long as any other.
    let mut output = bcrypt::bcrypt(cost, salt, &seen).to_vec();
    output.truncate(BCRYPT_OUTPUT_BYTES);
    (!password.contains(&0)).then_some(output)
}

/// Bytes that one run of the iterations gives.
fn block_bytes(algorithm: pbkdf2::Algorithm) -> usize {
    if algorithm == pbkdf2::PBKDF2_HMAC_SHA256 { 32 } else { 64 }
}

/// What stands behind `$2`.
fn bcrypt(rest: &str) -> Result<Stored, Violation> {
    let mut parts = rest.split('$');
    let (Some(variant), Some(cost), Some(text), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("is not $2b$<cost>$<salt and hash>"));
    };
    // `a` is the oldest name, `y` the one that PHP gave to the repaired one, `b` the one of today.
    if !matches!(variant, "a" | "b" | "y") {
        return Err(unknown(&format!("2{variant}")));
    }
    let digits = cost.len() == 2 && cost.bytes().all(|b| b.is_ascii_digit());
    let cost = match cost.parse() {
        Ok(cost) if digits && (BCRYPT_COST_MIN..32).contains(&cost) => cost,
        _ => return Err(malformed("has no cost in 04..31")),
    };
    let decode = |text: &str| BCRYPT_BASE64.decode(text).map_err(|e| malformed(e.to_string()));
    let Some((salt, hash)) = text.split_at_checked(BCRYPT_SALT_CHARS) else {
        return Err(malformed("ends within its salt"));
    };
    let (salt, expected) = (decode(salt)?, decode(hash)?);
    if expected.len() != BCRYPT_OUTPUT_BYTES {
        return Err(malformed("has a hash of the wrong length"));
    }
    Ok(Stored { kind: Kind::Bcrypt(cost), salt, expected })
}

fn phc(text: &str) -> Result<Stored, Violation> {
    let phc = Phc::new(text).map_err(|e| malformed(format!("is not a PHC string: {e}")))?;
    let (Some(salt), Some(expected)) = (&phc.salt, &phc.hash) else {
        return Err(malformed("lacks its salt or its hash"));
    };
    let kind = match phc.algorithm.as_str() {
        "argon2id" => argon2(&phc, Algorithm::Argon2id)?,
        "argon2i" => argon2(&phc, Algorithm::Argon2i)?,
        "scrypt" => {
            let log_n = u8::try_from(number(&phc, "ln")?).ok().filter(|n| (1..64).contains(n));
            let log_n = log_n.ok_or_else(|| malformed("has no ln in 1..63"))?;
            let (r, p) = (number(&phc, "r")?, number(&phc, "p")?);
            if r == 0 || p == 0 {
                return Err(malformed("has 0 for r or p"));
            }
            Kind::Scrypt(ScryptCost { log_n, r, p })
        }
        "pbkdf2-sha256" => pbkdf2_of(&phc, pbkdf2::PBKDF2_HMAC_SHA256)?,
        "pbkdf2-sha512" => pbkdf2_of(&phc, pbkdf2::PBKDF2_HMAC_SHA512)?,
        other => return Err(unknown(other)),
    };
    Ok(Stored { kind, salt: salt.to_vec(), expected: expected.as_bytes().to_vec() })
}

fn argon2(phc: &Phc, algorithm: Algorithm) -> Result<Kind, Violation> {
    // A string from before versions were written is of the first one.
    let version = phc.version.map_or(Ok(Version::V0x10), Version::try_from);
    let version = version.map_err(|_| malformed("has an unknown version"))?;
    let params = Params::try_from(phc).map_err(|e| malformed(e.to_string()))?;
    if !params.keyid().is_empty() || !params.data().is_empty() {
        return Err(malformed("needs a key or data that is not in it"));
    }
    Ok(Kind::Argon2(algorithm, version, params))
}

fn pbkdf2_of(phc: &Phc, algorithm: pbkdf2::Algorithm) -> Result<Kind, Violation> {
    let iterations = NonZeroU32::new(number(phc, "i")?);
    let iterations = iterations.ok_or_else(|| malformed("has no iterations"))?;
    let length = phc.hash.as_ref().map_or(0, |hash| hash.len());
    if phc.params.get("l").is_some() && number(phc, "l")? as usize != length {
        return Err(malformed("has another length than it says"));
    }
    Ok(Kind::Pbkdf2(algorithm, iterations))
}

fn number(phc: &Phc, name: &str) -> Result<u32, Violation> {
    phc.params
        .get_decimal(name)
        .ok_or_else(|| malformed(format!("has no number for the parameter {name}")))
}

fn malformed(why: impl Into<String>) -> Violation {
    ("hash-malformed", why.into())
}

fn unknown(name: &str) -> Violation {
    ("hash-unknown", format!("is of a kind that cannot be taken over: {name}"))
}
