//! Refresh tokens: opaque, derived, stored nowhere.
//!
//! A token names user, session and generation and carries a MAC over them and the session's random
//! seed. So the successor of a token can be made again for a client whose answer was lost, the log holds
//! nothing that is a token, and neither the log nor the key alone is enough to make one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{Session, SessionId, UserId};
use service_kit::key_ring::RotatingKey;
use service_kit::keys::SecretKey;
use uuid::Uuid;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// Version, user, session, generation, MAC.
const TOKEN_BYTES: usize = 1 + 16 + 16 + 4 + MAC_BYTES;

/// A token that was read and not yet checked.
#[derive(Debug, Clone)]
pub struct Presented {
    /// Whose session it claims.
    pub user: UserId,
    /// Which session it claims.
    pub session: SessionId,
    /// Which of its tokens it claims to be.
    pub generation: u32,
    mac: [u8; MAC_BYTES],
}

/// Makes and checks tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RefreshTokens {
    key: RotatingKey,
}

impl RefreshTokens {
    /// Uses a key for this purpose alone.
    pub fn new(key: impl Into<RotatingKey>) -> Self {
        Self { key: key.into() }
    }

    /// The token of a session that is good now.
    pub fn current(&self, session: &Session) -> String {
        let mac = mac(&self.key.sealing(), session, session.generation);
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(session.user_id.as_uuid().as_bytes());
        bytes.extend_from_slice(session.id.as_uuid().as_bytes());
        bytes.extend_from_slice(&session.generation.to_be_bytes());
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token. `None` for anything else.
    pub fn read(token: &str) -> Option<Presented> {
        // Base64 without padding has four characters for three bytes.
        if token.len() != (TOKEN_BYTES * 4).div_ceil(3) {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&[version], bytes) = bytes.split_first_chunk::<1>()?;
        let (user, bytes) = bytes.split_first_chunk::<16>()?;
        let (session, bytes) = bytes.split_first_chunk::<16>()?;
        let (generation, mac) = bytes.split_first_chunk::<4>()?;
        let presented = Presented {
            user: UserId::from_uuid(Uuid::from_bytes(*user)),
            session: SessionId::from_uuid(Uuid::from_bytes(*session)),
            generation: u32::from_be_bytes(*generation),
            mac: mac.try_into().ok()?,
        };
        (version == VERSION).then_some(presented)
    }

    /// Whether a token was made for this session, whether or not it is the good one.
    pub fn made(&self, presented: &Presented, session: &Session) -> bool {
        let generation = presented.generation;
        presented.session == session.id
            && presented.user == session.user_id
            && self
                .key
                .accepted()
                .iter()
                .any(|key| key.verifies(&parts(session, &generation.to_be_bytes()), &presented.mac))
    }
}

fn mac(key: &SecretKey, session: &Session, generation: u32) -> [u8; MAC_BYTES] {
    key.mac(&parts(session, &generation.to_be_bytes()))
}

fn parts<'a>(session: &'a Session, generation: &'a [u8]) -> [&'a [u8]; 4] {
    [
        session.user_id.as_uuid().as_bytes(),
        session.id.as_uuid().as_bytes(),
        session.seed.as_bytes(),
        generation,
    ]
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use events::{Position, Revision, SessionSeed, Timestamp};
    use service_kit::ambient;
    use service_kit::key_ring::Ring;

    fn session(n: u128) -> Session {
        let time = Timestamp::from_unix_seconds(0).unwrap();
        Session {
            id: SessionId::from_uuid(Uuid::from_u128(n)),
            user_id: UserId::from_uuid(Uuid::from_u128(1)),
            revision: Revision(1),
            epoch: Position(0),
            lineage: None,
            seed: SessionSeed::from_bytes([7; 16]),
            generation: 3,
            created_at: time,
            refreshed_at: time,
            expires_at: time,
            ends_at: time,
            user_agent: None,
            ip: None,
            ended: None,
        }
    }

    #[test]
    fn a_token_is_that_of_its_session_and_generation() {
        let tokens = RefreshTokens::new(SecretKey::generate().unwrap());
        let token = tokens.current(&session(2));
        assert_eq!(token, tokens.current(&session(2)), "it can be made again");
        let presented = RefreshTokens::read(&token).unwrap();
        assert_eq!(presented.generation, 3);
        assert!(tokens.made(&presented, &session(2)));
        assert!(!tokens.made(&presented, &session(3)));
        let reseeded = Session { seed: SessionSeed::from_bytes([8; 16]), ..session(2) };
        assert!(!tokens.made(&presented, &reseeded));
        let stranger = RefreshTokens::new(SecretKey::generate().unwrap());
        assert!(!stranger.made(&presented, &session(2)));
    }

    #[test]
    fn a_token_of_the_old_key_is_taken_during_a_rotation_and_not_after_it() {
        let old = SecretKey::generate().unwrap();
        let ring = Ring::parse(&old.to_base64(), Path::new("old")).unwrap();
        let ring = ring.with(SecretKey::generate().unwrap(), ambient::now());
        let [before, during, after] =
            [old.into(), RotatingKey::from(ring.clone()), ring.finished().into()]
                .map(RefreshTokens::new);
        let takes = |by: &RefreshTokens, token: &str| {
            by.made(&RefreshTokens::read(token).unwrap(), &session(2))
        };
        let [old, new] = [&before, &during].map(|tokens| tokens.current(&session(2)));
        assert!(takes(&during, &old) && takes(&during, &new));
        assert!(takes(&after, &new) && !takes(&after, &old));
        assert!(!takes(&before, &new), "the new key seals");
    }

    #[test]
    fn a_changed_token_is_refused() {
        let tokens = RefreshTokens::new(SecretKey::generate().unwrap());
        let bytes = URL_SAFE_NO_PAD.decode(tokens.current(&session(2))).unwrap();
        for n in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[n] ^= 1;
            let read = RefreshTokens::read(&URL_SAFE_NO_PAD.encode(changed));
            assert!(read.is_none_or(|read| !tokens.made(&read, &session(2))), "byte {n}");
        }
        for garbage in ["", "a", &"A".repeat(92), &"A".repeat(93), &"!".repeat(92)] {
            assert!(RefreshTokens::read(garbage).is_none(), "{garbage}");
        }
    }
}
