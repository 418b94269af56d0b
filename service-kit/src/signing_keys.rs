//! The keys of access tokens: a folder with a schedule and the private keys, reloaded when it changes.
//!
//! `keys.json` lists every public key with the time from which on it signs and the time at which it retires.
//! `signing-<kid>.pem` are the private keys, only on the command side. All processes read the same schedule and a
//! clock, so a rotation is one change of files without coordination: a new key is published at once and signs only when
//! every cache of the set has it, and an old key is accepted until the last token signed with it has expired
//! ([`KeySchedule::rotate`]).

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use events::Timestamp;
use http::header::CACHE_CONTROL;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::ambient;
use crate::checking_keys::{CheckingKeys, Found};
use crate::keys::{KeyError, read_text};
use crate::tokens::{ACCESS_LIFETIME_MAX_S, CLOCKS_MARGIN_S};

/// File with the schedule, in the folder of every service that verifies tokens.
pub const KEYS_FILE: &str = "keys.json";
/// How long a key set may be cached, in seconds.
pub const JWKS_MAX_AGE_S: u64 = 300;
/// Pause between two reads of the folder.
const RELOAD_EVERY: Duration = Duration::from_secs(2);
/// How long a new key is published before it signs, by default: time for the caches of others, and to copy the files to
/// every host.
pub const LEAD_DEFAULT_S: u64 = 2 * JWKS_MAX_AGE_S;
/// Shortest lead: every process has read its folder twice.
pub const LEAD_MIN_S: u64 = 5;
/// How much longer than it signs a key is accepted: the longest lifetime of an access token, and the difference of
/// clocks.
const TAKEN_AFTER_S: u64 = ACCESS_LIFETIME_MAX_S + CLOCKS_MARGIN_S;

/// The key that signs access tokens, with its id.
#[derive(Clone)]
pub struct SigningKey {
    /// RFC 7638 thumbprint; `kid` of a token.
    pub id: String,
    /// In the signing library's form.
    pub key: EncodingKey,
    public: Vec<u8>,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A public key in a JWK set (RFC 8037), with public members only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicKey {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The key in base64url.
    pub x: String,
    /// RFC 7638 thumbprint.
    pub kid: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub purpose: String,
}

impl PublicKey {
    fn ed25519(public: &[u8]) -> Self {
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            x: URL_SAFE_NO_PAD.encode(public),
            kid: thumbprint(public),
            alg: "EdDSA".to_owned(),
            purpose: "sig".to_owned(),
        }
    }
}

/// A JWK set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeySet {
    /// The keys; never two with one `kid`.
    pub keys: Vec<PublicKey>,
}

impl SigningKey {
    /// Generates an Ed25519 key and returns it as PKCS#8 in PEM.
    ///
    /// PEM is written and read here by hand, because the `pem` crate leaves copies of the key that are not overwritten.
    ///
    /// # Errors
    /// [`KeyError::Generate`].
    pub fn generate_pem() -> Result<Zeroizing<String>, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generate)?;
        let der = pair.to_pkcs8v1().map_err(|_| KeyError::Generate)?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", *body);
        Ok(Zeroizing::new(pem))
    }

    /// Reads a PEM file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&read_text(path)?, path)
    }

    /// Parses the text of a PEM file.
    ///
    /// # Errors
    /// [`KeyError::Content`] names `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let content =
            || KeyError::Content { path: path.into(), expected: "an Ed25519 key as PKCS#8 in PEM" };
        // Never reallocated: a part of the key would stay in memory.
        let mut body = Zeroizing::new(String::with_capacity(text.len()));
        body.extend(text.lines().filter(|line| !line.starts_with("-----")));
        let der = Zeroizing::new(STANDARD.decode(&*body).map_err(|_| content())?);
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| content())?;
        let public = pair.public_key().as_ref().to_vec();
        Ok(Self { id: thumbprint(&public), key: EncodingKey::from_ed_der(&der), public })
    }

    /// The public key that verifies its signatures.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::ed25519(&self.public)
    }

    /// The only algorithm.
    pub const ALGORITHM: Algorithm = Algorithm::EdDSA;
}

/// One key of the schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledKey {
    /// The public key.
    pub key: PublicKey,
    /// When it begins to sign.
    pub sign_from: Timestamp,
    /// From when on it is not accepted any more; `null` as long as no other key follows it.
    pub retire_at: Option<Timestamp>,
}

/// The keys with their times.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySchedule {
    /// In no order.
    pub keys: Vec<ScheduledKey>,
}

impl KeySchedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        serde_json::from_str(&read_text(path)?)
            .map_err(|_| KeyError::Content { path: path.into(), expected: "a schedule of keys" })
    }

    /// Adds a key that signs from `now + lead_s` on, or at once if it is the first, and lets the others retire when the
    /// last token that they can have signed has expired. Retired keys are removed.
    pub fn rotate(&mut self, key: PublicKey, now: Timestamp, lead_s: u64) {
        self.keys.retain(|known| known.is_taken(now));
        let sign_from = if self.keys.is_empty() { now } else { now.plus_seconds(lead_s) };
        for known in &mut self.keys {
            known.retire_at.get_or_insert(sign_from.plus_seconds(TAKEN_AFTER_S));
        }
        self.keys.push(ScheduledKey { key, sign_from, retire_at: None });
    }

    /// Removes a key at once, and with it every token that it has signed. `false` if no key can sign any more, and one
    /// has to be added; `None` if there is no such key.
    pub fn revoke(&mut self, kid: &str, now: Timestamp) -> Option<bool> {
        let signed = self.signing(now).is_some_and(|signing| signing.key.kid == kid);
        let place = self.keys.iter().position(|known| known.key.kid == kid)?;
        self.keys.remove(place);
        if signed {
            // A published key that waits for its time starts early: verifiers that do not know it yet fetch it.
            let next = self.keys.iter_mut().filter(|known| known.sign_from > now);
            let next = next.min_by_key(|known| known.sign_from);
            return Some(next.map(|next| next.sign_from = now).is_some());
        }
        if self.keys.iter().all(|known| known.retire_at.is_some()) {
            // It was to replace the signing key, which continues instead.
            let signing = self.keys.iter_mut().filter(|known| known.sign_from <= now);
            if let Some(signing) = signing.max_by_key(|known| known.sign_from) {
                signing.retire_at = None;
            }
        }
        Some(true)
    }

    /// The key that signs at a time: the one that started last.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&ScheduledKey> {
        self.keys.iter().filter(|key| key.sign_from <= now).max_by_key(|key| key.sign_from)
    }

    /// The keys that are accepted at a time, including those that do not sign yet.
    #[must_use]
    pub fn key_set(&self, now: Timestamp) -> KeySet {
        let taken = self.keys.iter().filter(|key| key.is_taken(now));
        KeySet { keys: taken.map(|key| key.key.clone()).collect() }
    }
}

impl ScheduledKey {
    fn is_taken(&self, now: Timestamp) -> bool {
        self.retire_at.is_none_or(|retire_at| now < retire_at)
    }
}

/// The name of a private key's file.
#[must_use]
pub fn private_key_file(kid: &str) -> String {
    format!("signing-{kid}.pem")
}

/// The content of a folder.
struct Loaded {
    schedule: KeySchedule,
    checking: HashMap<String, Arc<DecodingKey>>,
    signing: HashMap<String, Arc<SigningKey>>,
}

impl Loaded {
    fn read(dir: &Path, signs: bool) -> Result<Self, KeyError> {
        let path = dir.join(KEYS_FILE);
        let schedule = KeySchedule::read(&path)?;
        let mut checking = HashMap::new();
        let mut signing = HashMap::new();
        for ScheduledKey { key, .. } in &schedule.keys {
            let decoding = DecodingKey::from_ed_components(&key.x)
                .map_err(|_| KeyError::Content { path: path.clone(), expected: "Ed25519 keys" })?;
            checking.insert(key.kid.clone(), Arc::new(decoding));
            if signs {
                let file = dir.join(private_key_file(&key.kid));
                let private = SigningKey::read(&file)?;
                if private.id != key.kid {
                    return Err(KeyError::Content { path: file, expected: "the key of its name" });
                }
                signing.insert(key.kid.clone(), Arc::new(private));
            }
        }
        Ok(Self { schedule, checking, signing })
    }
}

/// The keys of a folder, reloaded when it changes. Cheap to clone.
#[derive(Clone)]
pub struct KeyRing {
    loaded: Arc<RwLock<Loaded>>,
}

impl KeyRing {
    /// Reads a folder, and again every two seconds until `stop`; `signs` if the private keys are needed, too. If files
    /// become unusable, the keys stay: they may be copied just now.
    ///
    /// # Errors
    /// [`KeyError`]: a file is missing or invalid.
    pub fn follow(dir: &Path, signs: bool, stop: &CancellationToken) -> Result<Self, KeyError> {
        let ring = Self { loaded: Arc::new(RwLock::new(Loaded::read(dir, signs)?)) };
        ring.read_again(dir.to_owned(), signs, stop.clone());
        Ok(ring)
    }

    /// Reads a folder once, and returns the ids of its keys.
    ///
    /// # Errors
    /// As [`KeyRing::follow`].
    pub fn check(dir: &Path, signs: bool) -> Result<Vec<String>, KeyError> {
        let keys = Loaded::read(dir, signs)?.schedule.keys;
        Ok(keys.into_iter().map(|scheduled| scheduled.key.kid).collect())
    }

    /// A single key without a folder, for tests.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn of(key: SigningKey) -> Result<Self, KeyError> {
        let mut schedule = KeySchedule::default();
        schedule.rotate(key.public(), ambient::now(), 0);
        let decoding =
            DecodingKey::from_ed_components(&key.public().x).map_err(|_| KeyError::Generate)?;
        let loaded = Loaded {
            schedule,
            checking: HashMap::from([(key.id.clone(), Arc::new(decoding))]),
            signing: HashMap::from([(key.id.clone(), Arc::new(key))]),
        };
        Ok(Self { loaded: Arc::new(RwLock::new(loaded)) })
    }

    fn read_again(&self, dir: PathBuf, signs: bool, stop: CancellationToken) {
        let loaded = Arc::clone(&self.loaded);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its stop token, which every caller has"
        )]
        tokio::spawn(async move {
            let mut look = interval(RELOAD_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut failing = false;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = look.tick() => {}
                }
                let from = dir.clone();
                let read = tokio::task::spawn_blocking(move || Loaded::read(&from, signs)).await;
                match read {
                    Ok(Ok(read)) => {
                        failing = false;
                        *loaded.write().unwrap_or_else(PoisonError::into_inner) = read;
                    }
                    Ok(Err(error)) if !failing => {
                        failing = true;
                        tracing::warn!(%error, "cannot read the signing keys again; keeping the known ones");
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        });
    }

    /// The key that signs now.
    #[must_use]
    pub fn signing(&self) -> Option<Arc<SigningKey>> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let scheduled = loaded.schedule.signing(ambient::now())?;
        loaded.signing.get(&scheduled.key.kid).cloned()
    }

    /// The route of the key set, for verifiers elsewhere.
    pub fn routes(self) -> Router {
        Router::new().route("/.well-known/jwks.json", get(move || async move { self.response() }))
    }

    /// The key set as an answer that may be cached for [`JWKS_MAX_AGE_S`].
    fn response(&self) -> Response {
        let cache = format!("public, max-age={JWKS_MAX_AGE_S}");
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        ([(CACHE_CONTROL, cache)], Json(loaded.schedule.key_set(ambient::now()))).into_response()
    }
}

#[async_trait]
impl CheckingKeys for KeyRing {
    fn find(&self, kid: &str) -> Found {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let now = ambient::now();
        let taken = loaded.schedule.keys.iter().any(|key| key.key.kid == kid && key.is_taken(now));
        let key = if taken { loaded.checking.get(kid).cloned() } else { None };
        key.map_or(Found::Unknown, Found::Key)
    }
}

/// RFC 7638: SHA-256 over the required members in order.
fn thumbprint(public: &[u8]) -> String {
    let jwk = json!({"crv": "Ed25519", "kty": "OKP", "x": URL_SAFE_NO_PAD.encode(public)});
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, jwk.to_string().as_bytes());
    URL_SAFE_NO_PAD.encode(digest.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.3 has key and thumbprint.
    #[test]
    fn the_thumbprint_is_the_one_of_the_rfc() {
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(thumbprint(&public), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap()
    }

    /// A key that signs, and another one that follows it at 1,600.
    fn rotating() -> (KeySchedule, [PublicKey; 2]) {
        let [one, two] = [[1; 32], [2; 32]].map(|key| PublicKey::ed25519(&key));
        let mut schedule = KeySchedule::default();
        schedule.rotate(one.clone(), at(0), 600);
        schedule.rotate(two.clone(), at(1_000), 600);
        (schedule, [one, two])
    }

    #[test]
    fn the_key_that_follows_signs_at_once_when_the_one_that_signs_is_revoked() {
        let (mut schedule, [one, two]) = rotating();
        assert_eq!(schedule.revoke(&one.kid, at(1_100)), Some(true));
        assert_eq!(schedule.signing(at(1_100)).unwrap().key, two);
        assert_eq!(schedule.key_set(at(1_100)).keys, [two]);
    }

    #[test]
    fn the_key_that_signs_goes_on_when_the_one_that_follows_is_revoked() {
        let (mut schedule, [one, two]) = rotating();
        assert_eq!(schedule.revoke(&two.kid, at(1_100)), Some(true));
        assert_eq!(schedule.signing(at(100_000)).unwrap().key, one);
        assert_eq!(schedule.key_set(at(100_000)).keys, [one]);
    }

    #[test]
    fn a_key_that_signs_no_more_is_revoked_alone() {
        let (mut schedule, [one, two]) = rotating();
        assert_eq!(schedule.revoke(&one.kid, at(1_700)), Some(true));
        assert_eq!(
            schedule.keys,
            [ScheduledKey { key: two, sign_from: at(1_600), retire_at: None }]
        );
    }

    #[test]
    fn without_the_only_key_another_one_is_needed() {
        let mut schedule = KeySchedule::default();
        let one = PublicKey::ed25519(&[1; 32]);
        schedule.rotate(one.clone(), at(0), 600);
        assert_eq!(schedule.revoke("nobody", at(1)), None);
        assert_eq!(schedule.revoke(&one.kid, at(1)), Some(false));
    }

    #[test]
    fn a_new_key_is_published_before_it_signs_and_an_old_one_taken_after_it_did() {
        let [one, two, three] = [[1; 32], [2; 32], [3; 32]].map(|key| PublicKey::ed25519(&key));
        let mut schedule = KeySchedule::default();
        schedule.rotate(one.clone(), at(0), 600);
        schedule.rotate(two.clone(), at(1_000), 600);
        let signs =
            |schedule: &KeySchedule, second| schedule.signing(at(second)).unwrap().key.clone();
        let taken = |schedule: &KeySchedule, second| schedule.key_set(at(second)).keys;
        assert_eq!(signs(&schedule, 0), one, "the first signs at once");
        assert_eq!(taken(&schedule, 1_000), [one.clone(), two.clone()]);
        assert_eq!((signs(&schedule, 1_599), signs(&schedule, 1_600)), (one.clone(), two.clone()));
        let over = 1_600 + i64::try_from(TAKEN_AFTER_S).unwrap();
        assert_eq!(taken(&schedule, over - 1), [one.clone(), two.clone()]);
        assert_eq!(taken(&schedule, over), std::slice::from_ref(&two));
        // Again before the first one has retired: its time stays.
        let mut soon = schedule.clone();
        soon.rotate(three.clone(), at(1_700), 600);
        assert_eq!(taken(&soon, over), [two.clone(), three.clone()]);
        schedule.rotate(three.clone(), at(over), 600);
        assert_eq!(schedule.keys.len(), 2, "what has retired is gone");
    }
}
