//! Access tokens: RFC 9068 JWTs, EdDSA alone, every claim required and checked.
//!
//! The library leaves three gaps that are closed here: it ignores `typ` and `crit`, it lets a missing
//! `aud`, `iss` or `sub` pass unless listed as required, and it grants 60 s of leeway by default.

use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use events::{Position, SessionId, UserId};
use http::header::AUTHORIZATION;
use http::request::Parts;
use jsonwebtoken::{Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::{Access, Permission};
use crate::ambient;
use crate::config::Tokens;
use crate::problem::{Code, Problem};
use crate::revocations::Revocations;
use crate::signing_keys::{KeyRing, SigningKey};

/// `typ` of an access token (RFC 9068 2.1).
const TYPE: &str = "at+jwt";
/// Longest token looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 4096;

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
    roles: Vec<String>,
}

/// Makes access tokens.
#[derive(Clone)]
pub struct TokenIssuer {
    keys: KeyRing,
    settings: Tokens,
}

/// Signing failed, which a sound key never does.
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
    /// Signs with the key whose time it is.
    #[must_use]
    pub const fn new(keys: KeyRing, settings: Tokens) -> Self {
        Self { keys, settings }
    }

    /// Seconds a new token lives.
    #[must_use]
    pub const fn lifetime_s(&self) -> u32 {
        self.settings.access_lifetime_s
    }

    /// A token for a user in a session, from now on. `epoch` is the position of the user's last
    /// revocation, read before anything else was.
    ///
    /// # Errors
    /// [`SignError`]: a fault of the key.
    pub fn issue(
        &self,
        user: UserId,
        session: SessionId,
        epoch: Position,
        roles: &[String],
    ) -> Result<String, SignError> {
        let now = unix_seconds();
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            aud: self.settings.audience.clone(),
            sub: user,
            exp: now + u64::from(self.settings.access_lifetime_s),
            iat: now,
            jti: ambient::new_uuid(),
            sid: session,
            epoch,
            roles: roles.to_vec(),
        };
        let key = self.keys.signing().ok_or(SignError::NoKey)?;
        let mut header = Header::new(SigningKey::ALGORITHM);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.id.clone());
        Ok(encode(&header, &claims, &key.key)?)
    }
}

/// Checks access tokens. Cheap to clone.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: KeyRing,
    validation: Arc<Validation>,
    revocations: Option<Revocations>,
    access: Access,
}

/// Who calls, as the token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user: UserId,
    /// The session the token belongs to.
    pub session: SessionId,
    /// The user's last revocation that the token knows of.
    pub epoch: Position,
    /// The user's roles when the token was made.
    pub roles: Vec<String>,
}

impl TokenVerifier {
    /// Accepts tokens signed with one of `keys` for this issuer and audience. Without revocations, and with
    /// the roles that are always there.
    #[must_use]
    pub fn new(keys: KeyRing, settings: &Tokens) -> Self {
        let mut validation = Validation::new(SigningKey::ALGORITHM);
        validation.leeway = 0;
        validation.validate_nbf = true;
        validation.set_issuer(&[&settings.issuer]);
        validation.set_audience(&[&settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            keys,
            validation: Arc::new(validation),
            revocations: None,
            access: Access::default(),
        }
    }

    /// The same, which also refuses what was revoked.
    #[must_use]
    pub fn with_revocations(self, revocations: Revocations) -> Self {
        Self { revocations: Some(revocations), ..self }
    }

    /// The same, which also knows other roles.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// What roles allow.
    #[must_use]
    pub const fn access(&self) -> &Access {
        &self.access
    }

    /// Checks a token, and that its session and its user's access have not ended.
    ///
    /// # Errors
    /// `unauthorized`, the same for every reason.
    pub fn verify(&self, token: &str) -> Result<Caller, Problem> {
        let caller = self.verify_signature(token)?;
        let revoked = |r: &Revocations| r.denies(caller.user, caller.session, caller.epoch);
        if self.revocations.as_ref().is_some_and(revoked) {
            return Err(Problem::new(Code::Unauthorized));
        }
        Ok(caller)
    }

    /// Checks a token for itself: signature, claims, end. For those who want to end a session that may
    /// have ended already.
    ///
    /// # Errors
    /// `unauthorized`, the same for every reason.
    pub fn verify_signature(&self, token: &str) -> Result<Caller, Problem> {
        self.claims(token)
            .map(|claims| Caller {
                user: claims.sub,
                session: claims.sid,
                epoch: claims.epoch,
                roles: claims.roles,
            })
            .ok_or_else(|| Problem::new(Code::Unauthorized))
    }

    /// What a role beyond that of every user needs: knowledge of what ended that is not too old.
    ///
    /// # Errors
    /// `unavailable` while the bus is silent.
    pub fn check_current(&self) -> Result<(), Problem> {
        match &self.revocations {
            Some(revocations) if !revocations.is_current() => Err(Problem::new(Code::Unavailable)
                .detail("whether your access has ended cannot be told right now")),
            Some(_) | None => Ok(()),
        }
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let header = decode_header(token).ok()?;
        let is_access_token = header.typ.as_deref().is_some_and(|typ| {
            typ.eq_ignore_ascii_case(TYPE) || typ.eq_ignore_ascii_case("application/at+jwt")
        });
        if !is_access_token || has_crit(token)? {
            return None;
        }
        let key = self.keys.checking(header.kid.as_deref()?)?;
        let claims = decode::<Claims>(token, &key, &self.validation).ok()?.claims;
        // The library takes `exp` as not over in its last second; ours is over when the clock says so.
        (claims.exp > unix_seconds()).then_some(claims)
    }
}

/// RFC 7515 4.1.11: an extension we do not know must be refused, and we know none.
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

/// The token of `Authorization: Bearer …`.
///
/// # Errors
/// `unauthorized` when there is none, more than one, or another scheme.
pub fn bearer(parts: &Parts) -> Result<&str, Problem> {
    let refused = || Problem::new(Code::Unauthorized);
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (headers.next(), headers.next()) else { return Err(refused()) };
    let (scheme, token) =
        value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(refused)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(refused()) }
}

/// A caller with a valid token. A handler without this or [`Administrator`] is open to everyone.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Caller);

impl<S> FromRequestParts<S> for Authenticated
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        TokenVerifier::from_ref(state).verify(bearer(parts)?).map(Self)
    }
}

/// A caller whose token carries a role that allows to administer.
#[derive(Debug, Clone)]
pub struct Administrator(pub Caller);

/// A caller whose token carries a role that allows to change other users.
#[derive(Debug, Clone)]
pub struct UserWriter(pub Caller);

impl<S> FromRequestParts<S> for Administrator
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        permitted(parts, state, Permission::Administer).await.map(Self)
    }
}

impl<S> FromRequestParts<S> for UserWriter
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        permitted(parts, state, Permission::WriteUsers).await.map(Self)
    }
}

async fn permitted<S>(
    parts: &mut Parts,
    state: &S,
    permission: Permission,
) -> Result<Caller, Problem>
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    let Authenticated(caller) = Authenticated::from_request_parts(parts, state).await?;
    let verifier = TokenVerifier::from_ref(state);
    if !verifier.access.allows(&caller.roles, permission) {
        return Err(lacking(permission));
    }
    verifier.check_current()?;
    Ok(caller)
}

/// What a caller without a permission is told.
#[must_use]
pub fn lacking(permission: Permission) -> Problem {
    let what = match permission {
        Permission::Administer => "the role admin".to_owned(),
        Permission::ReadUsers | Permission::WriteUsers => format!("the permission {permission}"),
    };
    Problem::new(Code::Forbidden).detail(format!("this needs {what}"))
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
        std::fs::write(&path, SigningKey::generate_pem().unwrap()).unwrap();
        SigningKey::read(&path).unwrap()
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
        let verifier = TokenVerifier::new(keys.clone(), &settings());
        let user = UserId::from_uuid(ambient::new_uuid());
        let (session, epoch) = (SessionId::from_uuid(ambient::new_uuid()), Position(7));
        let issuer = TokenIssuer::new(keys, settings());
        let token = issuer.issue(user, session, epoch, &["admin".to_owned()]).unwrap();
        let caller = verifier.verify(&token).unwrap();
        assert_eq!(caller, Caller { user, session, epoch, roles: vec!["admin".to_owned()] });
    }

    #[test]
    fn everything_else_is_refused() {
        let key = key();
        let other = self::key();
        let verifier = TokenVerifier::new(KeyRing::of(key.clone()).unwrap(), &settings());
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
