//! Access tokens: RFC 9068 JWTs, only EdDSA, every claim required and checked.
//!
//! The library leaves three gaps that are closed here: it ignores `typ` and `crit`, it accepts a missing `aud`, `iss`
//! or `sub` unless listed as required, and it grants 60 s of leeway by default.

mod callers;

use std::sync::Arc;

use events::{Lineage, Position, SessionId, UserId};
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::Access;
use crate::ambient;
use crate::checking_keys::{CheckingKeys, Found};
use crate::config::Tokens;
use crate::problem::{Code, Problem};
use crate::revocations::Revocations;
use crate::signing_keys::{KeyRing, SigningKey};
use crate::trace;

pub use callers::{
    Administrator, Authenticated, HasRole, NamedRole, Presented, UserWriter, bearer, lacking,
};

/// `typ` of an access token (RFC 9068 2.1).
const TYPE: &str = "at+jwt";
/// Longest token that is parsed, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;
/// Longest lifetime of an access token, in seconds. Tokens with a longer one are rejected, because revocations are not
/// remembered for longer.
pub const ACCESS_LIFETIME_MAX_S: u64 = 3_600;
/// How far clocks may differ, in seconds. No token lives longer because of it.
pub(crate) const CLOCKS_MARGIN_S: u64 = 60;

/// The claims. No personal data: `sub` is an opaque id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: UserId,
    exp: u64,
    iat: u64,
    jti: Uuid,
    sid: SessionId,
    /// The user's last revocation that was known when the token was made. A private claim.
    epoch: Position,
    /// The history of the log that `epoch` is a position in. A private claim, absent in tokens of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lineage: Option<Lineage>,
    roles: Vec<String>,
    /// Absent in tokens of older versions, for which it is unknown.
    #[serde(default)]
    email_verified: bool,
}

impl Claims {
    /// Checks that the library leaves out: it accepts `exp` in its last second, and ignores `iat`.
    const fn are_of(&self, now: u64) -> bool {
        self.exp > now
            && self.iat <= now.saturating_add(CLOCKS_MARGIN_S)
            && self.exp.saturating_sub(self.iat) <= ACCESS_LIFETIME_MAX_S
    }
}

/// Issues access tokens.
#[derive(Clone)]
pub struct TokenIssuer {
    keys: KeyRing,
    settings: Tokens,
}

/// Signing failed, which a valid key never does.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// No key of the schedule signs now.
    #[error("no key signs access tokens now")]
    NoKey,
    /// The library failed.
    #[error("cannot sign an access token")]
    Library(#[from] jsonwebtoken::errors::Error),
}

impl TokenIssuer {
    /// Signs with the key that is due.
    #[must_use]
    pub const fn new(keys: KeyRing, settings: Tokens) -> Self {
        Self { keys, settings }
    }

    /// Lifetime of a new token, in seconds.
    #[must_use]
    pub const fn lifetime_s(&self) -> u32 {
        self.settings.access_lifetime_s
    }

    /// A token for a caller, valid from now on. The epoch is the position of the user's last revocation, read before
    /// anything else.
    ///
    /// # Errors
    /// [`SignError`]: a fault of the key.
    pub fn issue(&self, caller: &Caller) -> Result<String, SignError> {
        let now = unix_seconds();
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            sub: caller.user,
            exp: now + u64::from(self.settings.access_lifetime_s),
            iat: now,
            jti: ambient::new_uuid(),
            sid: caller.session,
            epoch: caller.epoch,
            lineage: caller.lineage,
            roles: caller.roles.clone(),
            email_verified: caller.email_verified,
        };
        let key = self.keys.signing().ok_or(SignError::NoKey)?;
        let mut header = Header::new(SigningKey::ALGORITHM);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.id.clone());
        Ok(encode(&header, &claims, &key.key)?)
    }
}

/// Verifies access tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Arc<dyn CheckingKeys>,
    validation: Arc<Validation>,
    revocations: Option<Revocations>,
    access: Access,
}

/// The caller, according to the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The session the token belongs to.
    pub session: SessionId,
    /// The user's last revocation that the token knows of.
    pub epoch: Position,
    /// The history of the log that this is a position in, if the token names it.
    pub lineage: Option<Lineage>,
    /// The user's roles when the token was made.
    pub roles: Vec<String>,
    /// Whether the user had verified the address. Otherwise the address in the feed may be anybody's.
    pub email_verified: bool,
}

impl Caller {
    /// Whether the token has a role. The caller of this function knows what the role permits.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|carried| carried == role)
    }
}

impl TokenVerifier {
    /// Accepts tokens signed with one of `keys` for this issuer and audience. Without revocations, and with the
    /// built-in roles; [`Verification`](crate::verification::Verification) has everything.
    #[must_use]
    pub fn new(keys: Arc<dyn CheckingKeys>, issuer: &str, audience: &str) -> Self {
        let mut validation = Validation::new(SigningKey::ALGORITHM);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            keys,
            validation: Arc::new(validation),
            revocations: None,
            access: Access::default(),
        }
    }

    /// Rejects revoked tokens, too.
    #[must_use]
    pub fn with_revocations(self, revocations: Revocations) -> Self {
        Self { revocations: Some(revocations), ..self }
    }

    /// Knows more roles.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// The permissions of roles.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Verifies a token, and that its session and its user's access have not ended. Sends no request.
    ///
    /// # Errors
    /// `unauthorized`, the same for every reason; `unavailable` while no key can be trusted.
    pub fn verify(&self, token: &str) -> Result<Caller, Problem> {
        self.living(self.verify_signature(token)?)
    }

    /// The same, and asks the source of keys if the token's key is unknown, which happens once for each new key. Used
    /// by every extractor.
    ///
    /// # Errors
    /// `unauthorized`, the same for every reason; `unavailable` while no key can be trusted.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, Problem> {
        let kid = key_id(token).ok_or_else(refused)?;
        let key = match self.keys.find(&kid) {
            Found::Unknown => self.keys.ask_for(&kid).await,
            known @ (Found::Key(_) | Found::Outdated) => known,
        };
        let caller = self.living(self.signed(token, key)?)?;
        if let Some(scope) = trace::current() {
            scope.requester.is(caller.user, caller.session);
        }
        Ok(caller)
    }

    /// Verifies only the token itself: signature, claims, expiry. For calls that end a session that may have ended
    /// already.
    ///
    /// # Errors
    /// `unauthorized`, the same for every reason; `unavailable` while no key can be trusted.
    pub fn verify_signature(&self, token: &str) -> Result<Caller, Problem> {
        self.signed(token, key_id(token).map_or(Found::Unknown, |kid| self.keys.find(&kid)))
    }

    /// Required for any privileged role: recent knowledge of revocations.
    ///
    /// # Errors
    /// `unavailable` while nothing is received.
    pub fn check_current(&self) -> Result<(), Problem> {
        match &self.revocations {
            Some(revocations) if !revocations.is_current() => Err(Problem::new(Code::Unavailable)
                .detail("whether your access has ended cannot be told right now")),
            Some(_) | None => Ok(()),
        }
    }

    fn living(&self, caller: Caller) -> Result<Caller, Problem> {
        let revoked = |r: &Revocations| r.denies(caller.user, caller.session, caller.epoch);
        if self.revocations.as_ref().is_some_and(revoked) { Err(refused()) } else { Ok(caller) }
    }

    fn signed(&self, token: &str, key: Found) -> Result<Caller, Problem> {
        let key = match key {
            Found::Key(key) => key,
            Found::Unknown => return Err(refused()),
            Found::Outdated => {
                return Err(Problem::new(Code::Unavailable)
                    .detail("whether your access token is good cannot be told right now"));
            }
        };
        let claims = decode::<Claims>(token, &key, &self.validation).map_err(|_| refused())?.claims;
        if !claims.are_of(unix_seconds()) {
            return Err(refused());
        }
        let is_of_another_log = |r: &Revocations| {
            r.is_of_another_log(claims.iat) || r.is_of_another_lineage(claims.lineage)
        };
        if self.revocations.as_ref().is_some_and(is_of_another_log) {
            return Err(refused());
        }
        let Claims { sub: user, sid: session, epoch, lineage, roles, email_verified, .. } = claims;
        Ok(Caller { user, session, epoch, lineage, roles, email_verified })
    }
}

fn refused() -> Problem {
    Problem::new(Code::Unauthorized)
}

/// The id of the key that a token names; `None` if its header is not that of an access token.
fn key_id(token: &str) -> Option<String> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let header = decode_header(token).ok()?;
    let is_access_token = header.typ.as_deref().is_some_and(|typ| {
        typ.eq_ignore_ascii_case(TYPE) || typ.eq_ignore_ascii_case("application/at+jwt")
    });
    if !is_access_token || header.alg != SigningKey::ALGORITHM || has_crit(token)? {
        return None;
    }
    header.kid
}

/// RFC 7515 4.1.11: unknown extensions must be rejected, and all are unknown.
fn has_crit(token: &str) -> Option<bool> {
    use base64::Engine;
    let header = token.split('.').next()?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).ok()?;
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&bytes).ok()?;
    Some(header.contains_key("crit"))
}

fn unix_seconds() -> u64 {
    u64::try_from(ambient::now().as_datetime().timestamp()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::{Value, json};

    fn settings() -> Tokens {
        Tokens {
            issuer: "https://id.example".to_owned(),
            audience: "roster".to_owned(),
            access_lifetime_s: 60,
        }
    }

    fn key() -> SigningKey {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.pem");
        std::fs::write(&path, &*SigningKey::generate_pem().unwrap()).unwrap();
        SigningKey::read(&path).unwrap()
    }

    fn verifier(keys: &KeyRing) -> TokenVerifier {
        TokenVerifier::new(Arc::new(keys.clone()), "https://id.example", "roster")
    }

    fn claims() -> Value {
        let now = unix_seconds();
        json!({"iss": "https://id.example", "aud": "roster", "sub": ambient::new_uuid().to_string(),
               "exp": now + 60, "iat": now, "jti": ambient::new_uuid(), "sid": ambient::new_uuid(), "epoch": 0, "roles": []})
    }

    fn sign(key: &SigningKey, header: &Value, claims: &Value) -> String {
        let encode = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &key.key, SigningKey::ALGORITHM)
                .unwrap();
        format!("{message}.{signature}")
    }

    #[test]
    fn a_token_of_ours_passes() {
        let key = key();
        let keys = KeyRing::of(key).unwrap();
        let verifier = verifier(&keys);
        let user = UserId::from_uuid(ambient::new_uuid());
        let (session, epoch) = (SessionId::from_uuid(ambient::new_uuid()), Position(7));
        let issuer = TokenIssuer::new(keys, settings());
        for email_verified in [true, false] {
            let roles = vec!["admin".to_owned()];
            let lineage = email_verified.then_some(Lineage::from_bytes([7; 8]));
            let caller = Caller { user, session, epoch, lineage, roles, email_verified };
            assert_eq!(verifier.verify(&issuer.issue(&caller).unwrap()).unwrap(), caller);
        }
    }

    #[test]
    fn a_token_that_says_nothing_of_the_address_shows_nothing_of_it() {
        let key = key();
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key.id});
        let token = sign(&key, &header, &claims());
        assert!(!verifier(&KeyRing::of(key).unwrap()).verify(&token).unwrap().email_verified);
    }

    #[test]
    fn everything_else_is_refused() {
        let key = key();
        let other = self::key();
        let verifier = verifier(&KeyRing::of(key.clone()).unwrap());
        let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": key.id});
        assert!(verifier.verify(&sign(&key, &header, &claims())).is_ok(), "the base case is sound");

        for name in ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            assert!(verifier.verify(&sign(&key, &header, &claims)).is_err(), "without {name}");
        }
        let now = unix_seconds();
        for (name, value) in [
            ("iss", json!("https://other.example")),
            ("aud", json!("other")),
            ("exp", json!(now)),
            ("exp", json!(now - 1)),
            ("exp", json!((now + 60).to_string())),
            ("exp", json!(now + ACCESS_LIFETIME_MAX_S + 1)),
            ("iat", json!(now + 2 * CLOCKS_MARGIN_S)),
            ("iat", json!(now.to_string())),
            ("nbf", json!(now + 30)),
            ("sub", json!("*")),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            assert!(verifier.verify(&sign(&key, &header, &claims)).is_err(), "{name} {value}");
        }
        for (name, value) in [
            ("typ", json!("JWT")),
            ("typ", Value::Null),
            ("alg", json!("HS256")),
            ("alg", json!("none")),
            ("kid", json!(other.id)),
            ("kid", Value::Null),
            ("crit", json!(["exp"])),
        ] {
            let mut header = header.clone();
            header[name] = value.clone();
            assert!(verifier.verify(&sign(&key, &header, &claims())).is_err(), "{name} {value}");
        }
        assert!(verifier.verify(&sign(&other, &header, &claims())).is_err(), "another key");
        for garbage in ["", ".", "..", "a.b.c", &"a".repeat(5000)] {
            assert!(verifier.verify(garbage).is_err());
        }
    }
}
