//! Cursors: where the next page starts, sealed so that nobody makes one up or moves it to another query.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::{Timestamp, User, UserId};
use service_kit::keys::SecretKey;

const PLACE_BYTES: usize = 8 + 16;
const TAG_BYTES: usize = 32;

/// The last user of a page: the next one starts behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `created_at` in milliseconds since 1970.
    pub created_at_ms: i64,
    /// The user's id, which makes the order total.
    pub id: UserId,
}

impl Place {
    /// The place of a user in the list.
    pub fn of(user: &User) -> Self {
        Self { created_at_ms: millis(user.created_at), id: user.id }
    }

    /// The cursor for a place in the list that `query` describes.
    pub fn seal(self, key: &SecretKey, query: &str) -> String {
        let mut bytes = self.created_at_ms.to_be_bytes().to_vec();
        bytes.extend_from_slice(self.id.as_uuid().as_bytes());
        let tag = key.mac(&[query.as_bytes(), &bytes]);
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The place in a cursor; `None` when we did not make it for this query.
    pub fn open(cursor: &str, key: &SecretKey, query: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (place, tag) = bytes.split_at_checked(PLACE_BYTES)?;
        if tag.len() != TAG_BYTES || !key.verifies(&[query.as_bytes(), place], tag) {
            return None;
        }
        let (created_at, id) = place.split_at_checked(8)?;
        Some(Self {
            created_at_ms: i64::from_be_bytes(created_at.try_into().ok()?),
            id: UserId::from_uuid(uuid::Uuid::from_slice(id).ok()?),
        })
    }
}

fn millis(time: Timestamp) -> i64 {
    time.as_datetime().timestamp_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_its_query_and_key_alone() {
        let key = SecretKey::generate().unwrap();
        let place =
            Place { created_at_ms: 1_700_000_000_000, id: UserId::from_uuid(uuid::Uuid::max()) };
        let cursor = place.seal(&key, "role=admin");
        assert_eq!(Place::open(&cursor, &key, "role=admin"), Some(place));
        assert_eq!(Place::open(&cursor, &key, "role=user"), None);
        assert_eq!(Place::open(&cursor, &SecretKey::generate().unwrap(), "role=admin"), None);
        let mut forged = cursor.clone();
        forged.replace_range(0..1, if cursor.starts_with('A') { "B" } else { "A" });
        assert_eq!(Place::open(&forged, &key, "role=admin"), None);
        for garbage in ["", "x", "====", &"A".repeat(500)] {
            assert_eq!(Place::open(garbage, &key, "role=admin"), None);
        }
    }
}
